"""References are counted as a tree, and the counts of adjacent key ranges add up."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.kernel.reference import ReferenceKernel
from pipelines.kernel.reference_counts import ReadNodes, bucket_of, count_references, node_references
from pipelines.kernel.trie_kernel import REFERENCES_SCHEMA, Kernel
from schemas.errors import MalformedNodeError
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.state_part import decode_partial_state, encode_partial_state
from schemas.nearcore.trie_node import (
    BranchNode,
    ExtensionNode,
    LeafNode,
    RawTrieNodeWithSize,
    ValueRef,
    decode_trie_node,
    encode_nibbles,
    encode_trie_node,
    hash_node,
)
from tests.support.records import Pairs, parts_of

KEYS = st.lists(st.sampled_from([b"", b"a", b"ab", b"abc", b"abd", b"b", b"ba", b"\x61\x61", b"\x01", b"\x10", b"\x11"]), unique=True)
"""Few and close together, so that prefixes, equal subtrees and shared values are common."""
STATES = st.builds(
    lambda keys, suffixes, values: sorted(
        {key + suffix: value for key in keys for suffix, value in zip(suffixes, values, strict=False)}.items()
    ),
    KEYS,
    st.lists(st.binary(max_size=2), min_size=1, unique=True),
    st.lists(st.sampled_from([b"", b"x", b"y", b"z" * 5000]), min_size=1, max_size=6),
).filter(bool)


def reading(entries: dict[bytes, bytes]) -> ReadNodes:
    """Return what reads nodes out of these."""
    return lambda hashes: [entries[one] for one in hashes]


def trie_of(pairs: Pairs) -> tuple[CryptoHash, dict[bytes, bytes]]:
    """Return a state's root, and all its nodes and values by hash."""
    parts = parts_of(ReferenceKernel(), pairs, 1)
    return parts.state_root, {sha256(entry).digest(): entry for entry in decode_partial_state(parts.parts[0])}


def counted_by_walking(entries: dict[bytes, bytes], node_hash: bytes) -> Counter[bytes]:
    """Count every reference of a subtree, the one to its top too, by decoding every node as often as it occurs."""
    found = Counter([node_hash])
    match decode_trie_node(entries[node_hash]).node:
        case LeafNode(_, value):
            found[value.hash] += 1
        case ExtensionNode(_, child):
            found += counted_by_walking(entries, child)
        case BranchNode(children, branch_value):
            for child in children.values():
                found += counted_by_walking(entries, child)
            if branch_value is not None:
                found[branch_value.hash] += 1
    return found


@given(STATES)
def test_a_whole_trie_is_counted_as_a_tree(pairs: Pairs) -> None:
    """Every node has one reference a parent, the root one more, every value one a key."""
    root, entries = trie_of(pairs)
    counts = count_references(reading(entries), root, pairs[0][0], pairs[-1][0])
    assert counts == counted_by_walking(entries, root)
    assert set(counts) == set(entries)


@given(STATES, st.lists(st.integers(min_value=0, max_value=50)))
def test_the_counts_of_adjacent_ranges_add_up(pairs: Pairs, cuts: list[int]) -> None:
    """Wherever the keys are cut, each node belongs to one range."""
    root, entries = trie_of(pairs)
    starts = sorted({0, *(cut % len(pairs) for cut in cuts)})
    total: Counter[bytes] = Counter()
    for start, stop in zip(starts, [*starts[1:], len(pairs)], strict=True):
        total += Counter(count_references(reading(entries), root, pairs[start][0], pairs[stop - 1][0]))
    assert total == counted_by_walking(entries, root)


@given(STATES, st.integers(min_value=1, max_value=9))
def test_a_part_holds_all_that_its_range_counts(pairs: Pairs, num_parts: int) -> None:
    """Counting a part's keys reads nothing that the part does not have."""
    parts = parts_of(ReferenceKernel(), pairs, num_parts)
    kernel = ReferenceKernel()
    for index, part in enumerate(parts.parts):
        entries = {sha256(entry).digest(): entry for entry in decode_partial_state(part)}
        keys = [
            key for batch in kernel.apply(part, parts.state_root, PartId(index, num_parts)).records for key in batch.column(0).to_pylist()
        ]
        if keys:
            assert set(count_references(reading(entries), parts.state_root, keys[0], keys[-1])) <= set(entries)


