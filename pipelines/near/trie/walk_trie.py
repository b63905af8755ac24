"""Walks over a trie in the State column: its records in key order, and its key ranges by memory usage.

The walk is iterative and reads nodes in batches, depth first: it holds at most ``READ_ROWS`` pending nodes a level of the trie, however large
the trie is. Every node was hashed by `pipelines.near.node.state_column`, and each is reached from the root by hashes alone, so what comes out
is the state of that root and nothing else.

Source: nearcore core/store/src/trie/{raw_node,iterator}.rs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, Never

from pipelines.near.node.flat_state_source import KeyRange
from pipelines.near.node.key_split import RANGES_MAX
from pipelines.near.node.state_column import READ_ROWS, READ_ROWS_MAX, StateColumn
from schemas.errors import MalformedNodeError, MissingTrieValueError, PartLimitError
from schemas.ids import HASH_BYTES, ZERO_HASH, CryptoHash
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX
from schemas.nearcore.trie_node import bitmap_children, decode_nibbles, decode_trie_node, key_to_nibbles, nibbles_to_key

WINDOW_ITEMS_MAX: Final = 4 * READ_ROWS
"""Most pending nodes and records that one step of a walk looks at."""

_NODE: Final = -1
_MEMORY_USAGE_BYTES: Final = 8
_AFTER_KEY: Final = {0: 4 + HASH_BYTES + _MEMORY_USAGE_BYTES, 3: HASH_BYTES + _MEMORY_USAGE_BYTES}
"""Bytes behind a leaf's or an extension's key, by tag."""
_NIBBLES: Final = tuple(bytes([nibble]) for nibble in range(16))

_HEX_DIGITS: Final = bytes.maketrans(bytes(range(16)), b"0123456789abcdef")


class Item(NamedTuple):
    """A node that is still to be read, or a record."""

    prefix: bytes
    """One nibble a byte; of a record, its whole key."""
    hash: bytes
    """Of the node, or of the record's value."""
    length: int
    """Of the record's value; ``_NODE`` for a node."""


Wanted = Callable[[Item], bool]
"""Tells whether a record, or anything under a node, is asked for."""


class Leaf(NamedTuple):
    """A record of the trie: its key, and its value by length and hash."""

    key: bytes
    value_length: int
    value_hash: bytes


def walk_leaves(column: StateColumn, state_root: bytes, wanted: Wanted) -> Iterator[list[Leaf]]:
    """Yield the records of a trie whose keys are wanted, ascending by key, in lists of some hundreds.

    Args:
        wanted: asked of every node but the root, and of every record.
    Raises:
        MissingTrieValueError: a node is not there, or its row is damaged; its prefix and hash are named.
        MalformedNodeError, PartLimitError: a node is none, or lies deeper than any key.
        SourceError: a database can't be read.
    """
    stack = [] if state_root == ZERO_HASH else [Item(b"", bytes(state_root), _NODE)]
    while stack:
        window = _take_window(stack)
        nodes = iter(read_nodes(column, [item for item in window if item.length == _NODE]))
        expanded: list[Item] = []
        for item in window:
            if item.length == _NODE:
                expanded.extend(below for below in expand(column, item, next(nodes)) if wanted(below))
            else:
                expanded.append(item)
        done = next((index for index, item in enumerate(expanded) if item.length == _NODE), len(expanded))
        if done:
            yield [Leaf(nibbles_to_key(item.prefix), item.length, item.hash) for item in expanded[:done]]
        stack.extend(reversed(expanded[done:]))


def _take_window(stack: list[Item]) -> list[Item]:
    """Take the next items off the stack, in key order, with at most ``READ_ROWS`` nodes among them."""
    window: list[Item] = []
    nodes = 0
    while stack and len(window) < WINDOW_ITEMS_MAX and nodes < READ_ROWS:
        item = stack.pop()
        nodes += item.length == _NODE
        window.append(item)
    return window


def read_nodes(column: StateColumn, items: Sequence[Item]) -> list[bytes]:
    """Return the bytes of nodes.

    Raises:
        MissingTrieValueError: one is not there, or its row is damaged.
    """
    payloads: list[bytes] = []
    for begin in range(0, len(items), READ_ROWS_MAX):
        step = items[begin : begin + READ_ROWS_MAX]
        for item, payload in zip(step, column.read([item.hash for item in step]), strict=True):
            if payload is None:
                raise MissingTrieValueError(
                    problem=f"trie node {CryptoHash(item.hash)} at prefix {show_prefix(item.prefix)} {column.explain(item.hash)}",
                    where=column.where,
                    remedy="The node no longer keeps this state, or its database is damaged; take a node that has it.",
                )
            payloads.append(payload)
    return payloads


