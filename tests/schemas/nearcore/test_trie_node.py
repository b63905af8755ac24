"""Trie nodes byte by byte."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import MalformedNodeError
from schemas.nearcore.trie_node import (
    BranchNode,
    ExtensionNode,
    LeafNode,
    RawTrieNodeWithSize,
    ValueRef,
    common_prefix_length,
    decode_nibbles,
    decode_trie_node,
    encode_nibbles,
    encode_trie_node,
    hash_node,
    key_to_nibbles,
    nibbles_to_key,
)

VALUE_BYTES = b"\x7b\xf5\xff"
VALUE = ValueRef(3, sha256(VALUE_BYTES).digest())
VALUE_HEX = "03000000" + sha256(VALUE_BYTES).hexdigest()
USAGE_HEX = "2a00000000000000"

NODES: dict[str, tuple[LeafNode | BranchNode | ExtensionNode, str]] = {
    "leaf": (LeafNode(b"\1\2\3", VALUE), "00 03000000 010203" + VALUE_HEX),
    "branch": (BranchNode({3: b"\1" * 32, 5: b"\2" * 32}, None), "01 2800" + "01" * 32 + "02" * 32),
    "last child": (BranchNode({15: b"\1" * 32}, None), "01 0080" + "01" * 32),
    "branch with value": (BranchNode({3: b"\1" * 32}, VALUE), "02" + VALUE_HEX + "0800" + "01" * 32),
    "extension": (ExtensionNode(b"\x7b\xf5\xff", bytes(32)), "03 03000000 7bf5ff" + "00" * 32),
}


@pytest.mark.parametrize("name", NODES)
def test_layout_of_nodes(name: str) -> None:
    """Each kind of node has the bytes that nearcore's own unit test of raw_node.rs gives it, memory usage last."""
    node, expected = NODES[name]
    raw = RawTrieNodeWithSize(node, 42)
    encoded = bytes.fromhex(expected + USAGE_HEX)

    assert encoded == encode_trie_node(raw)
    assert raw == decode_trie_node(encoded)
    assert hash_node(encoded) == sha256(encoded).digest()
    for damaged in (encoded + b"!", encoded[:-1], b"\4" + encoded[1:], b""):
        with pytest.raises(MalformedNodeError):
            decode_trie_node(damaged)


def test_children_are_written_ascending() -> None:
    """The order in which children became known leaves no trace."""
    one = BranchNode({7: b"\7" * 32, 2: b"\2" * 32}, None)
    other = BranchNode({2: b"\2" * 32, 7: b"\7" * 32}, None)
    assert encode_trie_node(RawTrieNodeWithSize(one, 1)) == encode_trie_node(RawTrieNodeWithSize(other, 1))


@pytest.mark.parametrize(
    ("nibbles", "is_leaf", "expected"),
    [
        (b"", True, "20"),
        (b"", False, "00"),
        (b"\0\1\2\3\4\5", False, "00012345"),
        (b"\0\1\2\3\4\5", True, "20012345"),
        (b"\1\2\3\4\5", False, "112345"),
        (b"\1\2\3\4\5", True, "312345"),
        (b"\x0f", True, "3f"),
    ],
)
def test_encoded_nibbles(nibbles: bytes, is_leaf: bool, expected: str) -> None:
    """An odd nibble goes into the first byte, beside the flags (nearcore's nibble_slice.rs)."""
    assert bytes.fromhex(expected) == encode_nibbles(nibbles, is_leaf)
    assert nibbles == decode_nibbles(bytes.fromhex(expected))


def test_no_nibbles_at_all() -> None:
    """An encoded key has at least its first byte."""
    with pytest.raises(MalformedNodeError):
        decode_nibbles(b"")


@given(nibbles=st.lists(st.integers(0, 15), max_size=9).map(bytes), is_leaf=st.booleans())
def test_nibbles_come_back(nibbles: bytes, is_leaf: bool) -> None:
    """Decoding undoes encoding."""
    assert nibbles == decode_nibbles(encode_nibbles(nibbles, is_leaf))


@given(key=st.binary(max_size=9), other=st.binary(max_size=9))
def test_keys_as_nibbles(key: bytes, other: bytes) -> None:
    """Keys come back from nibbles, and nibbles compare as keys do."""
    nibbles, other_nibbles = key_to_nibbles(key), key_to_nibbles(other)
    assert key == nibbles_to_key(nibbles)
    assert (key < other) == (nibbles < other_nibbles)
    assert len(nibbles) == 2 * len(key)
    shared = common_prefix_length(nibbles, other_nibbles)
    assert nibbles[:shared] == other_nibbles[:shared]
    assert nibbles[shared : shared + 1] != other_nibbles[shared : shared + 1] or key == other


def test_half_a_byte_is_no_key() -> None:
    """An odd number of nibbles makes no key."""
    with pytest.raises(MalformedNodeError):
        nibbles_to_key(b"\1")


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (LeafNode(b"\x20\1\2", ValueRef(10, bytes(32))), 50 + 2 * 3 + 10 + 50),
        (LeafNode(b"\x20", ValueRef(0, bytes(32))), 50 + 2 + 0 + 50),
        (ExtensionNode(b"\x11\2", bytes(32)), 50 + 2 * 2),
        (BranchNode({}, None), 50),
        (BranchNode({1: bytes(32)}, ValueRef(7, bytes(32))), 50 + 7 + 50),
    ],
)
def test_own_memory_usage(node: LeafNode | BranchNode | ExtensionNode, expected: int) -> None:
    """A node costs 50, a byte of its encoded key 2, a value its bytes and 50."""
    assert expected == node.own_memory_usage
