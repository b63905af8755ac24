"""Edges of adjacent key ranges joined into one, or into the root.

The rules are those of `pipelines.kernel.trie_kernel`. Prefixes are handled in descending order of their bytes, so that a node is
closed before every node above it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipelines.kernel.edge import Charge, Child, Edge, OpenNode
from pipelines.kernel.reference.closing import MEMORY_USAGE_MAX, ClosedNode, GrowingBranch, close_branch
from pipelines.kernel.trie_kernel import Sealed
from schemas.errors import MalformedNodeError
from schemas.ids import CryptoHash
from schemas.nearcore.trie_node import key_to_nibbles


@dataclass(frozen=True, slots=True)
class _Closure:
    """What closing makes."""

    closed: dict[bytes, ClosedNode]
    """By prefix, deepest first along each path."""
    first_keys: dict[bytes, bytes]
    """First key of each closed node, by prefix."""
    top: Child | None


def merge_edges(left: Edge, right: Edge) -> Edge:
    """Join the edges of two adjacent key ranges.

    Raises:
        MalformedNodeError: they contradict each other.
    """
    _check_adjacent([left, right])
    before = None if left.left_key is None else key_to_nibbles(left.left_key)
    after = None if right.right_key is None else key_to_nibbles(right.right_key)
    last = key_to_nibbles(right.last_key)
    first = key_to_nibbles(left.first_key)

    def straddles_left(prefix: bytes) -> bool:
        return before is not None and before.startswith(prefix) and first.startswith(prefix)

    def straddles_right(prefix: bytes) -> bool:
        return after is not None and after.startswith(prefix) and last.startswith(prefix)

    branches = _unite([left, right])
    closure = _close(branches, lambda prefix: straddles_left(prefix) or straddles_right(prefix), straddles_left, hashed=left.hashed)
    still_open = [branch for prefix, branch in sorted(branches.items()) if prefix not in closure.closed]
    # Deepest first as they were closed, so each is put before what was put last.
    first_path = list(left.first_path)
    for prefix, closed in closure.closed.items():
        if first.startswith(prefix):
            first_path[:0] = closed.nodes
    return Edge(
        hashed=left.hashed,
        left_key=left.left_key,
        first_key=left.first_key,
        last_key=right.last_key,
        right_key=right.right_key,
        open_nodes=tuple(OpenNode(prefix=b.prefix, first_key=b.first_key, value=b.value, children=b.children) for b in still_open),
        first_path=tuple(first_path),
        top=closure.top,
        charges=() if left.hashed else _sum_charges(_charges_of([left, right], closure)),
    )


def seal_edges(edges: Sequence[Edge]) -> Sealed:
    """Join all edges of a shard into the root.

    Raises:
        MalformedNodeError: they contradict each other.
    """
    assert edges and edges[0].left_key is None and edges[-1].right_key is None, "the edges of a whole shard are sealed"
    _check_adjacent(edges)
    hashed = edges[0].hashed
    branches = _unite(edges)
    closure = _close(branches, lambda prefix: False, lambda prefix: False, hashed=hashed)
    top = edges[0].top if len(edges) == 1 else closure.top
    if top is None:
        raise MalformedNodeError(problem="the edges of a shard have no root", where="edge")
    return Sealed(
        state_root=CryptoHash(top.hash),
        memory_usage=top.memory_usage,
        root_node=top.node,
        boundary_nodes=tuple(_boundary_nodes(edge, branches, closure.closed) if hashed else () for edge in edges),
        charges=tuple(() for _ in edges) if hashed else _charges_by_edge(edges, closure),
    )


def _check_adjacent(edges: Sequence[Edge]) -> None:
    for left, right in pairwise(edges):
        assert left.right_key == right.first_key and right.left_key == left.last_key, "only edges of adjacent key ranges are joined"
        assert left.hashed == right.hashed, "only edges of one kind are joined"


def _unite(edges: Sequence[Edge]) -> dict[bytes, GrowingBranch]:
    """Gather what the edges know of each open prefix."""
    branches: dict[bytes, GrowingBranch] = {}
    for edge in edges:
        for node in edge.open_nodes:
            branch = branches.setdefault(node.prefix, GrowingBranch(prefix=node.prefix, first_key=None))
            branch.first_key = _earlier(branch.first_key, node.first_key)
            if node.value is not None:
                if branch.value is not None:
                    raise MalformedNodeError(problem="two edges claim the value of one key", where=node.prefix.hex()[1::2])
                branch.value = node.value
            for index, child in node.children.items():
                branch.attach(node.prefix + bytes([index]), child)
    return branches


def _close(
    branches: dict[bytes, GrowingBranch], keep_open: Callable[[bytes], bool], straddles_left: Callable[[bytes], bool], *, hashed: bool
) -> _Closure:
    """Close every branch but those to keep, each into the branch at the longest listed prefix above it."""
    parents = _parents(branches)
    closure_top: Child | None = None
    closed: dict[bytes, ClosedNode] = {}
    first_keys: dict[bytes, bytes] = {}
    for prefix in sorted(branches, reverse=True):
        if keep_open(prefix):
            continue
        branch = branches[prefix]
        if branch.first_key is None:
            raise MalformedNodeError(problem="no edge knows the first key under a prefix", where=prefix.hex()[1::2])
        first_keys[prefix] = branch.first_key
        parent = parents[prefix]
        closed[prefix] = close_branch(branch, parent, hashed=hashed)
        if parent is not None:
            parent.attach(prefix, closed[prefix].child)
            if not straddles_left(parent.prefix):
                parent.first_key = _earlier(parent.first_key, branch.first_key)
        elif closure_top is None:
            closure_top = closed[prefix].child
        else:
            raise MalformedNodeError(problem="the edges of a shard have two roots", where="edge")
    return _Closure(closed=closed, first_keys=first_keys, top=closure_top)


def _parents(branches: dict[bytes, GrowingBranch]) -> dict[bytes, GrowingBranch | None]:
    """Return, for each prefix, the branch at the longest other prefix that it begins with."""
    parents: dict[bytes, GrowingBranch | None] = {}
    above: list[GrowingBranch] = []
    for prefix in sorted(branches):
        while above and not prefix.startswith(above[-1].prefix):
            above.pop()
        parents[prefix] = above[-1] if above else None
        above.append(branches[prefix])
    return parents


def _earlier(one: bytes | None, other: bytes | None) -> bytes | None:
    known = [key for key in (one, other) if key is not None]
    return min(known, default=None)


def _boundary_nodes(edge: Edge, branches: dict[bytes, GrowingBranch], closed: dict[bytes, ClosedNode]) -> tuple[bytes, ...]:
    """Return the nodes from the root to the node of the edge's first key, and the siblings to the left of that path."""
    nodes: set[bytes] = set(edge.first_path)
    first = key_to_nibbles(edge.first_key)
    for length in range(len(first) + 1):
        prefix = first[:length]
        if prefix in closed:
            nodes.update(closed[prefix].nodes)
            if prefix != first:
                nodes.update(child.node for index, child in branches[prefix].children.items() if index < first[length])
    return tuple(sorted(nodes))


