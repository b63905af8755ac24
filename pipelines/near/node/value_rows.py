"""Referenced values of the State column become record batches of bounded size: in native code, where each byte is copied once, or in Python.

Both give the same batches, and each value is believed by its hash alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from pipelines.kernel.native import is_available, native_errors
from pipelines.near.node.counted_value import find_payload
from pipelines.near.node.rocksdb_reader import MERGE_DELIMITER
from pipelines.near.node.state_column import COUNT_BYTES, StateColumn
from pipelines.near.record_batches import bounded
from schemas.dataset.flat_state import VALUE_SCHEMA
from schemas.errors import ValueMismatchError

_STEP_BYTES = 1 << 20
"""Values are handed on in batches of this many bytes: a batch a value costs more than the value's read."""


def read_column_values(column: StateColumn, value_hashes: Sequence[bytes], record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
    """Yield values as ``VALUE_SCHEMA`` batches that `bounded` would leave as they are, in the order asked for.

    Raises:
        ValueMismatchError: a value is missing or does not hash.
        SourceError: a database is damaged.
    """
    if is_available():
        return _natively(column, value_hashes, record_batch_bytes_max)
    return bounded(_steps(column, value_hashes), record_batch_bytes_max)


def read_column_value(column: StateColumn, value_hash: bytes) -> bytes:
    """Return one value.

    Raises:
        As `read_column_values`.
    """
    value = column.read([value_hash])[0]
    if value is None:
        raise _missing(column, value_hash)
    return value


def _natively(column: StateColumn, value_hashes: Sequence[bytes], record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
    with native_errors():
        import statecast_kernel

        batches = statecast_kernel.ValueBatches(record_batch_bytes_max)
    for value_hash in value_hashes:
        for row in column.rows(value_hash):
            taken, full = batches.append(value_hash, row)
            if not taken and (payload := find_payload(row, value_hash, MERGE_DELIMITER)) is not None:
                taken, full = batches.append(value_hash, payload + bytes(COUNT_BYTES))
            if full is not None:
                yield full
            if taken:
                break
        else:
            raise _missing(column, value_hash)
    if (last := batches.finish()) is not None:
        yield last


def _steps(column: StateColumn, value_hashes: Sequence[bytes]) -> Iterator[pa.RecordBatch]:
    hashes: list[bytes] = []
    values: list[bytes] = []
    size = 0
    for value_hash in value_hashes:
        hashes.append(value_hash)
        values.append(read_column_value(column, value_hash))
        size += len(values[-1])
        if size >= _STEP_BYTES:
            yield _batch(hashes, values)
            hashes, values, size = [], [], 0
    if hashes:
        yield _batch(hashes, values)


def _batch(hashes: list[bytes], values: list[bytes]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(hashes, pa.binary(32)), pa.array(values, pa.binary())], schema=VALUE_SCHEMA)


def _missing(column: StateColumn, value_hash: bytes) -> ValueMismatchError:
    return ValueMismatchError(
        problem=f"the value {value_hash.hex()} {column.explain(value_hash)}",
        where=column.where,
        remedy="The node no longer keeps this state, or its database is damaged; take a node that has it.",
    )
