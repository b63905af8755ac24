"""Walks from a state root to one trie key, or over all keys with a prefix, and what nodes it needs.

The nodes come out in the order in which nearcore's ``view_state`` with ``include_proof`` lists them: from the root down, and below a
prefix depth first, children ascending. Identical subtrees are listed each time that they are met. The same walk makes a proof and
verifies one: only the reader differs.

Source: nearcore core/store/src/trie/iterator.rs (seek_prefix, remember_visited_nodes) and runtime/runtime/src/state_viewer/mod.rs,
TrieViewer::view_state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pipelines.proving.node_readers import ReadNode
from schemas.errors import IntegrityError, PartLimitError, ValueMismatchError
from schemas.ids import ZERO_HASH, CryptoHash
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX
from schemas.nearcore.trie_node import (
    BranchNode,
    ExtensionNode,
    LeafNode,
    ValueRef,
    decode_nibbles,
    decode_trie_node,
    key_to_nibbles,
    nibbles_to_key,
)
from schemas.published.proof import PROOF_NODES_MAX

PATH_NODES_MAX = 2 * KEY_BYTES_MAX + 2
"""Most nodes on the way to one key: each but the last takes at least a nibble."""


class Ending(StrEnum):
    """Where the way to a key ends."""

    VALUE = "value"
    """At the key's value: the key is there."""
    EMPTY_TRIE = "empty_trie"
    NO_CHILD = "no_child"
    """At a branch without a child for the next nibble."""
    NO_VALUE = "no_value"
    """At a branch where the key ends and that has no value."""
    OTHER_EXTENSION = "other_extension"
    """At an extension with other nibbles."""
    OTHER_LEAF = "other_leaf"
    """At a leaf with other nibbles."""


@dataclass(frozen=True, slots=True)
class KeyPath:
    """The way to a key."""

    ending: Ending
    value: ValueRef | None
    """None unless the key is there."""
    nodes: tuple[bytes, ...]
    """From the root down."""


@dataclass(frozen=True, slots=True)
class PrefixPaths:
    """All keys with a prefix."""

    items: tuple[tuple[bytes, ValueRef], ...]
    """Trie keys, ascending, and their values."""
    nodes: tuple[bytes, ...]
    """In the order of the walk."""


def walk_to_key(read: ReadNode, state_root: bytes, key: bytes) -> KeyPath:
    """Follow one key.

    Raises:
        IntegrityError: a node is missing or malformed.
        PartLimitError: more than ``PATH_NODES_MAX`` nodes.
    """
    nodes: list[bytes] = []

    def end(ending: Ending, value: ValueRef | None = None) -> KeyPath:
        return KeyPath(ending, value, tuple(nodes))

    if state_root == ZERO_HASH:
        return end(Ending.EMPTY_TRIE)
    rest, wanted = key_to_nibbles(key), state_root
    while len(nodes) < PATH_NODES_MAX:
        nodes.append(read(wanted))
        match decode_trie_node(nodes[-1]).node:
            case LeafNode(encoded, value):
                return end(Ending.VALUE, value) if decode_nibbles(encoded) == rest else end(Ending.OTHER_LEAF)
            case BranchNode(children, value_or_none):
                if not rest:
                    return end(Ending.NO_VALUE) if value_or_none is None else end(Ending.VALUE, value_or_none)
                if rest[0] not in children:
                    return end(Ending.NO_CHILD)
                wanted, rest = children[rest[0]], rest[1:]
            case ExtensionNode(encoded, child):
                nibbles = decode_nibbles(encoded)
                if not rest.startswith(nibbles):
                    return end(Ending.OTHER_EXTENSION)
                wanted, rest = child, rest[len(nibbles) :]
    raise PartLimitError(problem=f"the way to a key has more than {PATH_NODES_MAX} nodes", where=f"trie key {key.hex()}")