def expand(column: StateColumn, item: Item, node: bytes) -> list[Item]:
    """Return what hangs under a node, in key order: its value first, then its children.

    Raises:
        MalformedNodeError: the bytes are no node.
        PartLimitError: it lies deeper than any key.
    """
    prefix = item.prefix
    if len(prefix) > 2 * KEY_BYTES_MAX:
        raise PartLimitError(problem=f"a trie key is longer than {KEY_BYTES_MAX} bytes", where=f"{show_prefix(prefix)}, {column.where}")
    tag = node[0] if node else None
    if tag in (1, 2):
        branch = branch_children(node)
        if branch is None:
            _refuse(column, item, node)
        indices, first = branch
        children = [Item(prefix + _NIBBLES[child], node[first + 32 * n : first + 32 * n + 32], _NODE) for n, child in enumerate(indices)]
        return children if tag == 1 else [Item(prefix, node[5:37], int.from_bytes(node[1:5], "little")), *children]
    end = key_end(node)
    if end is None:
        _refuse(column, item, node)
    key = prefix + decode_nibbles(node[5:end])
    if tag == 0:
        return [Item(key, node[end + 4 : end + 36], int.from_bytes(node[end : end + 4], "little"))]
    return [Item(key, node[end : end + 32], _NODE)]


def branch_children(node: bytes) -> tuple[tuple[int, ...], int] | None:
    """Return the nibbles of a branch's children, ascending, and where the first one's hash begins; None where the bytes are no branch."""
    tag = node[0] if node else None
    if tag not in (1, 2):
        return None
    bitmap_at = 1 if tag == 1 else 37
    indices = _children(int.from_bytes(node[bitmap_at : bitmap_at + 2], "little"))
    first = bitmap_at + 2
    return (indices, first) if len(node) == first + HASH_BYTES * len(indices) + _MEMORY_USAGE_BYTES else None


def key_end(node: bytes) -> int | None:
    """Return where the encoded key of a leaf or extension ends, which begins at 5; None where the bytes are neither."""
    after = _AFTER_KEY.get(node[0]) if node else None
    end = 5 + int.from_bytes(node[1:5], "little")
    return end if after is not None and len(node) == end + after and end > 5 else None


@lru_cache(maxsize=1 << 16)
def _children(bitmap: int) -> tuple[int, ...]:
    return tuple(bitmap_children(bitmap))


def _refuse(column: StateColumn, item: Item, node: bytes) -> Never:
    where = f"node {CryptoHash(item.hash)} at prefix {show_prefix(item.prefix)}, {column.where}"
    try:
        decode_trie_node(node)
    except MalformedNodeError as error:
        raise MalformedNodeError(problem=error.problem, where=where) from None
    raise MalformedNodeError(problem="the bytes of a trie node don't have the length of one", where=where)


def show_prefix(prefix: bytes) -> str:
    """Return a prefix for people: a hex digit a nibble."""
    return prefix.translate(_HEX_DIGITS).decode() or "(root)"


def is_record(item: Item) -> bool:
    """Tell a record from a node that is still to be read."""
    return item.length != _NODE


def root_item(state_root: bytes) -> Item:
    """Return the root node, to be read."""
    return Item(b"", bytes(state_root), _NODE)


def within(key_range: KeyRange) -> Wanted:
    """Return what tells whether an item is a record of a key range, or has some under it."""
    begin = key_to_nibbles(key_range.begin)
    end = None if key_range.end is None else key_to_nibbles(key_range.end)

    def wanted(item: Item) -> bool:
        prefix = item.prefix
        # A node at a prefix of the begin has keys of the range under it, a record at one lies before the range. The end's own
        # prefixes are smaller than it, so one comparison does for both.
        after_begin = prefix >= (begin if item.length != _NODE else begin[: len(prefix)])
        return after_begin and (end is None or prefix < end)

    return wanted


def split_by_memory_usage(column: StateColumn, state_root: bytes, memory_usage_target: int) -> tuple[KeyRange, ...]:
    """Split a trie into adjacent key ranges of about a memory usage each, covering all keys; only the top of the trie is read.

    Raises:
        MissingTrieValueError, MalformedNodeError, PartLimitError, SourceError: as `walk_leaves`.
    """
    if state_root == ZERO_HASH:
        return (KeyRange(b"", None),)
    root = root_item(state_root)
    (node,) = read_nodes(column, [root])
    parts = [(root, node)]
    target = max(memory_usage_target, memory_usage(node) // RANGES_MAX, 1)
    while any(memory_usage(node) > target for _, node in parts):
        below = [_nodes_below(column, item, node) if memory_usage(node) > target else None for item, node in parts]
        nodes = iter(read_nodes(column, [child for group in below if group is not None for child in group]))
        # A leaf has no node below: it falls out, and its record stays in the range of the keys before it.
        parts = list(
            itertools.chain.from_iterable(
                [part] if group is None else [(child, next(nodes)) for child in group] for part, group in zip(parts, below, strict=True)
            )
        )
    begins = [b""]
    weight = 0
    for item, node in parts:
        if weight and weight + memory_usage(node) > target:
            begins.append(nibbles_to_key(item.prefix + b"\0" * (len(item.prefix) % 2)))
            weight = 0
        weight += memory_usage(node)
    return tuple(KeyRange(begin, end) for begin, end in zip(begins, [*begins[1:], None], strict=True))


def _nodes_below(column: StateColumn, item: Item, node: bytes) -> list[Item]:
    return [below for below in expand(column, item, node) if below.length == _NODE]


def memory_usage(node: bytes) -> int:
    """Return the memory usage that stands in a node's bytes: that of its whole subtree."""
    return int.from_bytes(node[-_MEMORY_USAGE_BYTES:], "little")