def _charges_of(edges: Sequence[Edge], closure: _Closure) -> list[Charge]:
    carried = [charge for edge in edges for charge in edge.charges]
    return carried + [Charge(key=closure.first_keys[prefix], memory_usage=node.own_memory_usage) for prefix, node in closure.closed.items()]


def _sum_charges(charges: Sequence[Charge]) -> tuple[Charge, ...]:
    by_key: dict[bytes, int] = {}
    for charge in charges:
        by_key[charge.key] = by_key.get(charge.key, 0) + charge.memory_usage
    if any(memory_usage > MEMORY_USAGE_MAX for memory_usage in by_key.values()):
        raise MalformedNodeError(problem="a charge is over 64 bits", where="edge")
    return tuple(Charge(key=key, memory_usage=by_key[key]) for key in sorted(by_key))


def _charges_by_edge(edges: Sequence[Edge], closure: _Closure) -> tuple[tuple[tuple[bytes, int], ...], ...]:
    first_keys = [edge.first_key for edge in edges]
    by_edge: list[list[tuple[bytes, int]]] = [[] for _ in edges]
    for charge in _sum_charges(_charges_of(edges, closure)):
        by_edge[bisect_right(first_keys, charge.key) - 1].append((charge.key, charge.memory_usage))
    return tuple(tuple(charges) for charges in by_edge)
