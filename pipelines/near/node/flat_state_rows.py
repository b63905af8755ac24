"""Rows of the FlatState column become record batches of bounded size: in native code, where each byte is copied once, or in numpy.

Both give the same batches. What a row is, and what is refused, is said in `schemas.dataset.flat_state_value`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from pipelines.kernel.native import is_available, native_errors
from pipelines.near.node.rocksdb_reader import Row
from pipelines.near.record_batches import bounded
from schemas.dataset.flat_state_value import decode_records
from schemas.errors import InvalidInputError


def decode_rows(steps: Iterable[list[Row]], prefix_bytes: int, record_batch_bytes_max: int, where: str) -> Iterator[pa.RecordBatch]:
    """Yield rows as ``RECORD_SCHEMA`` batches that `bounded` would leave as they are, in the rows' order.

    Args:
        steps: rows as a scan yields them; no step is empty.
        prefix_bytes: how many leading bytes of a key are not part of the trie key.
        where: the column and database, for errors.
    Raises:
        IntegrityError: a row is no FlatStateValue within its limits.
    """
    if is_available():
        return _natively(steps, prefix_bytes, record_batch_bytes_max, where)
    return bounded((_decoded(step, prefix_bytes, where) for step in steps), record_batch_bytes_max)


def _natively(steps: Iterable[list[Row]], prefix_bytes: int, record_batch_bytes_max: int, where: str) -> Iterator[pa.RecordBatch]:
    with native_errors():
        import statecast_kernel

        batches = statecast_kernel.FlatStateBatches(prefix_bytes, record_batch_bytes_max)
    for step in steps:
        try:
            with native_errors():
                full = batches.append(step)
        except InvalidInputError:
            # The other way names the row.
            _decoded(step, prefix_bytes, where)
            raise
        yield from full
    if (last := batches.finish()) is not None:
        yield last


def _decoded(step: list[Row], prefix_bytes: int, where: str) -> pa.RecordBatch:
    keys, rows = zip(*step, strict=True)
    return decode_records(keys, rows, prefix_bytes, where)
