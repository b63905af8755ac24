"""Record batches of bounded size out of ones of any size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa


def bounded(batches: Iterable[pa.RecordBatch], record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
    """Join and cut record batches so that each has about ``record_batch_bytes_max`` bytes at most; one row may exceed it.

    The order of rows is kept, and no batch is empty. Only binary columns and 40 bytes a row for all else are counted.
    """
    pending: list[pa.RecordBatch] = []
    pending_bytes = 0
    for batch in batches:
        ends = _row_ends(batch)
        start = 0
        while start < batch.num_rows:
            before = int(ends[start - 1]) if start else 0
            # All rows that still fit, or a single one when nothing else is pending.
            stop = int(np.searchsorted(ends, before + record_batch_bytes_max - pending_bytes, side="right"))
            if stop <= start and not pending:
                stop = start + 1
            if stop > start:
                pending.append(batch.slice(start, stop - start))
                pending_bytes += int(ends[stop - 1]) - before
                start = stop
            if start < batch.num_rows:
                yield pa.concat_batches(pending)
                pending, pending_bytes = [], 0
    if pending:
        yield pa.concat_batches(pending)


def _row_ends(batch: pa.RecordBatch) -> np.ndarray:
    """Return the bytes of the rows up to and including each."""
    ends = np.arange(1, batch.num_rows + 1, dtype=np.int64) * _FIXED_BYTES
    for column in batch.columns:
        if pa.types.is_binary(column.type):
            offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + batch.num_rows + 1].astype(np.int64)
            ends += offsets[1:] - offsets[0]
    return ends


_FIXED_BYTES = 40