def walk_prefix(read: ReadNode, state_root: bytes, prefix: bytes, nodes_max: int = PROOF_NODES_MAX) -> PrefixPaths:
    """Visit every key that begins with a prefix.

    Raises:
        IntegrityError: a node is missing or malformed.
        PartLimitError: more than ``nodes_max`` nodes, or a key that is too long.
    """
    nodes: list[bytes] = []
    items: list[tuple[bytes, ValueRef]] = []

    def visit(wanted: bytes) -> LeafNode | BranchNode | ExtensionNode:
        if len(nodes) == nodes_max:
            raise PartLimitError(
                problem=f"more than {nodes_max} trie nodes lie on the way to the keys with this prefix",
                where=f"trie key prefix {prefix.hex()}",
                remedy="Take a longer prefix.",
            )
        nodes.append(read(wanted))
        return decode_trie_node(nodes[-1]).node

    below = [] if state_root == ZERO_HASH else [(b"", bytes(state_root))]
    wanted_nibbles = key_to_nibbles(prefix)
    while below:
        at, node_hash = below.pop()
        if len(at) > 2 * KEY_BYTES_MAX:
            raise PartLimitError(problem=f"a trie key is longer than {KEY_BYTES_MAX} bytes", where=f"trie key prefix {prefix.hex()}")
        match visit(node_hash):
            case LeafNode(encoded, value):
                key = at + decode_nibbles(encoded)
                if key.startswith(wanted_nibbles):
                    items.append((nibbles_to_key(key), value))
            case BranchNode(children, value_or_none):
                if value_or_none is not None and len(at) >= len(wanted_nibbles):
                    items.append((nibbles_to_key(at), value_or_none))
                found = [(at + bytes([index]), children[index]) for index in sorted(children, reverse=True)]
                below.extend(child for child in found if _may_hold(child[0], wanted_nibbles))
            case ExtensionNode(encoded, child):
                prolonged = at + decode_nibbles(encoded)
                if _may_hold(prolonged, wanted_nibbles):
                    below.append((prolonged, child))
    return PrefixPaths(tuple(items), tuple(nodes))


def read_value(read: Callable[[bytes], bytes], key: bytes, value: ValueRef) -> bytes:
    """Return a value that a node refers to.

    Raises:
        ValueMismatchError: it has another length than the node says.
        IntegrityError: it is missing.
    """
    # An empty value is known by its hash; a State column has no row of it.
    data = b"" if value.hash == hashlib.sha256(b"").digest() else read(value.hash)
    check_value(key, value, data)
    return data


def check_value(key: bytes, value: ValueRef, data: bytes) -> None:
    """Compare a value with a node's reference to it.

    Raises:
        ValueMismatchError: its length or hash is another.
    """
    where = f"trie key {key.hex()}"
    if len(data) != value.length:
        raise ValueMismatchError(problem=f"the value has {len(data)} bytes, its trie node says {value.length}", where=where)
    if hashlib.sha256(data).digest() != value.hash:
        raise ValueMismatchError(problem=f"the value does not hash to {CryptoHash(value.hash)}, which its trie node says", where=where)


def check_claim(path: KeyPath, key: bytes, claimed: bytes | None) -> None:
    """Compare the end of the path to a key with the key's claim.

    Args:
        claimed: the value; None for absence.
    Raises:
        IntegrityError: the key is there and said to be absent, or the other way round.
        ValueMismatchError: it has another value.
    """
    where = f"trie key {key.hex()}"
    if claimed is None:
        if path.value is not None:
            raise IntegrityError(problem="the key is said to be absent, and the nodes lead to a value of it", where=where)
        return
    if path.value is None:
        raise IntegrityError(problem=f"the key is said to have a value, and the nodes show that it is absent ({path.ending})", where=where)
    check_value(key, path.value, claimed)


def _may_hold(at: bytes, wanted_nibbles: bytes) -> bool:
    """Return whether keys with the wanted prefix can lie under a node."""
    return at.startswith(wanted_nibbles) if len(at) >= len(wanted_nibbles) else wanted_nibbles.startswith(at)
