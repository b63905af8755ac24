"""Records of an older state and what has changed since, merged.

Changes are kept in a dataset's own form: a record with neither value nor value_hash is a key that is gone. Nothing here reads a node.

Each record's value stays where a reader looks for it: beside its key, or among the shared values. Which older records refer to a value is not
known here, so a value of a changed record and of an older one may be stored beside both.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.near.node.flat_state_source import KeyRange
from schemas.dataset.flat_state import RECORD_SCHEMA


@dataclass(frozen=True, slots=True)
class FileSlots:
    """Which file of an older dataset a key or a value's hash belongs to; an older dataset without files has one slot anyway."""

    starts: tuple[bytes, ...]
    """Where each slot but the first begins."""

    @classmethod
    def of_records(cls, dataset: ShardDataset) -> FileSlots:
        """Return the slots of a dataset's files of records."""
        return cls(tuple(file.first_key for file in dataset.summary.files[1:]))

    @classmethod
    def of_own_values(cls, dataset: ShardDataset) -> FileSlots:
        """Return the slots of a dataset's files of own values, by key."""
        return cls(tuple(file.batch_starts[0] for file in dataset.summary.values_files[1:]))

    @classmethod
    def of_shared_values(cls, dataset: ShardDataset) -> FileSlots:
        """Return the slots of a dataset's files of shared values, by hash."""
        return cls(tuple(file.batch_starts[0] for file in dataset.summary.shared_values_files[1:]))

    def __len__(self) -> int:
        return len(self.starts) + 1

    def index(self, key: bytes) -> int:
        """Return the slot of a key or hash."""
        return bisect_right(self.starts, key)

    def key_range(self, index: int) -> KeyRange:
        """Return the keys or hashes of a slot."""
        return KeyRange(self.starts[index - 1] if index else b"", self.starts[index] if index < len(self.starts) else None)


def merge_records(records: Sequence[pa.RecordBatch], changes: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Return records with changes applied, ascending by key; a changed key has its new record, one that is gone has none."""
    older = pa.Table.from_batches(records, RECORD_SCHEMA)
    newer = pa.Table.from_batches(changes, RECORD_SCHEMA).combine_chunks()
    kept = older.filter(pc.invert(pc.is_in(older["key"], value_set=newer["key"].combine_chunks())))
    there = newer.filter(pc.or_(pc.is_valid(newer["value"]), pc.is_valid(newer["value_hash"])))
    return _sorted(pa.concat_tables([kept, there]), "key")


def merge_own_values(values: Iterable[pa.RecordBatch], changed_keys: pa.Array, more: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield own values without those of changed keys, and with new ones; ascending by key, a row a record batch.

    Args:
        values: of ``OWN_VALUE_SCHEMA``, ascending.
        more: own values of some changed keys, in the same way. Read as far as rows are taken: keys that change together may lie together.
    """
    kept = (batch.filter(pc.invert(pc.is_in(batch["key"], value_set=changed_keys))) for batch in values)
    return _merged(kept, more, "key")


def merge_shared_values(values: Sequence[pa.RecordBatch], more: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield shared values of both, each once, ascending by hash, a row a record batch."""
    known = pa.array([value_hash for batch in values for value_hash in batch["value_hash"].to_pylist()], pa.binary(32))
    fresh = (batch.filter(pc.invert(pc.is_in(batch["value_hash"], value_set=known))) for batch in more)
    return _merged(values, fresh, "value_hash")


def changes_within(changes: ShardDataset, key_range: KeyRange, columns: Sequence[str] | None = None) -> list[pa.RecordBatch]:
    """Read the changes of a key range.

    Args:
        columns: of ``RECORD_SCHEMA``, the key among them; all by default.

    Raises:
        DatasetError: a file is missing or truncated.
    """
    found: list[pa.RecordBatch] = []
    for index, file in enumerate(changes.summary.files):
        if file.last_key >= key_range.begin and (key_range.end is None or file.first_key < key_range.end):
            found += (cut_to_range(batch, "key", key_range) for batch in changes.read_file(index, columns))
    return [batch.replace_schema_metadata(None) for batch in found if batch.num_rows]


def changed_keys_within(changes: ShardDataset, key_range: KeyRange) -> pa.Array:
    """Read the changed keys of a key range.

    Raises:
        DatasetError: a file is missing or truncated.
    """
    batches = changes_within(changes, key_range, ("key",))
    return pa.concat_arrays([pa.array([], pa.binary()), *(batch["key"] for batch in batches)])


def own_values_within(changes: ShardDataset, key_range: KeyRange) -> Iterator[pa.RecordBatch]:
    """Yield the changes' own values of a key range.

    Raises:
        DatasetError: a file is missing or truncated.
    """
    slots = FileSlots.of_own_values(changes)
    for index in range(len(changes.summary.values_files)):
        if _meet(slots.key_range(index), key_range):
            yield from (cut_to_range(batch, "key", key_range) for batch in changes.read_own_values_file(index))


def shared_values_within(changes: ShardDataset, hash_range: KeyRange) -> Iterator[pa.RecordBatch]:
    """Yield the changes' shared values whose hashes lie in a range.

    Raises:
        DatasetError: a file is missing or truncated.
    """
    slots = FileSlots.of_shared_values(changes)
    for index in range(len(changes.summary.shared_values_files)):
        if _meet(slots.key_range(index), hash_range):
            yield from (cut_to_range(batch, "value_hash", hash_range) for batch in changes.read_shared_values_file(index))


def _merged(some: Iterable[pa.RecordBatch], others: Iterable[pa.RecordBatch], column: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of two ascending runs, ascending by a column."""
    return (row for _, row in heapq.merge(_rows(some, column), _rows(others, column), key=itemgetter(0)))


def _rows(batches: Iterable[pa.RecordBatch], column: str) -> Iterator[tuple[bytes, pa.RecordBatch]]:
    for batch in batches:
        yield from ((key, batch.slice(row, 1)) for row, key in enumerate(batch[column].to_pylist()))


def _meet(one: KeyRange, other: KeyRange) -> bool:
    return (one.end is None or one.end > other.begin) and (other.end is None or other.end > one.begin)


def cut_to_range(batch: pa.RecordBatch, column: str, key_range: KeyRange) -> pa.RecordBatch:
    """Return the rows of which a column, of keys or hashes, lies in a range."""
    keys = batch[column].cast(pa.binary())
    inside = pc.greater_equal(keys, pa.scalar(key_range.begin, pa.binary()))
    if key_range.end is not None:
        inside = pc.and_(inside, pc.less(keys, pa.scalar(key_range.end, pa.binary())))
    return batch.filter(inside)


def _sorted(table: pa.Table, column: str) -> list[pa.RecordBatch]:
    order = pc.sort_indices(table[column].cast(pa.binary()))
    batches: list[pa.RecordBatch] = table.take(order).combine_chunks().to_batches()
    return [batch for batch in batches if batch.num_rows]
