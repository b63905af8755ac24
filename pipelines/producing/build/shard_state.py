"""A shard's state as it is published, wherever its parts came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from schemas.ids import CryptoHash, ShardUId
from schemas.published.torrent import LEAF_BYTES, piece_length_for

Kinds = tuple[tuple[int, int, int], ...]
"""(first byte of the key or -1, records, bytes of keys and values), ascending."""


@dataclass(frozen=True, slots=True)
class ShardState:
    """One shard whose parts are of one state root."""

    shard_uid: ShardUId
    state_root: CryptoHash
    root_node: bytes
    """Node bytes of the state root; empty for an empty trie."""
    memory_usage: int
    """Of the state root."""
    num_parts: int
    root_was_known: bool
    """False where the source knew no state root: then it is what the records hash to, and nothing vouches for it."""
    kinds: Kinds

    @property
    def piece_length(self) -> int:
        """Of the shard's torrent."""
        return torrent_piece_length(self.memory_usage, self.num_parts)


def torrent_piece_length(memory_usage: int, num_parts: int) -> int:
    """Return the piece length of a shard's torrent."""
    return piece_length_for(memory_usage, num_parts) if num_parts else LEAF_BYTES


def add_kinds(parts: Iterable[Kinds]) -> Kinds:
    """Add up what several parts hold."""
    counts: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for kinds in parts:
        for kind, count, size in kinds:
            counts[kind] += count
            sizes[kind] += size
    return tuple((kind, counts[kind], sizes[kind]) for kind in sorted(counts))
