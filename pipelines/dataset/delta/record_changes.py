"""Changed records in both their forms: rows of a delta, and a dataset's record batches in which a gone key has neither value nor hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dataset.delta.shard_records import ReadValues
from pipelines.dataset.roll_forward.merge_changes import cut_to_range
from pipelines.near.node.flat_state_source import KeyRange
from schemas.dataset.flat_state import RECORD_SCHEMA, VALUE_SCHEMA
from schemas.errors import ValueMismatchError
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX
from schemas.published.delta_object import Row
from schemas.published.delta_statement import BaseRange


@dataclass(frozen=True, slots=True)
class RecordChanges:
    """Changed records of a key range, as `pipelines.dataset.roll_forward.merge_changes` takes them, and the values that they refer to."""

    records: tuple[pa.RecordBatch, ...]
    values: tuple[pa.RecordBatch, ...]


def find_changes(older: Sequence[pa.RecordBatch], newer: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return what makes newer records of older ones, ascending by key.

    A value and a reference to the same value are no change: a node keeps some short values as references.

    Args:
        older, newer: of ``RECORD_SCHEMA``, ascending by key.
    """
    before, after = _table(older), _table(newer)
    place = pc.index_in(after["key"], value_set=before["key"])
    changed = after.filter(pc.invert(_same(after, before.take(place))))
    gone = before["key"].filter(pc.invert(pc.is_in(before["key"], value_set=after["key"])))
    nothing = [pa.nulls(len(gone), pa.binary()), pa.repeat(pa.scalar(0, pa.uint32()), len(gone)), pa.nulls(len(gone), pa.binary(32))]
    both = pa.concat_tables([changed, pa.table([gone, *nothing], schema=RECORD_SCHEMA)])
    return _single(both.take(pc.sort_indices(both["key"])))


def _same(after: pa.Table, before: pa.Table) -> pa.Array:
    """Tell row by row whether two records have the same value; a row of nulls is one that was not there."""
    lengths = pc.fill_null(pc.equal(after["value_length"], before["value_length"]), False)
    values = pc.fill_null(pc.equal(after["value"], before["value"]), False)
    hashes = pc.fill_null(pc.equal(after["value_hash"], before["value_hash"]), False)
    same = pc.and_(lengths, pc.or_(values, hashes)).combine_chunks()
    # One of the two is a value, the other a reference: few rows, if any.
    mixed = pc.and_(lengths, pc.xor(pc.is_valid(after["value"]), pc.is_valid(before["value"])))
    rows = pc.indices_nonzero(mixed).to_pylist()
    if not rows:
        return same
    decided = same.to_pylist()
    for row in rows:
        decided[row] = _hash_at(after, row) == _hash_at(before, row)
    return pa.array(decided, pa.bool_())


def _hash_at(table: pa.Table, row: int) -> bytes:
    value = table["value"][row].as_py()
    return bytes(table["value_hash"][row].as_py()) if value is None else hashlib.sha256(value).digest()


def rows_of(changes: pa.RecordBatch, read_values: ReadValues) -> Iterator[Row]:
    """Yield changed records as rows of a delta, each with its whole value.

    Raises:
        ValueMismatchError: a value that a record refers to is not there, or is another.
    """
    referring = changes.filter(pc.and_(pc.is_null(changes["value"]), pc.is_valid(changes["value_hash"])))
    found = {} if not referring.num_rows else _by_hash(read_values([referring]))
    for key, value, value_hash in zip(*(changes[name].to_pylist() for name in ("key", "value", "value_hash")), strict=True):
        whole = found.get(value_hash) if value is None and value_hash is not None else value
        if value is None and value_hash is not None and (whole is None or hashlib.sha256(whole).digest() != value_hash):
            raise ValueMismatchError(
                problem=f"the value {value_hash.hex()} is not there, or does not hash to it", where=f"trie key {key.hex()}"
            )
        yield key, whole


def changes_of(batches: Sequence[pa.RecordBatch]) -> RecordChanges:
    """Return the changes that rows of a delta say.

    Args:
        batches: of ``DELTA_SCHEMA``, ascending by key.
    """
    return RecordChanges(*zip(*map(_changes_of_batch, batches), strict=True)) if batches else RecordChanges((), ())


def _changes_of_batch(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    values = batch["value"]
    lengths = pc.fill_null(pc.binary_length(values), 0)
    is_long = pc.greater(lengths, INLINED_VALUE_BYTES_MAX)
    longer = values.filter(is_long).to_pylist()
    hashes = [hashlib.sha256(value).digest() for value in longer]
    following = iter(hashes)
    listed = [next(following) if long else None for long in is_long.to_pylist()] if hashes else None
    records = pa.RecordBatch.from_arrays(
        [
            batch["key"],
            pc.if_else(is_long, pa.scalar(None, pa.binary()), values) if hashes else values,
            pc.cast(lengths, pa.uint32()),
            pa.nulls(batch.num_rows, pa.binary(32)) if listed is None else pa.array(listed, pa.binary(32)),
        ],
        schema=RECORD_SCHEMA,
    )
    return records, pa.RecordBatch.from_arrays([pa.array(hashes, pa.binary(32)), pa.array(longer, pa.binary())], schema=VALUE_SCHEMA)


def within_ranges(records: Sequence[pa.RecordBatch], ranges: Sequence[BaseRange]) -> list[pa.RecordBatch]:
    """Return the records whose keys lie in one of some key ranges."""
    # Of adjacent ranges, and records in order, the pieces are in order too.
    cut = [cut_to_range(batch, "key", KeyRange(one.begin, one.end)) for batch in records for one in ranges]
    return [batch for batch in cut if batch.num_rows]


def _by_hash(values: Sequence[pa.RecordBatch]) -> dict[bytes, bytes]:
    return {
        value_hash: value for batch in values for value_hash, value in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    }


def _table(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    plain = [batch.replace_schema_metadata(None) for batch in batches]
    return pa.Table.from_batches(plain, RECORD_SCHEMA).combine_chunks()


def _single(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], RECORD_SCHEMA)
