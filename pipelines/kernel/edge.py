"""The edge of a key range: what neighbouring ranges need of it to finish the trie.

The byte format, the terms and the rules of merging are stated in `pipelines.kernel.trie_kernel`. This module turns edges into bytes
and back, and checks what can be seen in one edge alone; it builds and merges none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from schemas.errors import MalformedNodeError
from schemas.ids import HASH_BYTES
from schemas.nearcore.borsh import BorshReader, BorshWriter
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX
from schemas.nearcore.trie_node import (
    BRANCH_CHILDREN,
    ValueRef,
    bitmap_children,
    children_bitmap,
    key_to_nibbles,
    read_value_ref,
    write_value_ref,
)

EDGE_VERSION = 1
"""First byte of an edge."""

NODE_BYTES_MAX = 1 + 4 + HASH_BYTES + 2 + BRANCH_CHILDREN * HASH_BYTES + 8 + 4 + 1 + KEY_BYTES_MAX
"""More than any node of a trie with keys of at most `KEY_BYTES_MAX` bytes takes."""

PREFIX_NIBBLES_MAX = 2 * KEY_BYTES_MAX
"""Longest prefix of an open node."""


@dataclass(frozen=True, slots=True)
class Child:
    """A closed node that hangs under an open one, or the root node."""

    hash: bytes
    """32 bytes; zeros when not hashed."""
    memory_usage: int
    node: bytes
    """Node bytes; empty when not hashed."""


@dataclass(frozen=True, slots=True)
class OpenNode:
    """A branch that straddles an end of the range, as far as the range knows it."""

    prefix: bytes
    """Where the branch stands, one nibble a byte."""
    first_key: bytes | None
    """First key under the prefix; None when it lies before the range."""
    value: ValueRef | None
    """Of the key that ends at the prefix, if it is inside the range."""
    children: dict[int, Child]
    """The closed children by index."""


@dataclass(frozen=True, slots=True)
class Charge:
    """Memory usage to add to a record's charge."""

    key: bytes
    memory_usage: int


@dataclass(frozen=True, slots=True)
class Edge:
    """All that a key range leaves to its neighbours."""

    hashed: bool
    left_key: bytes | None
    first_key: bytes
    last_key: bytes
    right_key: bytes | None
    open_nodes: tuple[OpenNode, ...]
    """Ascending by prefix."""
    first_path: tuple[bytes, ...]
    """Bytes of the closed nodes on the way to first_key, top first; empty when not hashed."""
    top: Child | None
    """The root node, when no node is open."""
    charges: tuple[Charge, ...]
    """Ascending by key; empty when hashed."""


def encode_edge(edge: Edge) -> bytes:
    """Return an edge's bytes."""
    writer = BorshWriter()
    writer.u8(EDGE_VERSION).u8(int(edge.hashed))
    writer.option(edge.left_key, writer.byte_vec).byte_vec(edge.first_key).byte_vec(edge.last_key).option(edge.right_key, writer.byte_vec)
    writer.u32(len(edge.open_nodes))
    for node in edge.open_nodes:
        _write_open_node(writer, node)
    writer.u32(len(edge.first_path))
    for node_bytes in edge.first_path:
        writer.byte_vec(node_bytes)
    writer.option(edge.top, lambda top: _write_child(writer, top))
    writer.u32(len(edge.charges))
    for charge in edge.charges:
        writer.byte_vec(charge.key).u64(charge.memory_usage)
    return writer.to_bytes()


