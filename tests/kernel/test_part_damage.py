"""Damage to a part's proof, entry by entry: nothing can be left out, changed, added or moved."""

from __future__ import annotations

from random import Random

import pyarrow as pa
import pytest

from pipelines.kernel.trie_kernel import Kernel
from schemas.errors import (
    MalformedNodeError,
    MalformedPartError,
    MissingTrieValueError,
    PartLimitError,
    UnexpectedTrieValueError,
)
from schemas.ids import ZERO_HASH, CryptoHash, PartId
from schemas.nearcore.state_part import decode_partial_state, encode_partial_state, partial_state_bytes
from schemas.nearcore.trie_node import (
    BranchNode,
    ExtensionNode,
    LeafNode,
    RawTrieNodeWithSize,
    ValueRef,
    encode_nibbles,
    encode_trie_node,
    hash_node,
)
from tests.support.records import ShardParts, pairs_of, parts_of
from tests.support.vectors import verdict_of

NUM_PARTS = 5


@pytest.fixture(scope="module")
def shard(kernel: Kernel) -> ShardParts:
    """Return a shard of a few dozen records in five parts."""
    random = Random(11)
    records = {
        random.randbytes(random.randrange(3)) + random.choice([b"", b"tail"]): random.randbytes(random.randrange(60)) for _ in range(60)
    }
    records |= {b"": b"root value", b"\x01long": bytes(5000), b"\x01longer": bytes(5000)}
    return parts_of(kernel, sorted(records.items()), NUM_PARTS)


def node_bytes(node: LeafNode | BranchNode | ExtensionNode, memory_usage: int) -> bytes:
    """Return a node's bytes."""
    return encode_trie_node(RawTrieNodeWithSize(node, memory_usage))


def test_every_entry_is_needed(kernel: Kernel, shard: ShardParts) -> None:
    """A part without any one of its entries, boundary nodes included, is invalid."""
    for idx, part in enumerate(shard.parts):
        entries = decode_partial_state(part)
        assert len(entries) > 3
        for at in range(len(entries)):
            dropped = pa.py_buffer(partial_state_bytes(entries[:at] + entries[at + 1 :]))
            with pytest.raises(MissingTrieValueError):
                kernel.validate(dropped, shard.state_root, PartId(idx, NUM_PARTS))


def test_no_entry_is_twice_or_too_many(kernel: Kernel, shard: ShardParts) -> None:
    """A doubled entry, and an entry out of another part, prove nothing and make the part invalid."""
    strangers = {entry for part in shard.parts for entry in decode_partial_state(part)}
    for idx, part in enumerate(shard.parts):
        entries = decode_partial_state(part)
        for extra in [*entries, *sorted(strangers - set(entries)), b""]:
            if extra == b"" and b"" in entries:
                continue
            with pytest.raises(UnexpectedTrieValueError):
                kernel.validate(pa.py_buffer(partial_state_bytes([*entries, extra])), shard.state_root, PartId(idx, NUM_PARTS))


def test_every_flipped_bit_is_found(kernel: Kernel, shard: ShardParts) -> None:
    """A part with any one byte changed is never valid."""
    part = shard.parts[2].to_pybytes()
    for at in range(0, len(part), 3):
        damaged = part[:at] + bytes([part[at] ^ 0x10]) + part[at + 1 :]
        assert verdict_of(kernel, damaged, shard.state_root, PartId(2, NUM_PARTS)) != "valid", at


def test_a_part_has_one_id(kernel: Kernel, shard: ShardParts) -> None:
    """A part is valid as itself alone: not as another part, nor out of another number of parts unless that has the same interval."""
    pairs = [pair for part_pairs in shard.part_pairs for pair in part_pairs]
    valid = []
    for total in (1, NUM_PARTS - 1, NUM_PARTS, NUM_PARTS + 1):
        for judged, same in enumerate(parts_of(kernel, pairs, total).parts):
            for idx, part in enumerate(shard.parts):
                expected = "valid" if part == same else "invalid"
                assert expected == verdict_of(kernel, part.to_pybytes(), shard.state_root, PartId(judged, total)), (idx, judged, total)
                valid += [(idx, judged)] if expected == "valid" and total == NUM_PARTS else []
    assert valid == [(idx, idx) for idx in range(NUM_PARTS)]


def test_order_does_not_matter(kernel: Kernel, shard: ShardParts) -> None:
    """Entries in another order are valid, as in nearcore, and apply to the same records."""
    entries = decode_partial_state(shard.parts[1])
    Random(5).shuffle(entries)
    applied = kernel.apply(pa.py_buffer(partial_state_bytes(entries)), shard.state_root, PartId(1, NUM_PARTS))
    assert pairs_of(applied.records, applied.values) == list(shard.part_pairs[1])


def test_apply_refuses_what_validate_refuses(kernel: Kernel, shard: ShardParts) -> None:
    """Applying validates first: no record comes out of an invalid part."""
    entries = decode_partial_state(shard.parts[1])
    with pytest.raises(UnexpectedTrieValueError):
        kernel.apply(pa.py_buffer(partial_state_bytes([*entries, b"extra"])), shard.state_root, PartId(1, NUM_PARTS))
    with pytest.raises(MissingTrieValueError):
        kernel.apply(pa.py_buffer(partial_state_bytes(entries[1:])), shard.state_root, PartId(1, NUM_PARTS))


