"""Which records refer to values, and to which of these several do.

An export task leaves its range's references; tasks over intervals of hashes then bring all ranges' references together and leave what is
shared. No value is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dataset.dataset_files import naming_damage, read_table
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from schemas.dataset.dataset_summary import shard_folder
from schemas.errors import DatasetError, ValueMismatchError
from schemas.nearcore.epoch_context import EpochContext

REFERENCE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.binary(), nullable=False),
        pa.field("value_length", pa.uint32(), nullable=False),
        pa.field("value_hash", pa.binary(32), nullable=False),
    ]
)
"""A record that refers to a value; ascending by key."""

SHARED_SCHEMA = pa.schema([pa.field("value_hash", pa.binary(32), nullable=False), pa.field("value_length", pa.uint32(), nullable=False)])
"""A value to which several records refer; ascending by hash."""

_ROWS_SCHEMA = pa.schema([pa.field("row", pa.uint32(), nullable=False)])


def references_in(batch: pa.RecordBatch) -> pa.RecordBatch | None:
    """Return a batch's records that refer to a value, as ``REFERENCE_SCHEMA``; None where none does."""
    if batch.column("value_hash").null_count == batch.num_rows:
        return None
    referring = batch.filter(batch.column("value_hash").is_valid())
    return pa.RecordBatch.from_arrays([referring.column(name) for name in REFERENCE_SCHEMA.names], schema=REFERENCE_SCHEMA)


def put_references(store: Store, folder: str, range_index: int, references: Sequence[pa.RecordBatch]) -> None:
    """Leave a range's references.

    Args:
        folder: the shard's.
        references: ascending by key.
    """
    _put(store, _references_name(folder, range_index), REFERENCE_SCHEMA, [pa.concat_batches(references)] if references else [])


def read_references(store: Store, folder: str, range_index: int) -> pa.Table:
    """Read a range's references: a table of ``REFERENCE_SCHEMA``, ascending by key.

    Raises:
        DatasetError: the file is missing, or cut or changed.
    """
    return read_table(store, _references_name(folder, range_index), REFERENCE_SCHEMA)


def has_references(store: Store, folder: str, range_index: int, count: int) -> bool:
    """Return whether a range's references are there, as many as its summary says; reads them."""
    try:
        return bool(read_references(store, folder, range_index).num_rows == count)
    except DatasetError:
        return False


@dataclass(frozen=True, slots=True)
class SharedReferences:
    """What one task found."""

    interval: int
    values: int
    """Different values to which several records refer."""
    value_bytes: int
    """Sum of their lengths."""
    range_bytes: tuple[int, ...]
    """For each range, the sum of the lengths of the shared values that its records refer to, each as often as they do."""


@dataclass(frozen=True, slots=True)
class FindSharedTask:
    """Finds the shared values among those whose hashes begin in one interval."""

    dataset_url: str
    context: EpochContext
    """Of this shard alone."""
    range_bytes: tuple[int, ...]
    """For each range, the sum of all lengths that its records refer to; where it is 0 nothing is read."""
    interval: int
    interval_count: int

    def run(self) -> SharedReferences:
        """Leave the shared values of the interval, and which rows of each range's references are theirs, if there are any.

        Raises:
            ValueMismatchError: records give one hash two lengths.
            DatasetError, StoreError: passed on.
        """
        store = open_store(self.dataset_url)
        folder = shard_folder(self.context, self.context.shards[0].shard_uid)
        found = _several(pa.concat_tables([self._of_range(store, folder, index) for index, size in enumerate(self.range_bytes) if size]))
        self._check_lengths(found)
        ranges, lengths = (found[name].to_numpy() for name in ("range", "value_length"))
        sizes = np.zeros(len(self.range_bytes), np.int64)
        np.add.at(sizes, ranges, lengths)
        values = found.filter(_firsts(found)).select(SHARED_SCHEMA.names)
        if values.num_rows:
            _put(store, _shared_name(folder, self.interval), SHARED_SCHEMA, values.cast(SHARED_SCHEMA).combine_chunks().to_batches())
            _put(store, _rows_name(folder, self.interval), _ROWS_SCHEMA, _rows_by_range(found, len(self.range_bytes)))
        return SharedReferences(self.interval, values.num_rows, pc.sum(values["value_length"]).as_py() or 0, tuple(sizes.tolist()))

    def _of_range(self, store: Store, folder: str, range_index: int) -> pa.Table:
        """Return a range's references whose hashes begin in the interval, with their range and row; hashes as binary, to be sorted."""
        table = read_references(store, folder, range_index)
        hashes = table["value_hash"].cast(pa.binary())
        rows = pa.array(range(table.num_rows), pa.uint32())
        ranges = pa.repeat(pa.scalar(range_index, pa.uint32()), table.num_rows)
        table = pa.table({"value_hash": hashes, "value_length": table["value_length"], "range": ranges, "row": rows})
        if self.interval_count == 1:
            return table
        first, end = (_interval_begin(number, self.interval_count) for number in (self.interval, self.interval + 1))
        inside = pc.greater_equal(table["value_hash"], first)
        return table.filter(inside if self.interval + 1 == self.interval_count else pc.and_(inside, pc.less(table["value_hash"], end)))

    def _check_lengths(self, found: pa.Table) -> None:
        """Check shared references, which are sorted by hash."""
        if not found.num_rows:
            return
        hashes, lengths = found["value_hash"], found["value_length"]
        differs = pc.and_(pc.equal(hashes[1:], hashes[:-1]), pc.not_equal(lengths[1:], lengths[:-1]))
        if (row := pc.index(differs, True).as_py()) >= 0:
            raise ValueMismatchError(
                problem=f"records give the value {hashes[row].as_py().hex()} two lengths", where=f"shard {self.context.shards[0].shard_uid}"
            )


