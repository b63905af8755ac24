"""What differs between two tries in the State column, at the cost of what differs.

Both tries are walked side by side from their roots; a subtree that stands at the same place in both with the same hash is skipped, and
nodes are read in batches. Works both ways: the later trie may be the older one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from pipelines.near.node.state_column import READ_ROWS, StateColumn
from pipelines.near.trie.walk_trie import Item, Leaf, expand, is_record, read_nodes, root_item
from schemas.ids import ZERO_HASH
from schemas.nearcore.trie_node import common_prefix_length, nibbles_to_key

Include = Callable[[bytes], bool]
"""Tells of a prefix (one nibble a byte) whether anything under it is asked for."""


@dataclass(frozen=True, slots=True)
class _Tail:
    """What hangs under the rest of an extension's or leaf's key: a node, or a record's value."""

    nibbles: bytes
    hash: bytes
    length: int


_Place: TypeAlias = bytes | _Tail | None
"""What a trie has under a prefix: a node by its hash, the rest of a key that runs on, or nothing."""

_NODE: Final = root_item(ZERO_HASH).length


@dataclass(frozen=True, slots=True)
class _Content:
    """What stands at a prefix: the value of the key that ends there, and what follows by nibble."""

    value: tuple[int, bytes] | None
    below: dict[int, _Place]


_NOTHING: Final = _Content(None, {})


def trie_difference(column: StateColumn, old_root: bytes, new_root: bytes, include: Include) -> Iterator[tuple[bytes, Leaf | None]]:
    """Yield each key whose record differs, with the new record, or None where the key is gone; in no particular order.

    Args:
        include: asked of every prefix that is looked at.
    Raises:
        MissingTrieValueError: a node of either trie is not there; its prefix and hash are named.
        SourceError, IntegrityError: as `pipelines.near.trie.walk_trie.walk_leaves`.
    """
    stack: list[tuple[bytes, _Place, _Place]] = [(b"", _root(old_root), _root(new_root))]
    while stack:
        window = [_further(*stack.pop()) for _ in range(min(len(stack), READ_ROWS // 2))]
        pairs = [(prefix, old, new) for prefix, old, new in window if old != new and include(prefix)]
        contents = _contents(column, [(prefix, place) for prefix, old, new in pairs for place in (old, new)])
        for (prefix, _, _), old, new in zip(pairs, contents[::2], contents[1::2], strict=True):
            if old.value != new.value:
                key = nibbles_to_key(prefix)
                yield key, None if new.value is None else Leaf(key, *new.value)
            for nibble in old.below.keys() | new.below.keys():
                stack.append((prefix + bytes([nibble]), old.below.get(nibble), new.below.get(nibble)))


def _further(prefix: bytes, old: _Place, new: _Place) -> tuple[bytes, _Place, _Place]:
    """Go on to where the two part, or to where something stands: nibble by nibble a long key would take long."""
    if isinstance(old, _Tail) and isinstance(new, _Tail):
        steps = common_prefix_length(old.nibbles, new.nibbles)
    elif isinstance(old, _Tail) and new is None:
        steps = len(old.nibbles)
    elif isinstance(new, _Tail) and old is None:
        steps = len(new.nibbles)
    else:
        return prefix, old, new
    tail = old if isinstance(old, _Tail) else new
    assert isinstance(tail, _Tail), "one of the two is"
    return prefix + tail.nibbles[:steps], _shortened(old, steps), _shortened(new, steps)


def _root(state_root: bytes) -> _Place:
    return None if state_root == ZERO_HASH else bytes(state_root)


def _contents(column: StateColumn, places: list[tuple[bytes, _Place]]) -> list[_Content]:
    """Return what stands at some places, reading the nodes among them in one batch."""
    opened = [(prefix, _opened(place)) for prefix, place in places]
    items = [Item(prefix, place, _NODE) for prefix, place in opened if isinstance(place, bytes)]
    nodes = iter(zip(items, read_nodes(column, items), strict=True))
    contents = []
    for _, place in opened:
        if isinstance(place, bytes):
            item, node = next(nodes)
            contents.append(_node_content(column, item, node))
        else:
            contents.append(_tail_content(place))
    return contents


def _opened(place: _Place) -> _Place:
    """Return the node at the end of an extension whose key is used up; else the place as it is."""
    return place.hash if isinstance(place, _Tail) and not place.nibbles and place.length == _NODE else place


def _tail_content(tail: _Tail | None) -> _Content:
    if tail is None:
        return _NOTHING
    if not tail.nibbles:
        return _Content((tail.length, tail.hash), {})
    return _Content(None, {tail.nibbles[0]: _shortened(tail, 1)})


def _shortened(place: _Place, steps: int) -> _Place:
    return _opened(_Tail(place.nibbles[steps:], place.hash, place.length)) if isinstance(place, _Tail) else place


def _node_content(column: StateColumn, item: Item, node: bytes) -> _Content:
    value: tuple[int, bytes] | None = None
    below: dict[int, _Place] = {}
    for found in expand(column, item, node):
        rest = found.prefix[len(item.prefix) :]
        if not rest:
            value = (found.length, found.hash)
        else:
            below[rest[0]] = found.hash if not is_record(found) and len(rest) == 1 else _shortened(_Tail(rest, found.hash, found.length), 1)
    return _Content(value, below)
