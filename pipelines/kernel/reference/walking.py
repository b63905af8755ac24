"""nearcore's walks through a part: to its two boundaries, and over the keys between them.

A boundary is a list of nibbles, one a byte. The walks read nodes and values by hash from the part alone, and the part remembers
which were read: a proof lacks nothing and holds nothing that is not read.

Source: nearcore core/store/src/trie/state_parts.rs and trie/ops/iter.rs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipelines.kernel import trie_kernel as protocol
from schemas.errors import MalformedNodeError, MissingTrieValueError, PartLimitError, UnexpectedTrieValueError
from schemas.ids import ZERO_HASH, CryptoHash, PartId
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX
from schemas.nearcore.state_part import boundary_threshold
from schemas.nearcore.trie_node import (
    BranchNode,
    ExtensionNode,
    LeafNode,
    RawTrieNodeWithSize,
    decode_nibbles,
    decode_trie_node,
    hash_node,
)

RIGHT_EDGE = bytes([16])
"""A boundary behind every key (nearcore's LAST_STATE_PART_BOUNDARY)."""


class PartEntries:
    """A part's entries by hash, and which of them were visited."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        self._entry_count = len(entries)
        self._by_hash: dict[bytes, bytes] = {hash_node(entry): entry for entry in entries}
        self._visited: set[bytes] = set()
        self._steps = 0
        self.encoded_bytes = 5 + sum(4 + len(entry) for entry in entries)
        """Of the part."""

    def read(self, entry_hash: bytes) -> bytes:
        """Return a node's or value's bytes.

        Raises:
            MissingTrieValueError: the part does not hold them.
            PartLimitError: more reads than ``WALK_STEPS_MAX``.
        """
        self._steps += 1
        if self._steps > protocol.WALK_STEPS_MAX:
            raise PartLimitError(problem=f"a part takes more than {protocol.WALK_STEPS_MAX} steps to walk")
        entry = self._by_hash.get(entry_hash)
        if entry is None:
            raise MissingTrieValueError(problem="the part lacks a node or value that its proof needs", where=str(CryptoHash(entry_hash)))
        self._visited.add(entry_hash)
        return entry

    def read_node(self, node_hash: bytes) -> RawTrieNodeWithSize:
        """Return a node.

        Raises:
            MissingTrieValueError, PartLimitError: as `read`.
            MalformedNodeError: the bytes are no node.
        """
        return decode_trie_node(self.read(node_hash))

    def check_all_visited(self) -> None:
        """Check that every entry was read, and that none is there twice.

        Raises:
            UnexpectedTrieValueError: otherwise.
        """
        if len(self._visited) != self._entry_count:
            raise UnexpectedTrieValueError(
                problem=f"{self._entry_count - len(self._visited)} of the part's {self._entry_count} entries prove nothing"
            )


def walk_part(entries: PartEntries, state_root: CryptoHash, part_id: PartId) -> Iterator[tuple[bytes, bytes]]:
    """Do the three walks of a part, yielding the keys of its interval, as nibbles, with their values, ascending.

    Raises:
        MissingTrieValueError, MalformedNodeError, PartLimitError: passed on.
    Source: nearcore core/store/src/trie/state_parts.rs, Trie::visit_nodes_for_state_part.
    """
    if state_root == ZERO_HASH:
        return
    begin = find_state_part_boundary(entries, state_root, part_id.idx, part_id.total)
    end = find_state_part_boundary(entries, state_root, part_id.idx + 1, part_id.total)
    total = entries.read_node(state_root).memory_usage
    share = -(-total // part_id.total)
    if begin == RIGHT_EDGE:
        # nearcore encodes the boundary that it seeks as the nibbles of a leaf; for the right edge, whose one nibble is 16, that
        # overflows into the flags and decodes to no nibble at all, so that the walk begins at the root.
        begin, share = b"", total
    unfolded = _Unfolded(share, entries.encoded_bytes)
    for key, value in walk_interval(entries, state_root, begin, end):
        unfolded.add(key, value)
        yield key, value


class _Unfolded:
    """What the records of a part have once each stands by itself, though they share nodes and values.

    Args:
        share: of the root's memory usage.
        part_bytes: bytes of the part.
    """

    def __init__(self, share: int, part_bytes: int) -> None:
        self._share = share
        bytes_max = min(protocol.APPLIED_BYTES_MAX, protocol.APPLIED_RATIO_MAX * part_bytes)
        self._bytes_max = max(protocol.STATE_PART_MEMORY_USAGE, bytes_max) if share > protocol.STATE_PART_MEMORY_USAGE else None
        self._memory_usage = 0
        self._bytes = 0

    def add(self, key: bytes, value: bytes) -> None:
        """Count a record.

        Args:
            key: as nibbles.
        Raises:
            PartLimitError: with it the records have more than the state can have for them, or than the part's own bytes are good for.
        """
        inlined_bytes = len(value) if len(value) <= INLINED_VALUE_BYTES_MAX else 0
        self._memory_usage += 2 * protocol.NODE_MEMORY_USAGE + inlined_bytes
        self._bytes += len(key) // 2 + inlined_bytes
        # The first record of a part may be over its share, and be all of it.
        if self._memory_usage > self._share + 2 * protocol.NODE_MEMORY_USAGE + INLINED_VALUE_BYTES_MAX:
            raise PartLimitError(
                problem=f"the records of a part have a memory usage of more than its share of the state root's, {self._share}"
            )
        if self._bytes_max is not None and self._bytes > self._bytes_max:
            raise PartLimitError(problem=f"the records of a part have more than {self._bytes_max} bytes")


def find_state_part_boundary(entries: PartEntries, state_root: CryptoHash, part_id: int, num_parts: int) -> bytes:
    """Return where a part begins: the first key whose running memory usage exceeds the part's threshold.

    Reads the nodes on the way there and every sibling to their left.

    Raises:
        MissingTrieValueError, PartLimitError: as `PartEntries.read`.
        MalformedNodeError: a node can't be decoded, or its memory usage is not that of its children.
    Source: nearcore core/store/src/trie/state_parts.rs, Trie::{find_state_part_boundary, find_node_in_dfs_order}.
    """
    if part_id == 0:
        return b""
    if part_id == num_parts:
        return RIGHT_EDGE
    raw = entries.read_node(state_root)
    threshold = boundary_threshold(part_id, num_parts, raw.memory_usage)
    if raw.memory_usage <= threshold:
        return RIGHT_EDGE
    position = b""
    skipped = 0
    while True:
        skipped += raw.node.own_memory_usage
        match raw.node:
            case LeafNode(key, _):
                return _deeper(position, decode_nibbles(key))
            case ExtensionNode(key, child):
                position = _deeper(position, decode_nibbles(key))
                raw = entries.read_node(child)
            case BranchNode(children, value):
                if value is not None and skipped > threshold:
                    return position
                index, raw, skipped = _choose_child(entries, children, skipped, threshold)
                position = _deeper(position, bytes([index]))


def _choose_child(entries: PartEntries, children: dict[int, bytes], skipped: int, threshold: int) -> tuple[int, RawTrieNodeWithSize, int]:
    """Return the first child in which the running memory usage passes the threshold, and the usage skipped before it."""
    for index in sorted(children):
        child = entries.read_node(children[index])
        if skipped + child.memory_usage > threshold:
            return index, child, skipped
        skipped += child.memory_usage
    raise MalformedNodeError(problem="the memory usage of a branch is more than that of its children")


def walk_interval(entries: PartEntries, state_root: CryptoHash, begin: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys with begin <= key < end, as nibbles, and their values, ascending.

    Reads every node that stands before ``end`` and has keys at or behind ``begin`` under it, or is on the way to ``begin``.

    Raises:
        MissingTrieValueError, MalformedNodeError, PartLimitError: passed on.
    Source: nearcore core/store/src/trie/ops/iter.rs, TrieIteratorImpl::visit_nodes_interval.
    """

    def lies_before_begin(position: bytes) -> bool:
        return position < begin[: len(position)]

    to_visit = [(b"", bytes(state_root))]
    while to_visit:
        position, node_hash = to_visit.pop()
        if position >= end:
            return
        match entries.read_node(node_hash).node:
            case LeafNode(encoded, value_ref):
                key = _deeper(position, decode_nibbles(encoded))
                if begin <= key < end:
                    yield key, entries.read(value_ref.hash)
            case ExtensionNode(encoded, child):
                below = _deeper(position, decode_nibbles(encoded))
                if not lies_before_begin(below):
                    to_visit.append((below, child))
            case BranchNode(children, value):
                if value is not None and begin <= position:
                    yield position, entries.read(value.hash)
                below_children = [(_deeper(position, bytes([index])), children[index]) for index in sorted(children, reverse=True)]
                to_visit += [(below, child) for below, child in below_children if not lies_before_begin(below)]


def _deeper(position: bytes, nibbles: bytes) -> bytes:
    if len(position) + len(nibbles) > protocol.TRIE_DEPTH_MAX:
        raise PartLimitError(problem=f"the trie is deeper than {protocol.TRIE_DEPTH_MAX} nibbles")
    return position + nibbles
