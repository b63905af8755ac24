"""What differs between two tries in the State column, at the cost of what differs.

Both tries are walked side by side from their roots; a subtree that stands at the same place in both with the same hash is skipped, and
nodes are read in batches. Works both ways: the later trie may be the older one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from pipelines.near.node.state_column import READ_ROWS_MAX, StateColumn
from pipelines.near.trie.walk_trie import Item, Leaf, branch_children, expand, is_record, key_end, read_nodes, root_item
from schemas.ids import HASH_BYTES, ZERO_HASH
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX
from schemas.nearcore.trie_node import common_prefix_length, decode_nibbles, nibbles_to_key

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

_Pair: TypeAlias = tuple[bytes, _Place, _Place]
"""A prefix, and what the older and the newer trie have under it."""

_Value: TypeAlias = tuple[int, bytes] | None
"""Length and hash of a record's value."""

_NODE: Final = root_item(ZERO_HASH).length
_LEAF: Final = 0
_BRANCH_WITH_VALUE: Final = 2


@dataclass(frozen=True, slots=True)
class _Content:
    """What stands at a prefix: the value of the key that ends there, and what follows by nibble."""

    value: _Value
    below: dict[int, _Place]


_NOTHING: Final = _Content(None, {})


class _Difference(NamedTuple):
    """What differs at a key, and the pairs that are to be looked at for what differs below."""

    nibbles: bytes
    old: _Value
    new: _Value
    below: list[_Pair]


def trie_difference(column: StateColumn, old_root: bytes, new_root: bytes, include: Include) -> Iterator[tuple[bytes, Leaf | None]]:
    """Yield each key whose record differs, with the new record, or None where the key is gone; in no particular order.

    Args:
        include: asked of every prefix that is looked at.
    Raises:
        MissingTrieValueError: a node of either trie is not there; its prefix and hash are named.
        SourceError, IntegrityError: as `pipelines.near.trie.walk_trie.walk_leaves`.
    """
    stack: list[_Pair] = [(b"", _root(old_root), _root(new_root))]
    while stack:
        taken = (_further(*stack.pop()) for _ in range(min(len(stack), READ_ROWS_MAX // 2)))
        pairs = [(prefix, _opened(old), _opened(new)) for prefix, old, new in taken if old != new and include(prefix)]
        for (prefix, old, new), nodes in zip(pairs, _read_nodes(column, pairs), strict=True):
            found = _between_nodes(prefix, *nodes) or _between_contents(
                prefix, _content(column, prefix, old, nodes[0]), _content(column, prefix, new, nodes[1])
            )
            stack += found.below
            if found.old != found.new and include(found.nibbles):
                key = nibbles_to_key(found.nibbles)
                yield key, None if found.new is None else Leaf(key, *found.new)


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


def _read_nodes(column: StateColumn, pairs: list[_Pair]) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Return the bytes of the nodes among the places of some pairs, read in one batch; None for what is no node."""
    items = [Item(prefix, place, _NODE) for prefix, *places in pairs for place in places if isinstance(place, bytes)]
    nodes = iter(read_nodes(column, items))
    return ((next(nodes) if isinstance(old, bytes) else None, next(nodes) if isinstance(new, bytes) else None) for _, old, new in pairs)


def _between_nodes(prefix: bytes, old: bytes | None, new: bytes | None) -> _Difference | None:
    """Compare two branches, or two leaves or extensions of one key, by their bytes, as nearly all pairs of nodes are; None for others."""
    if old is None or new is None or len(prefix) > 2 * KEY_BYTES_MAX:
        return None
    old_end = key_end(old)
    if old_end is not None:
        if key_end(new) != old_end or new[5:old_end] != old[5:old_end] or new[0] != old[0]:
            return None
        nibbles = prefix + decode_nibbles(old[5:old_end])
        if old[0] == _LEAF:
            return _Difference(nibbles, _value_at(old, old_end), _value_at(new, old_end), [])
        return _Difference(nibbles, None, None, [(nibbles, old[old_end : old_end + HASH_BYTES], new[old_end : old_end + HASH_BYTES])])
    old_branch, new_branch = branch_children(old), branch_children(new)
    if old_branch is None or new_branch is None:
        return None
    old_value = _value_at(old, 1) if old[0] == _BRANCH_WITH_VALUE else None
    new_value = _value_at(new, 1) if new[0] == _BRANCH_WITH_VALUE else None
    old_children, new_children = _hashes(old, *old_branch), _hashes(new, *new_branch)
    if old_branch[0] == new_branch[0]:
        below: list[_Pair] = [
            (prefix + bytes((nibble,)), one, other)
            for nibble, one, other in zip(old_branch[0], old_children, new_children, strict=True)
            if one != other
        ]
    else:
        olds, news = dict(zip(old_branch[0], old_children, strict=True)), dict(zip(new_branch[0], new_children, strict=True))
        below = [(prefix + bytes((nibble,)), olds.get(nibble), news.get(nibble)) for nibble in olds.keys() | news.keys()]
    return _Difference(prefix, old_value, new_value, below)


def _hashes(branch: bytes, children: tuple[int, ...], first: int) -> list[bytes]:
    return [branch[begin : begin + HASH_BYTES] for begin in range(first, first + HASH_BYTES * len(children), HASH_BYTES)]


def _value_at(node: bytes, begin: int) -> _Value:
    return int.from_bytes(node[begin : begin + 4], "little"), node[begin + 4 : begin + 4 + HASH_BYTES]


def _between_contents(prefix: bytes, old: _Content, new: _Content) -> _Difference:
    """Compare what stands at a prefix in whatever form."""
    below = [(prefix + bytes((nibble,)), old.below.get(nibble), new.below.get(nibble)) for nibble in old.below.keys() | new.below.keys()]
    return _Difference(prefix, old.value, new.value, below)


def _content(column: StateColumn, prefix: bytes, place: _Place, node: bytes | None) -> _Content:
    """Return what stands at a place; ``node`` are the bytes where that is one."""
    if isinstance(place, bytes):
        assert node is not None, "it was read"
        return _node_content(column, Item(prefix, place, _NODE), node)
    return _tail_content(place)


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
    value: _Value = None
    below: dict[int, _Place] = {}
    for found in expand(column, item, node):
        rest = found.prefix[len(item.prefix) :]
        if not rest:
            value = (found.length, found.hash)
        else:
            below[rest[0]] = found.hash if not is_record(found) and len(rest) == 1 else _shortened(_Tail(rest, found.hash, found.length), 1)
    return _Content(value, below)
