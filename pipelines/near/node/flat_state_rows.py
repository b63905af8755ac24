"""Rows of the FlatState column become record batches of bounded size: in native code, where each byte is copied once, or in numpy.

Both give the same batches. What a row is, and what is refused, is said in `schemas.dataset.flat_state_value`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.kernel.native import is_available, native_errors
from pipelines.near.node.node_columns import FLAT_STATE
from pipelines.near.node.rocksdb_reader import RocksDbReader, Row
from pipelines.near.record_batches import bounded
from schemas.dataset.flat_state_value import decode_records
from schemas.errors import InvalidInputError

if TYPE_CHECKING:
    from statecast_kernel import FlatStateBatches

SHAPE_COLUMNS = ("key", "value_length")
"""What the structure of a trie is computed from."""


def scan_rows(
    reader: RocksDbReader,
    begin: bytes,
    end: bytes | None,
    *,
    prefix_bytes: int,
    record_batch_bytes_max: int,
    where: str,
    readahead_bytes: int,
    with_values: bool = True,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows with begin <= key < end as `decode_rows` does; in native code straight from the cursor.

    Args:
        begin, end: with the leading bytes that are not part of the trie key; ``prefix_bytes`` says how many.
        readahead_bytes: how far the database reads ahead.
    Raises:
        SourceError: a file of the database is damaged.
        IntegrityError: a row is no FlatStateValue within its limits.
    """
    if not is_available():
        steps = reader.scan(FLAT_STATE, begin, end, readahead_bytes)
        return decode_rows(steps, prefix_bytes, record_batch_bytes_max, where, with_values=with_values)
    batches = _batches(prefix_bytes, record_batch_bytes_max, with_values)

    def take(rows: Iterator[Row]) -> tuple[pa.RecordBatch, bytes] | None:
        batch = _take(batches, rows, prefix_bytes, where)
        return None if batch is None or batches.last is None else (batch, batches.last[0])

    return reader.scan_by(FLAT_STATE, begin, end, take, readahead_bytes)


def decode_rows(
    steps: Iterable[list[Row]], prefix_bytes: int, record_batch_bytes_max: int, where: str, *, with_values: bool = True
) -> Iterator[pa.RecordBatch]:
    """Yield rows as ``RECORD_SCHEMA`` batches that `bounded` would leave as they are, in the rows' order.

    Args:
        steps: rows as a scan yields them; no step is empty.
        prefix_bytes: how many leading bytes of a key are not part of the trie key.
        where: the column and database, for errors.
        with_values: False for ``SHAPE_COLUMNS`` alone, where values neither are in the batches nor count for their size.
    Raises:
        IntegrityError: a row is no FlatStateValue within its limits.
    """
    if not is_available():
        decoded = (_decoded(step, prefix_bytes, where) for step in steps)
        return bounded(decoded if with_values else (batch.select(SHAPE_COLUMNS) for batch in decoded), record_batch_bytes_max)
    batches, rows = _batches(prefix_bytes, record_batch_bytes_max, with_values), itertools.chain.from_iterable(steps)
    return iter(lambda: _take(batches, rows, prefix_bytes, where), None)


def _batches(prefix_bytes: int, record_batch_bytes_max: int, with_values: bool) -> FlatStateBatches:
    with native_errors():
        import statecast_kernel

        return statecast_kernel.FlatStateBatches(prefix_bytes, record_batch_bytes_max, with_values)


def _take(batches: FlatStateBatches, rows: Iterator[Row], prefix_bytes: int, where: str) -> pa.RecordBatch | None:
    try:
        with native_errors():
            return batches.take(rows)
    except InvalidInputError:
        # The other way names the row.
        if batches.last is not None:
            _decoded([batches.last], prefix_bytes, where)
        raise


def _decoded(step: list[Row], prefix_bytes: int, where: str) -> pa.RecordBatch:
    keys, rows = zip(*step, strict=True)
    return decode_records(keys, rows, prefix_bytes, where)
