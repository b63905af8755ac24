"""Nodes that are being finished: from a branch whose children are all known to the bytes and the hash that its parent needs.

Knows nothing of records, ranges or edges.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.kernel.edge import Child
from schemas.errors import MalformedNodeError
from schemas.ids import HASH_BYTES
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

MEMORY_USAGE_MAX = 2**64 - 1
"""Largest memory usage that a node can state."""

CHILD_NOT_HASHED = bytes(HASH_BYTES)
"""Stands for a hash where only the structure is computed."""


@dataclass(slots=True)
class GrowingBranch:
    """A branch some of whose children may still be missing."""

    prefix: bytes
    """Where it stands, one nibble a byte."""
    first_key: bytes | None
    """First key under it; None when that lies before the range."""
    value: ValueRef | None = None
    children: dict[int, Child] = field(default_factory=dict)

    def attach(self, node_prefix: bytes, child: Child) -> None:
        """Hang a child into the slot that leads to ``node_prefix``.

        Raises:
            MalformedNodeError: the slot is taken, so two edges claim the same keys.
        """
        index = node_prefix[len(self.prefix)]
        if index in self.children:
            raise MalformedNodeError(problem="two children claim one slot of a branch", where=self.prefix.hex()[1::2])
        self.children[index] = child


@dataclass(frozen=True, slots=True)
class ClosedNode:
    """A finished node, with the extension above it if it needs one."""

    child: Child
    """What the parent holds of it."""
    nodes: tuple[bytes, ...]
    """Node bytes, the extension first; empty when not hashed."""
    own_memory_usage: int
    """Of the node and its extension, without what hangs under them."""


def close_leaf(nibbles: bytes, value: ValueRef, *, hashed: bool) -> ClosedNode:
    """Finish a leaf whose key has ``nibbles`` left below its slot in the parent."""
    node = LeafNode(key=encode_nibbles(nibbles, is_leaf=True), value=value)
    child = _finish(node, node.own_memory_usage, hashed=hashed)
    return ClosedNode(child=child, nodes=(child.node,) if hashed else (), own_memory_usage=node.own_memory_usage)


def close_branch(branch: GrowingBranch, parent: GrowingBranch | None, *, hashed: bool) -> ClosedNode:
    """Finish a branch all of whose children are known, under ``parent``, or as the root.

    Raises:
        MalformedNodeError: it has fewer than two of {value, child}, or its memory usage is over 64 bits.
    """
    if len(branch.children) + (branch.value is not None) < 2:
        raise MalformedNodeError(problem="a branch has fewer than two ways to go on", where=branch.prefix.hex()[1::2])
    node = BranchNode(children={index: child.hash for index, child in branch.children.items()}, value=branch.value)
    memory_usage = node.own_memory_usage + sum(child.memory_usage for child in branch.children.values())
    closed = _finish(node, memory_usage, hashed=hashed)
    nibbles = branch.prefix if parent is None else branch.prefix[len(parent.prefix) + 1 :]
    if not nibbles:
        return ClosedNode(child=closed, nodes=(closed.node,) if hashed else (), own_memory_usage=node.own_memory_usage)
    extension = ExtensionNode(key=encode_nibbles(nibbles, is_leaf=False), child=closed.hash)
    top = _finish(extension, memory_usage + extension.own_memory_usage, hashed=hashed)
    return ClosedNode(
        child=top,
        nodes=(top.node, closed.node) if hashed else (),
        own_memory_usage=extension.own_memory_usage + node.own_memory_usage,
    )


def _finish(node: LeafNode | BranchNode | ExtensionNode, memory_usage: int, *, hashed: bool) -> Child:
    if memory_usage > MEMORY_USAGE_MAX:
        raise MalformedNodeError(problem="the memory usage of a node is over 64 bits")
    if not hashed:
        return Child(hash=CHILD_NOT_HASHED, memory_usage=memory_usage, node=b"")
    node_bytes = encode_trie_node(RawTrieNodeWithSize(node=node, memory_usage=memory_usage))
    return Child(hash=hash_node(node_bytes), memory_usage=memory_usage, node=node_bytes)
