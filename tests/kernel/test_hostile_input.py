"""Bytes from strangers: whatever they are, the answer is an integrity error and comes soon."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.kernel import trie_kernel as protocol
from pipelines.kernel.reference import ReferenceKernel
from pipelines.kernel.trie_kernel import Kernel
from schemas.errors import IntegrityError, PartLimitError
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.state_part import (
    Encoding,
    decode_partial_state,
    decode_state_part,
    encode_state_part,
    partial_state_bytes,
)
from schemas.nearcore.trie_node import BranchNode, LeafNode, RawTrieNodeWithSize, ValueRef, encode_nibbles, encode_trie_node, hash_node
from tests.support.records import ShardParts, build_ranges, cut_pairs, parts_of, record_batches

ANSWER_CPU_S_MAX = 20.0
"""An answer to a few kilobytes takes milliseconds. Counted is this thread's own time, whatever else the machine does."""

NUM_PARTS = 3
PAIRS = sorted({bytes([a, b])[: 1 + (a + b) % 2]: bytes([a]) * b for a in range(0, 50, 7) for b in range(0, 90, 13)}.items())


@cache
def shard() -> ShardParts:
    """Return the shard whose bytes are mutated."""
    return parts_of(ReferenceKernel(), PAIRS, NUM_PARTS)


@cache
def edges(*, hashed: bool) -> tuple[bytes, ...]:
    """Return the edges of a shard cut into four ranges."""
    ranges = cut_pairs(PAIRS, [9, 20, 33])
    if hashed:
        return tuple(build.edge for build in build_ranges(ReferenceKernel(), ranges))
    return tuple(ReferenceKernel().structure(record_batches(r.pairs), r.left_key, r.right_key).edge for r in ranges)