def _interval_begin(number: int, count: int) -> pa.Scalar:
    return pa.scalar((-(-(number << 16) // count)).to_bytes(3, "big")[1:], pa.binary())


def _several(references: pa.Table) -> pa.Table:
    """Return the references whose hash stands several times, sorted by hash, range and row."""
    order = pc.sort_indices(references, sort_keys=[("value_hash", "ascending"), ("range", "ascending"), ("row", "ascending")])
    ordered = references.take(order).combine_chunks()
    if ordered.num_rows < 2:
        return ordered.slice(0, 0)
    hashes = ordered["value_hash"].combine_chunks()
    like_next = pc.equal(hashes[:-1], hashes[1:])
    none = pa.array([False])
    like_other = pc.or_(pa.concat_arrays([like_next, none]), pa.concat_arrays([none, like_next]))
    return ordered.filter(like_other)


def _firsts(found: pa.Table) -> pa.Array:
    """Return a mask of the first of each run of equal hashes."""
    if not found.num_rows:
        return pa.array([], pa.bool_())
    hashes = found["value_hash"].combine_chunks()
    return pa.concat_arrays([pa.array([True]), pc.not_equal(hashes[1:], hashes[:-1])])


def _rows_by_range(found: pa.Table, range_count: int) -> list[pa.RecordBatch]:
    """Return a record batch of row numbers for each range, ascending."""
    ordered = found.select(["range", "row"]).sort_by([("range", "ascending"), ("row", "ascending")])
    ranges = ordered["range"].to_numpy()
    rows = ordered["row"].combine_chunks()
    ends = [int(end) for end in ranges.searchsorted(range(range_count), side="right")]
    begins = [0, *ends[:-1]]
    return [pa.record_batch([rows[begin:end]], schema=_ROWS_SCHEMA) for begin, end in zip(begins, ends, strict=True)]


def read_shared(store: Store, folder: str, interval: int) -> pa.Table:
    """Read the shared values of an interval: a table of ``SHARED_SCHEMA``, ascending by hash.

    Raises:
        DatasetError: the file is missing, or cut or changed.
    """
    return read_table(store, _shared_name(folder, interval), SHARED_SCHEMA)


def read_own_references(store: Store, folder: str, range_index: int, intervals: Sequence[int]) -> pa.Table:
    """Read a range's references but those to shared values.

    Args:
        intervals: in which the range refers to shared values.
    Raises:
        DatasetError: a file is missing, or cut or changed.
    """
    references = read_references(store, folder, range_index)
    own = [True] * references.num_rows
    for interval in intervals:
        name = _rows_name(folder, interval)
        with naming_damage(f"{store.url}/{name}"), store.open(name) as source:
            for row in pa.ipc.open_file(source).get_batch(range_index).column(0).to_pylist():
                own[row] = False
    return references.filter(pa.array(own, pa.bool_()))


def _references_name(folder: str, range_index: int) -> str:
    return f"{folder}/ranges/range-{range_index:06d}.references.arrow"


def _shared_name(folder: str, interval: int) -> str:
    return f"{folder}/ranges/shared-{interval:04d}.arrow"


def _rows_name(folder: str, interval: int) -> str:
    return f"{folder}/ranges/shared-{interval:04d}.rows.arrow"


def _put(store: Store, name: str, schema: pa.Schema, batches: Sequence[pa.RecordBatch]) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    store.put(name, sink.getvalue())
