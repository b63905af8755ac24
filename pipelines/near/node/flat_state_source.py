"""What a source of flat state gives to the export."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import pyarrow as pa

from pipelines.near.node.state_column import StateColumnPlace
from schemas.nearcore.epoch_context import ShardContext
from schemas.nearcore.state_header import HeaderOrigin


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Trie keys with begin <= key < end; ``end`` None is the right end of the shard."""

    begin: bytes
    end: bytes | None


@dataclass(frozen=True, slots=True)
class FoundStateHeader:
    """A shard's state header, or why there is none."""

    data: bytes | None
    origin: HeaderOrigin | None = None
    """None without a header."""
    reason: str = ""
    """Why there is none; empty with a header."""
    is_verified: bool = False
    """Whether the source has verified all of it against the blocks: only then may a statement name it."""

    @property
    def verified_sha256(self) -> str | None:
        """SHA-256 of the header in hexadecimal where it was verified; else None."""
        return hashlib.sha256(self.data).hexdigest() if self.data is not None and self.is_verified else None


NO_STATE_HEADER: Final = FoundStateHeader(None, reason="the source has none")


class FlatStateSource(Protocol):
    """The flat state of an epoch's shards at the blocks that their state roots belong to.

    A source is a frozen, picklable value: each process that uses it opens its own handles, lazily. It never creates, changes or
    locks anything in the place that it reads.
    """

    @property
    def on_node_disk(self) -> bool:
        """Only where the node's disk is can this be read (export tasks then ask for the ``node_disk`` resource)."""
        ...

    def describe(self) -> str:
        """Return what is read and from where, in one line for people."""
        ...

    def fingerprint(self, shard: ShardContext) -> str:
        """Return a short text that changes when the records could: an export under another fingerprint is not reused.

        Raises:
            SourceError: the source can't be read.
        """
        ...

    def key_ranges(self, shard: ShardContext, range_bytes_target: int) -> tuple[KeyRange, ...]:
        """Split a shard into adjacent key ranges of about ``range_bytes_target`` stored bytes, covering all keys.

        Raises:
            SourceError: a column is missing, the flat storage is not ready or stands at the wrong block.
        """
        ...

    def records(self, shard: ShardContext, key_range: KeyRange, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield the records of a key range as ``RECORD_SCHEMA`` batches, ascending, each of about ``record_batch_bytes_max`` bytes
        at most (one row may exceed it). Values of at most 4000 bytes are inlined, longer ones are references.

        Raises:
            SourceError: the source can't be read, or changed while it was read.
            IntegrityError: a row can't be decoded.
        """
        ...

    def values(self, shard: ShardContext, value_hashes: Sequence[bytes], record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield referenced values as ``VALUE_SCHEMA`` batches in the order asked for.

        Args:
            value_hashes: unique, in any order.
        Raises:
            ValueMismatchError: a value is missing or does not hash.
        """
        ...

    def state_header(self, shard: ShardContext, sync_hash: bytes) -> FoundStateHeader:
        """Return the shard's state header, copied or computed; else say why there is none.

        Raises:
            SourceError: the source can't be opened.
        """
        ...

    def root_memory_usage(self, shard: ShardContext) -> int | None:
        """Return the memory usage in the state root's node where it can be had without reading the shard; checked by hash."""
        ...


@runtime_checkable
class StateHeaderVerifier(Protocol):
    """A source that can verify state headers."""

    def verify_state_header(self, shard: ShardContext, sync_hash: bytes, header: bytes) -> None:
        """Verify all of a header of this shard, whatever its origin.

        Raises:
            InvalidInputError: the native wheel is not installed.
            SourceError: the source lacks a row, or can't be read.
            IntegrityError: it is not the header of this shard at this block.
        """
        ...


@runtime_checkable
class ShapeSource(Protocol):
    """A source that gives keys and value lengths at less cost than whole records."""

    def shapes(self, shard: ShardContext, key_range: KeyRange, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield the columns ``key`` and ``value_length`` of `FlatStateSource.records`; batches need not end where those end.

        Raises:
            SourceError, IntegrityError: as there.
        """
        ...


@runtime_checkable
class TrieSource(Protocol):
    """A source that has the shards' trie nodes by hash as well: then parts need not wait for the shard's root."""

    def state_column(self, shard: ShardContext) -> StateColumnPlace:
        """Say where the shard's trie nodes are."""
        ...
