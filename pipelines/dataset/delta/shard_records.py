"""A shard's records by key ranges, wherever they are: what a delta is made of and applied to."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import pyarrow as pa

from pipelines.dataset.arrow_dataset import DatasetReference, read_dataset
from pipelines.dataset.roll_forward.merge_changes import changes_within
from pipelines.near.node.flat_state_source import KeyRange

ReadValues = Callable[[Sequence[pa.RecordBatch]], list[pa.RecordBatch]]
"""Reads the values that some records refer to, as ``VALUE_SCHEMA``; raises ValueMismatchError where one is not there."""


@dataclass(frozen=True, slots=True)
class RangeRecords:
    """The records of a key range."""

    records: tuple[pa.RecordBatch, ...]
    """Of ``RECORD_SCHEMA``, ascending by key; none is empty."""
    read_values: ReadValues
    """Of any of them."""


class ShardRecords(Protocol):
    """One shard's records at one state: a frozen, picklable value that opens what it reads where it is read."""

    def begins(self) -> tuple[bytes, ...]:
        """Return where the pieces begin that are best read one at a time, ascending; the first is the empty key."""
        ...

    def read(self, key_range: KeyRange) -> RangeRecords:
        """Read the records of a key range.

        Raises:
            SourceError, StoreError, IntegrityError: something can't be read, or is not what it should be.
        """
        ...

    def content_of(self, key_range: KeyRange) -> str | None:
        """Return a text that two states have in common only where their records in the range are the same; None where that takes reading."""
        ...


@dataclass(frozen=True, slots=True)
class RecordsInDataset:
    """The records of a dataset."""

    dataset: DatasetReference

    def begins(self) -> tuple[bytes, ...]:
        """See `ShardRecords.begins`: a piece a file."""
        return (b"", *(file.first_key for file in read_dataset(self.dataset).summary.files[1:]))

    def read(self, key_range: KeyRange) -> RangeRecords:
        """See `ShardRecords.read`."""
        dataset = read_dataset(self.dataset)
        return RangeRecords(tuple(changes_within(dataset, key_range)), dataset.read_values)

    def content_of(self, key_range: KeyRange) -> str | None:
        """See `ShardRecords.content_of`: the digests of files that lie in the range whole and hold all of it."""
        digests = []
        for file in read_dataset(self.dataset).summary.files:
            if file.last_key < key_range.begin or (key_range.end is not None and file.first_key >= key_range.end):
                continue
            if file.first_key < key_range.begin or (key_range.end is not None and file.last_key >= key_range.end):
                return None
            digests.append(file.sha256)
        return " ".join(digests)


def pieces_of(records: ShardRecords) -> list[KeyRange]:
    """Return the key ranges of a shard's pieces, covering all keys."""
    return [KeyRange(begin, end) for begin, end in pairwise([*records.begins(), None]) if begin is not None]


def last_key_before(records: ShardRecords, key: bytes) -> bytes | None:
    """Return the last key of a shard before another; None where there is none.

    Raises:
        SourceError, StoreError, IntegrityError: as `ShardRecords.read`.
    """
    end = key
    for begin in _begins_before(records, key):
        found = records.read(KeyRange(begin, end)).records
        if found:
            return bytes(found[-1]["key"][found[-1].num_rows - 1].as_py())
        end = begin
    return None


def _begins_before(records: ShardRecords, key: bytes) -> Iterator[bytes]:
    begins = records.begins()
    return reversed(begins[: bisect_left(begins, key)])