@given(STATES, st.integers(min_value=1, max_value=4), st.integers(min_value=1, max_value=3))
def test_both_kernels_count_a_part_that_they_apply(native_kernel: Kernel, pairs: Pairs, num_parts: int, bucket_count: int) -> None:
    """The same records, and in each bucket the same nodes and values with the same counts; those of all parts are the trie's."""
    parts = parts_of(ReferenceKernel(), pairs, num_parts)
    total: Counter[bytes] = Counter()
    for index, part in enumerate(parts.parts):
        asked = part, parts.state_root, PartId(index, num_parts), bucket_count
        ours, theirs = ReferenceKernel().apply_counted(*asked), native_kernel.apply_counted(*asked)
        assert [batch.to_pylist() for batch in ours.references] == [batch.to_pylist() for batch in theirs.references]
        assert [row for batch in ours.records for row in batch.to_pylist()] == [
            row for batch in theirs.records for row in batch.to_pylist()
        ]
        for bucket, batch in enumerate(theirs.references):
            assert batch.schema == REFERENCES_SCHEMA
            for row in batch.to_pylist():
                assert bucket_of(row["hash"], bucket_count) == bucket and sha256(row["payload"]).digest() == row["hash"]
                total[row["hash"]] += row["references"]
    root, entries = trie_of(pairs)
    assert total == counted_by_walking(entries, root)


@pytest.mark.parametrize("name", ["reference", "native"])
def test_a_branch_without_value_and_child_is_not_counted(request: pytest.FixtureRequest, name: str) -> None:
    """It would belong to no range of keys; no trie has one."""
    kernel: Kernel = ReferenceKernel() if name == "reference" else request.getfixturevalue("native_kernel")
    node = LeafNode(encode_nibbles(bytes(5), is_leaf=True), ValueRef(1, hash_node(b"x")))
    leaf = encode_trie_node(RawTrieNodeWithSize(node, node.own_memory_usage))
    bare = encode_trie_node(RawTrieNodeWithSize(BranchNode({}, None), 50))
    children: dict[int, bytes] = {0: hash_node(leaf), 5: hash_node(bare), 7: hash_node(leaf)}
    root = encode_trie_node(RawTrieNodeWithSize(BranchNode(children, None), 500))
    part = encode_partial_state(sorted([b"x", leaf, bare, root]))
    kernel.validate(part, hash_node(root), PartId(0, 1))
    with pytest.raises(MalformedNodeError, match="neither value nor child") as raised:
        kernel.apply_counted(part, hash_node(root), PartId(0, 1), 1)
    assert raised.value.where == hash_node(bare).hex()


@given(STATES)
def test_the_quick_reading_of_a_node_is_the_decoders(pairs: Pairs) -> None:
    """Hashes of value and children, the children ascending."""
    root, entries = trie_of(pairs)
    for node_hash in counted_by_walking(entries, root):
        try:
            node = decode_trie_node(entries[node_hash]).node
        except MalformedNodeError:
            continue
        match node:
            case LeafNode(_, value):
                expected: tuple[bytes | None, list[bytes]] = value.hash, []
            case ExtensionNode(_, child):
                expected = None, [child]
            case BranchNode(children, branch_value):
                expected = None if branch_value is None else branch_value.hash, [children[index] for index in sorted(children)]
        assert node_references(entries[node_hash]) == expected


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x04" * 60, b"\x01\xff\xff", b"\x00\xff\xff\xff\xff" + bytes(44), b"\x02" + bytes(45)])
def test_what_is_no_node_is_refused(data: bytes) -> None:
    """Cut, of an unknown kind, or longer than it says."""
    with pytest.raises(MalformedNodeError):
        node_references(data)
