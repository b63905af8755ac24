"""One key range, from its keys and values to its edge.

Two adjacent keys part at a branch: at the prefix they share. So the branches on the way to a key are the common prefixes with its
neighbours, and one pass over the keys with a stack of unfinished branches makes the trie: a branch is finished by the first key
that does not lie under it. Branches that straddle an end of the range are never finished here; they become the edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from pipelines.kernel.edge import Child, Edge, OpenNode
from pipelines.kernel.reference.closing import ClosedNode, GrowingBranch, close_branch, close_leaf
from schemas.nearcore.trie_node import ValueRef, common_prefix_length, key_to_nibbles

_NO_NEIGHBOUR = -1
"""What a key shares with a neighbour that is not there: less than with any that is."""


@dataclass(frozen=True, slots=True)
class BuiltRange:
    """What a key range makes."""

    edge: Edge
    charges: list[int]
    """One a record: own memory usage of the closed nodes whose first key it is."""
    nodes: list[bytes]
    """Bytes of the closed nodes, counted as a tree; empty when not hashed."""


def build_range(
    keys: list[bytes], value_refs: list[ValueRef], left_key: bytes | None, right_key: bytes | None, *, hashed: bool
) -> BuiltRange:
    """Build all that lies inside a key range.

    Args:
        keys: at least one, strictly ascending, between the neighbours.
        value_refs: one a key; only the lengths matter when not ``hashed``.
    """
    builder = _RangeBuilder(keys[0], left_key, hashed=hashed)
    neighbourhood = [None if key is None else key_to_nibbles(key) for key in (left_key, *keys, right_key)]
    shared = [
        _NO_NEIGHBOUR if before is None or after is None else common_prefix_length(before, after)
        for before, after in pairwise(neighbourhood)
    ]
    for position, (key, value_ref) in enumerate(zip(keys, value_refs, strict=True)):
        builder.add(key, value_ref, shared[position], shared[position + 1])
    edge = Edge(
        hashed=hashed,
        left_key=left_key,
        first_key=keys[0],
        last_key=keys[-1],
        right_key=right_key,
        open_nodes=builder.open_nodes(),
        first_path=tuple(builder.first_path),
        top=builder.top,
        charges=(),
    )
    return BuiltRange(edge=edge, charges=[builder.charges.get(key, 0) for key in keys], nodes=builder.nodes)


class _RangeBuilder:
    """The pass over the keys."""

    def __init__(self, first_key: bytes, left_key: bytes | None, *, hashed: bool) -> None:
        self._first_key = first_key
        self._left_nibbles = None if left_key is None else key_to_nibbles(left_key)
        self._hashed = hashed
        self._unfinished: list[GrowingBranch] = []
        """The branches above the last key, shortest prefix first."""
        self._left_open: list[GrowingBranch] = []
        """Branches that no later key lies under, but that reach out of the range to the left."""
        self.top: Child | None = None
        self.charges: dict[bytes, int] = {}
        self.nodes: list[bytes] = []
        self.first_path: list[bytes] = []

    def add(self, key: bytes, value_ref: ValueRef, shared_before: int, shared_after: int) -> None:
        """Take the next key, with the number of nibbles that it shares with the key before and after it."""
        nibbles = key_to_nibbles(key)
        self._grow_branch(nibbles, shared_before, key)
        self._grow_branch(nibbles, shared_after, key)
        if len(nibbles) == shared_after:
            self._unfinished[-1].value = value_ref
        else:
            parent = self._unfinished[-1] if self._unfinished else None
            below_parent = nibbles if parent is None else nibbles[len(parent.prefix) + 1 :]
            self._attach(nibbles, key, close_leaf(below_parent, value_ref, hashed=self._hashed), parent)
        while self._unfinished and len(self._unfinished[-1].prefix) > shared_after:
            branch = self._unfinished.pop()
            self._grow_branch(nibbles, shared_after, branch.first_key)
            if branch.first_key is None:
                self._left_open.append(branch)
            else:
                parent = self._unfinished[-1] if self._unfinished else None
                self._attach(branch.prefix, branch.first_key, close_branch(branch, parent, hashed=self._hashed), parent)

    def open_nodes(self) -> tuple[OpenNode, ...]:
        """Return the branches that reach out of the range, ascending by prefix."""
        branches = sorted(self._left_open + self._unfinished, key=lambda branch: branch.prefix)
        return tuple(OpenNode(prefix=b.prefix, first_key=b.first_key, value=b.value, children=b.children) for b in branches)

    def _grow_branch(self, nibbles: bytes, length: int, first_key: bytes | None) -> None:
        """Make sure that a branch stands at the first ``length`` nibbles, if it is deeper than the deepest unfinished one."""
        deepest = len(self._unfinished[-1].prefix) if self._unfinished else _NO_NEIGHBOUR
        if length <= deepest:
            return
        prefix = nibbles[:length]
        straddles_left = self._left_nibbles is not None and self._left_nibbles.startswith(prefix)
        self._unfinished.append(GrowingBranch(prefix=prefix, first_key=None if straddles_left else first_key))

    def _attach(self, node_prefix: bytes, first_key: bytes, closed: ClosedNode, parent: GrowingBranch | None) -> None:
        if parent is None:
            self.top = closed.child
        else:
            parent.attach(node_prefix, closed.child)
        self.nodes += closed.nodes
        self.charges[first_key] = self.charges.get(first_key, 0) + closed.own_memory_usage
        if first_key == self._first_key:
            self.first_path[:0] = closed.nodes
