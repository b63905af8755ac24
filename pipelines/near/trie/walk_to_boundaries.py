"""Walks a trie in the State column from its root to given keys, and takes the siblings to the left of each path along.

That is what nearcore reads to find a state part's boundary, and what the part's proof needs from outside of its key interval. All
paths go down together, a level a step, so that a step's nodes are few batched reads, and nodes that paths share are read once.

Source: nearcore core/store/src/trie/state_parts.rs, Trie::find_state_part_boundary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.near.node.state_column import StateColumn
from pipelines.near.trie.walk_trie import Item, expand, is_record, memory_usage, read_nodes, root_item, show_prefix
from schemas.errors import MissingTrieValueError
from schemas.ids import CryptoHash
from schemas.nearcore.trie_node import key_to_nibbles


@dataclass(frozen=True, slots=True)
class WalkedBoundaries:
    """What lies on the way to some keys."""

    memory_usage: int
    """Of the whole trie, as its root says."""
    boundary_nodes: tuple[tuple[bytes, ...], ...]
    """For each key in order: the nodes from the root to the node of the key, and every sibling to the left; unique, in no order."""
    rows: int
    """Nodes that were read."""


@dataclass(slots=True)
class _Path:
    """A way down that is under way."""

    nibbles: bytes
    place: Item | None
    """The node to go on at; None at the end."""
    taken: dict[bytes, None]
    """Hashes of the nodes so far."""


def walk_to_boundaries(column: StateColumn, state_root: CryptoHash, keys: Sequence[bytes]) -> WalkedBoundaries:
    """Read the nodes on the paths to some keys, with their left siblings, each checked by its hash.

    Args:
        state_root: not that of an empty trie.
        keys: at least one; what they hold in memory at once is the nodes of all their paths.
    Raises:
        MissingTrieValueError: a node is not there or its row does not hash, or a key is not in the trie.
        MalformedNodeError, PartLimitError: a row is no node of a trie.
        SourceError: a database can't be read.
    """
    root = root_item(state_root)
    nodes: dict[bytes, bytes] = {}
    _read_missing(column, [root], nodes)
    paths = [_Path(key_to_nibbles(key), root, {root.hash: None}) for key in keys]
    # A step takes each path at least a nibble down, and `expand` bounds the depth.
    while going := [path for path in paths if path.place is not None]:
        _read_missing(column, [item for path in going for item in _step(column, path, nodes)], nodes)
    return WalkedBoundaries(
        memory_usage=memory_usage(nodes[root.hash]),
        boundary_nodes=tuple(tuple(nodes[taken] for taken in path.taken) for path in paths),
        rows=len(nodes),
    )


def _read_missing(column: StateColumn, items: Sequence[Item], nodes: dict[bytes, bytes]) -> None:
    missing = list({item.hash: item for item in items if item.hash not in nodes}.values())
    nodes.update(zip((item.hash for item in missing), read_nodes(column, missing), strict=True))


def _step(column: StateColumn, path: _Path, nodes: dict[bytes, bytes]) -> list[Item]:
    """Take a path below its place; return the node that it goes on at and that node's left siblings."""
    place = path.place
    assert place is not None, "a path that is at its end takes no step"
    left: list[Item] = []
    for item in expand(column, place, nodes[place.hash]):
        if is_record(item):
            if item.prefix == path.nibbles:
                path.place = None
                return []
        elif path.nibbles.startswith(item.prefix):
            path.place = item
            left.append(item)
            path.taken.update(dict.fromkeys(sibling.hash for sibling in left))
            return left
        else:
            left.append(item)
    raise MissingTrieValueError(
        problem=f"the key {show_prefix(path.nibbles)} is not in the trie of state root {CryptoHash(next(iter(path.taken)))}",
        where=f"below prefix {show_prefix(place.prefix)}, {column.where}",
    )