def decode_edge(data: bytes) -> Edge:
    """Parse an edge's bytes.

    Raises:
        MalformedNodeError: they are no edge, or one that breaks the format's rules.
    """
    reader = BorshReader(data, where="edge", error_class=MalformedNodeError)
    version = reader.u8()
    if version != EDGE_VERSION:
        reader.fail(f"an edge of version {version} is unknown")
    edge = Edge(
        hashed=reader.flag(),
        left_key=reader.option(lambda: reader.byte_vec(KEY_BYTES_MAX)),
        first_key=reader.byte_vec(KEY_BYTES_MAX),
        last_key=reader.byte_vec(KEY_BYTES_MAX),
        right_key=reader.option(lambda: reader.byte_vec(KEY_BYTES_MAX)),
        open_nodes=tuple(reader.vec(lambda: _read_open_node(reader), item_bytes_min=8)),
        first_path=tuple(reader.vec(lambda: reader.byte_vec(NODE_BYTES_MAX), item_bytes_min=4)),
        top=reader.option(lambda: _read_child(reader)),
        charges=tuple(reader.vec(lambda: Charge(key=reader.byte_vec(KEY_BYTES_MAX), memory_usage=reader.u64()), item_bytes_min=12)),
    )
    reader.end()
    _check_edge(edge)
    return edge


def _check_edge(edge: Edge) -> None:
    keys = [key for key in (edge.left_key, edge.first_key, edge.last_key, edge.right_key) if key is not None]
    ends_differ = edge.left_key != edge.first_key and edge.last_key != edge.right_key
    problem = None
    if keys != sorted(keys) or not ends_differ:
        problem = "the keys of an edge are not in order"
    elif not _ascending(node.prefix for node in edge.open_nodes):
        problem = "the open nodes of an edge are not ascending"
    elif not _straddle_an_end(edge):
        problem = "a node of an edge is called open that straddles neither end"
    elif not _ascending(charge.key for charge in edge.charges):
        problem = "the charges of an edge are not ascending"
    elif (edge.top is None) == (edge.left_key is None and edge.right_key is None) or (edge.top is None) == (not edge.open_nodes):
        problem = "an edge has either neighbours and open nodes, or a root node"
    elif (edge.charges and edge.hashed) or (edge.first_path and not edge.hashed):
        problem = "only a hashed edge has a first path, only one that is not has charges"
    if problem is not None:
        raise MalformedNodeError(problem=problem, where="edge")


def _straddle_an_end(edge: Edge) -> bool:
    first, last = key_to_nibbles(edge.first_key), key_to_nibbles(edge.last_key)
    left = None if edge.left_key is None else key_to_nibbles(edge.left_key)
    right = None if edge.right_key is None else key_to_nibbles(edge.right_key)
    for node in edge.open_nodes:
        straddles_left = left is not None and left.startswith(node.prefix) and first.startswith(node.prefix)
        straddles_right = right is not None and right.startswith(node.prefix) and last.startswith(node.prefix)
        if not (straddles_left or straddles_right) or (node.first_key is None) != straddles_left:
            return False
    return True


def _ascending(items: Iterable[bytes]) -> bool:
    listed = list(items)
    return all(left < right for left, right in pairwise(listed))


def _write_child(writer: BorshWriter, child: Child) -> None:
    writer.fixed(child.hash).u64(child.memory_usage).byte_vec(child.node)


def _read_child(reader: BorshReader) -> Child:
    return Child(hash=reader.fixed(HASH_BYTES), memory_usage=reader.u64(), node=reader.byte_vec(NODE_BYTES_MAX))


def _write_open_node(writer: BorshWriter, node: OpenNode) -> None:
    writer.byte_vec(node.prefix).option(node.first_key, writer.byte_vec)
    writer.option(node.value, lambda value: write_value_ref(writer, value))
    writer.u16(children_bitmap(set(node.children)))
    for index in sorted(node.children):
        _write_child(writer, node.children[index])


def _read_open_node(reader: BorshReader) -> OpenNode:
    prefix = reader.byte_vec(PREFIX_NIBBLES_MAX)
    if any(nibble >= BRANCH_CHILDREN for nibble in prefix):
        reader.fail("a nibble is at most 15")
    return OpenNode(
        prefix=prefix,
        first_key=reader.option(lambda: reader.byte_vec(KEY_BYTES_MAX)),
        value=reader.option(lambda: read_value_ref(reader)),
        children={index: _read_child(reader) for index in bitmap_children(reader.u16())},
    )