MUTATIONS = st.lists(
    st.tuples(st.sampled_from(["flip", "set", "cut", "insert", "double"]), st.integers(0, 2**20), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)


def mutate(data: bytes, mutations: list[tuple[str, int, int]]) -> bytes:
    """Return a copy of ``data`` with bytes flipped, set, cut out, inserted or doubled."""
    mutated = bytearray(data)
    for kind, place, byte in mutations:
        at = place % (len(mutated) + 1)
        match kind:
            case "flip" if at < len(mutated):
                mutated[at] ^= 1 << byte % 8
            case "set" if at < len(mutated):
                mutated[at] = byte
            case "cut":
                del mutated[at : at + byte]
            case "insert":
                mutated[at:at] = bytes([byte])
            case "double":
                mutated[at:at] = mutated[at : at + byte]
            case _:
                pass
    return bytes(mutated)


def refuses_or_answers(call: Callable[[], object], *also: type[Exception]) -> None:
    """Call, allowing an integrity error (and ``also``), and check that it takes no time to speak of."""
    started = time.thread_time()
    with suppress(IntegrityError, *also):
        call()
    assert time.thread_time() - started < ANSWER_CPU_S_MAX


@settings(max_examples=100)
@given(mutations=MUTATIONS, idx=st.integers(0, NUM_PARTS - 1), encoding=st.sampled_from(list(Encoding)))
def test_mutated_objects(kernel: Kernel, mutations: list[tuple[str, int, int]], idx: int, encoding: Encoding) -> None:
    """A mutated object is refused, or it still holds exactly what it held."""
    original = shard().parts[idx].to_pybytes()
    mutated = mutate(encode_state_part(original, encoding), mutations)

    def read() -> None:
        partial_state = decode_state_part(mutated, encoding)
        kernel.validate(partial_state, shard().state_root, PartId(idx, NUM_PARTS))
        kernel.apply(partial_state, shard().state_root, PartId(idx, NUM_PARTS))
        assert sorted(decode_partial_state(partial_state)) == decode_partial_state(original)

    refuses_or_answers(read)


@settings(max_examples=100)
@given(mutations=MUTATIONS, at=st.integers(0, 3), hashed=st.booleans())
def test_mutated_edges(kernel: Kernel, mutations: list[tuple[str, int, int]], at: int, hashed: bool) -> None:
    """A mutated edge is refused, or joined for what it says; one that is not a neighbour's breaks the caller's promise."""
    mutated = list(edges(hashed=hashed))
    mutated[at] = mutate(mutated[at], mutations)

    refuses_or_answers(lambda: kernel.seal(mutated), AssertionError)
    refuses_or_answers(lambda: kernel.merge(mutated[at - 1 if at else 0], mutated[at if at else 1]), AssertionError)


@settings(max_examples=100)
@given(data=st.binary(max_size=200))
def test_random_bytes(kernel: Kernel, data: bytes) -> None:
    """Bytes of no origin are neither a part nor an edge nor an interior."""
    buffer = pa.py_buffer(data)
    refuses_or_answers(lambda: kernel.validate(buffer, shard().state_root, PartId(0, 1)))
    refuses_or_answers(lambda: kernel.seal([data]), AssertionError)
    refuses_or_answers(lambda: kernel.assemble(buffer, []))
    for encoding in Encoding:
        refuses_or_answers(lambda: decode_state_part(data, encoding))  # noqa: B023


def unfolding_part(levels: int, value: bytes = b"v", memory_usage: int = 2**63) -> tuple[pa.Buffer, bytes]:
    """Return a part of ``levels`` + 2 entries that unfolds to 16 to the power of ``levels`` leaves, and its root.

    Args:
        memory_usage: what each branch claims.
    """
    entries = [value]
    leaf = LeafNode(key=encode_nibbles(b"", is_leaf=True), value=ValueRef(len(value), hash_node(value)))
    entries.append(encode_trie_node(RawTrieNodeWithSize(leaf, leaf.own_memory_usage)))
    for _ in range(levels):
        branch = BranchNode(children=dict.fromkeys(range(16), bytes(hash_node(entries[-1]))), value=None)
        entries.append(encode_trie_node(RawTrieNodeWithSize(branch, memory_usage)))
    return pa.py_buffer(partial_state_bytes(entries)), bytes(hash_node(entries[-1]))


def test_a_part_that_unfolds_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared subtrees let a few entries unfold to more nodes than can be walked: the limit on steps ends it."""
    partial_state, root = unfolding_part(levels=40)
    monkeypatch.setattr(protocol, "WALK_STEPS_MAX", 10_000)
    with pytest.raises(PartLimitError):
        ReferenceKernel().validate(partial_state, CryptoHash(root), PartId(0, 1))


def test_a_part_that_unfolds_a_little(kernel: Kernel) -> None:
    """Shared subtrees are no fault by themselves: the part of 16 * 16 equal leaves has four entries."""
    partial_state, root = unfolding_part(levels=2)
    applied = kernel.apply(partial_state, CryptoHash(root), PartId(0, 1))
    keys = [key for batch in applied.records for key in batch.column("key").to_pylist()]
    assert keys == [bytes([byte]) for byte in range(256)]


@pytest.mark.parametrize("memory_usage", [1 << 20, 16**4 * 4002 + 50 * (16**4 - 1) // 15, 2**64 - 1], ids=["too little", "true", "endless"])
def test_a_part_that_unfolds_past_its_share(kernel: Kernel, memory_usage: int) -> None:
    """Six entries that are 256 MB of records are more than the root has for the part; or, where it claims them, than the part is good for."""
    partial_state, root = unfolding_part(4, b"v" * 3900, memory_usage)
    with pytest.raises(PartLimitError, match="the records of a part"):
        kernel.apply(partial_state, CryptoHash(root), PartId(0, 1))
    with pytest.raises(PartLimitError, match="the records of a part"):
        kernel.validate(partial_state, CryptoHash(root), PartId(0, 1))


def test_shared_subtrees_in_several_parts(kernel: Kernel) -> None:
    """Each part has its share of the memory usage of what they unfold to, and no part's share is too small for its records."""
    memory_usages = [4002 * 16**level + 50 * (16**level - 1) // 15 for level in range(3)]
    value = b"v" * 3900
    entries = [value, encode_trie_node(RawTrieNodeWithSize(LeafNode(b" ", ValueRef(len(value), hash_node(value))), memory_usages[0]))]
    for memory_usage in memory_usages[1:]:
        branch = BranchNode(children=dict.fromkeys(range(16), bytes(hash_node(entries[-1]))), value=None)
        entries.append(encode_trie_node(RawTrieNodeWithSize(branch, memory_usage)))
    partial_state = pa.py_buffer(partial_state_bytes(entries))
    counts = [
        sum(batch.num_rows for batch in kernel.apply(partial_state, hash_node(entries[-1]), PartId(idx, 9)).records) for idx in range(9)
    ]
    assert sum(counts) == 256
    assert max(counts) - min(counts) <= 1