@pytest.mark.parametrize("idx", [0, 1, 2])
def test_the_part_of_an_empty_trie_is_empty(kernel: Kernel, idx: int) -> None:
    """With the root of zeros no entries are valid, any entry is unexpected, and there are no records."""
    empty = encode_partial_state([])
    assert empty.size == 5
    kernel.validate(empty, ZERO_HASH, PartId(idx, 3))
    applied = kernel.apply(empty, ZERO_HASH, PartId(idx, 3))
    assert pairs_of(applied.records, applied.values) == []
    with pytest.raises(UnexpectedTrieValueError):
        kernel.validate(pa.py_buffer(partial_state_bytes([b"x"])), ZERO_HASH, PartId(idx, 3))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\1\0\0\0\0",
        b"\0\0\0\0\0\0",
        b"\0\xff\xff\xff\xff",
        b"\0\1\0\0\0\xff\xff\xff\xff",
        b"\0\1\0\0\0\2\0\0\0x",
        b"\0\2\0\0\0\1\0\0\0x",
    ],
    ids=["nothing", "no count", "unknown tag", "byte behind", "too many entries", "entry too long", "entry cut off", "entry missing"],
)
def test_what_is_no_partial_state_is_malformed(kernel: Kernel, data: bytes) -> None:
    """Bytes that are not PartialState are malformed, and claimed sizes are not believed."""
    with pytest.raises(MalformedPartError):
        kernel.validate(pa.py_buffer(data), CryptoHash(bytes(31) + b"\1"), PartId(0, 1))


LEAF = LeafNode(key=encode_nibbles(b"\1\2", is_leaf=True), value=ValueRef(1, hash_node(b"v")))
ZERO_LENGTH_KEY = LeafNode(key=b"", value=LEAF.value)
HALF_A_BYTE = LeafNode(key=encode_nibbles(b"\1", is_leaf=True), value=LEAF.value)


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"v",
        b"\4" + bytes(40),
        node_bytes(LEAF, 0)[:-1],
        node_bytes(LEAF, 0) + b"\0",
        node_bytes(ZERO_LENGTH_KEY, 0),
        b"\1\3\0" + bytes(32 + 8),
    ],
    ids=["nothing", "a value", "unknown tag", "cut off", "byte behind", "no nibbles", "child missing"],
)
def test_a_root_that_is_no_node_is_invalid(kernel: Kernel, entry: bytes) -> None:
    """Even under a root that was trusted in error, bytes that are no node are an error of the node's own."""
    part = pa.py_buffer(partial_state_bytes(sorted([entry, b"v"])))
    with pytest.raises(MalformedNodeError):
        kernel.validate(part, hash_node(entry), PartId(0, 1))


@pytest.mark.parametrize("part_id", [PartId(1, 2), PartId(0, 2)])
def test_memory_usage_that_no_child_has_is_invalid(kernel: Kernel, part_id: PartId) -> None:
    """A branch that claims more memory usage than its children have leads the search for a boundary nowhere."""
    leaf = node_bytes(LEAF, 105)
    branch = node_bytes(BranchNode(children={0: hash_node(leaf), 1: hash_node(leaf)}, value=None), 2**64 - 1)
    with pytest.raises(MalformedNodeError):
        kernel.validate(pa.py_buffer(partial_state_bytes([branch, leaf, b"v"])), hash_node(branch), part_id)


def test_a_key_of_half_a_byte_is_not_applied(kernel: Kernel) -> None:
    """A key with an odd number of nibbles can't become a record (nearcore drops its last nibble, and validates the part)."""
    leaf = node_bytes(HALF_A_BYTE, 105)
    part = pa.py_buffer(partial_state_bytes([leaf, b"v"]))
    kernel.validate(part, hash_node(leaf), PartId(0, 1))
    with pytest.raises(MalformedNodeError):
        kernel.apply(part, hash_node(leaf), PartId(0, 1))


def test_sums_of_memory_usage_do_not_wrap(kernel: Kernel) -> None:
    """Two children whose memory usage adds up to more than 64 bits are skipped or entered by the true sum."""
    light, heavy = node_bytes(LEAF, 105), node_bytes(LEAF, 2**64 - 1)
    branch = node_bytes(BranchNode(children={0: hash_node(light), 1: hash_node(heavy)}, value=None), 2**64 - 1)
    kernel.validate(pa.py_buffer(partial_state_bytes([branch, light, heavy, b"v"])), hash_node(branch), PartId(1, 2))


def test_depth_is_limited(kernel: Kernel) -> None:
    """A chain of extensions that is deeper than any key is over the limit, however few bytes it takes."""
    entries = [node_bytes(LEAF, 105)]
    for _ in range(3):
        entries.append(node_bytes(ExtensionNode(key=encode_nibbles(bytes(2000), is_leaf=False), child=hash_node(entries[-1])), 105))
    with pytest.raises(PartLimitError):
        kernel.validate(pa.py_buffer(partial_state_bytes([*entries, b"v"])), hash_node(entries[-1]), PartId(0, 1))
