"""Walks to keys and over prefixes, beside the records that a trie was made of."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.proving.node_readers import NodesByHash, NodesInOrder
from pipelines.proving.walk_proof import Ending, check_claim, read_value, walk_prefix, walk_to_key
from schemas.errors import IntegrityError, MissingTrieValueError, PartLimitError
from schemas.ids import ZERO_HASH, CryptoHash
from schemas.nearcore.trie_node import ExtensionNode, RawTrieNodeWithSize, encode_nibbles, encode_trie_node, hash_node
from tests.support.proofs import small_trie
from tests.support.records import keys, record_sets

PAIRS = [
    (b"\x11\x11", b"one"),
    (b"\x11\x12", b"two"),
    (b"\x11\x12\x34", b"three"),
    (b"\x11\x22\x22\x22", b"four"),
    (b"\x11\x22\x33", b"five"),
]


@pytest.mark.parametrize(
    ("key", "ending"),
    [
        (b"\x11\x11", Ending.VALUE),
        (b"\x11\x12", Ending.VALUE),
        (b"\x11\x12\x34", Ending.VALUE),
        (b"\x11\x33", Ending.NO_CHILD),
        (b"\x11\x12\x44", Ending.NO_CHILD),
        (b"\x11\x12\x35", Ending.OTHER_LEAF),
        (b"\x11\x12\x34\x56", Ending.OTHER_LEAF),
        (b"\x11\x11\x00", Ending.OTHER_LEAF),
        (b"\x11\x22", Ending.NO_VALUE),
        (b"\x11", Ending.NO_VALUE),
        (b"\x21\x11", Ending.OTHER_EXTENSION),
        (b"\x11\x24", Ending.OTHER_EXTENSION),
        (b"", Ending.OTHER_EXTENSION),
    ],
)
def test_every_ending(key: bytes, ending: Ending) -> None:
    """A walk tells where the way to a key ends, for every kind of node that it can end at."""
    state_root, read = small_trie(PAIRS)
    assert walk_to_key(read, state_root, key).ending is ending


def test_an_empty_trie_has_no_key() -> None:
    """In an empty trie every key is absent, and no node is needed to show it."""
    path = walk_to_key(NodesInOrder([]), ZERO_HASH, b"any")
    assert (path.ending, path.nodes) == (Ending.EMPTY_TRIE, ())
    assert walk_prefix(NodesInOrder([]), ZERO_HASH, b"").items == ()


@given(record_sets())
def test_every_key_leads_to_its_value(pairs: list[tuple[bytes, bytes]]) -> None:
    """Each record is found with its value, and the nodes of the way alone prove it."""
    state_root, read = small_trie(pairs)
    for key, value in dict(pairs).items():
        path = walk_to_key(read, state_root, key)
        assert path.value is not None
        assert read_value(read, key, path.value) == value
        replayed = NodesInOrder(path.nodes)
        check_claim(walk_to_key(replayed, state_root, key), key, value)
        replayed.finish()


@given(record_sets(), keys())
def test_a_key_that_is_not_there_is_absent_and_nothing_else(pairs: list[tuple[bytes, bytes]], key: bytes) -> None:
    """A walk to a key says that it is there exactly if a record has it; the other claim is refused."""
    state_root, read = small_trie(pairs)
    path = walk_to_key(read, state_root, key)
    value = dict(pairs).get(key)
    check_claim(path, key, value)
    with pytest.raises(IntegrityError):
        check_claim(path, key, b"" if value is None else None)


@given(record_sets(), keys(), st.integers(0, 6))
def test_a_prefix_has_the_keys_that_begin_with_it(pairs: list[tuple[bytes, bytes]], key: bytes, length: int) -> None:
    """A walk over a prefix meets the keys that begin with it, ascending, and no others."""
    state_root, read = small_trie(pairs)
    prefix = key[:length]
    found = walk_prefix(read, state_root, prefix)
    assert [(name, read_value(read, name, value)) for name, value in found.items] == sorted(
        (name, value) for name, value in dict(pairs).items() if name.startswith(prefix)
    )


@given(record_sets(), keys())
def test_a_prefix_that_nothing_begins_with_needs_the_nodes_of_the_key(pairs: list[tuple[bytes, bytes]], key: bytes) -> None:
    """Where no key begins with a prefix, the walk over it is the walk to it."""
    state_root, read = small_trie(pairs)
    found = walk_prefix(read, state_root, key)
    if not found.items:
        assert found.nodes == walk_to_key(read, state_root, key).nodes


def _without(nodes: Sequence[bytes], index: int) -> list[bytes]:
    return [node for position, node in enumerate(nodes) if position != index]


def test_nodes_are_needed_each_in_its_place() -> None:
    """A node less, more or elsewhere fails."""
    state_root, read = small_trie(PAIRS)
    nodes = walk_to_key(read, state_root, b"\x11\x12\x34").nodes
    assert len(nodes) > 3
    for changed in [*(_without(nodes, index) for index in range(len(nodes))), [*reversed(nodes)], [*nodes[:1], *nodes]]:
        with pytest.raises(MissingTrieValueError):
            walk_to_key(NodesInOrder(changed), state_root, b"\x11\x12\x34")
    more = NodesInOrder([*nodes, nodes[0]])
    walk_to_key(more, state_root, b"\x11\x12\x34")
    with pytest.raises(IntegrityError, match="of the proof's"):
        more.finish()


def test_a_prefix_with_too_many_keys_is_refused() -> None:
    """The walk over a prefix ends at its limit of nodes."""
    state_root, read = small_trie(PAIRS)
    needed = len(walk_prefix(read, state_root, b"\x11").nodes)
    walk_prefix(read, state_root, b"\x11", nodes_max=needed)
    with pytest.raises(PartLimitError, match="longer prefix"):
        walk_prefix(read, state_root, b"\x11", nodes_max=needed - 1)


def test_endless_empty_extensions_are_refused() -> None:
    """A way of extensions without nibbles ends at the limit of nodes."""
    nodes: list[bytes] = []
    child = CryptoHash(b"\1" * 32)
    for _ in range(5000):
        nodes.append(encode_trie_node(RawTrieNodeWithSize(ExtensionNode(encode_nibbles(b"", is_leaf=False), child), 0)))
        child = hash_node(nodes[-1])
    with pytest.raises(PartLimitError):
        walk_to_key(NodesByHash(nodes, "a chain of extensions"), child, b"any")
