"""Record batches of flat state with keys and values taken apart, many rows at once.

Where the native kernel is installed, accounts, access keys of ed25519 and contract data, which are nearly all of a chain's records, are decoded by
column. Every row that is not of the usual form, whatever is wrong or rare about it, and without the kernel every row, goes through
`schemas.dataset.decoded_record.decode_record`; both give the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dataset.tables.native_rows import FastRows, Ints, native_rows
from pipelines.kernel.native import is_available
from schemas.dataset.decoded_record import DECODED_SCHEMA, LONG_VALUE_KINDS, columns_of, decode_record
from schemas.errors import DatasetError, MalformedValueError
from schemas.nearcore.trie_key import KINDS_BY_FIRST_BYTE, TrieKeyKind

DECODED_ROWS_MAX: Final = 16384
"""Rows of a decoded record batch; bounds the temporary columns of indices, and keeps them in the processor's cache."""

LOOKED_UP_BYTES_MAX: Final = 32 << 20
"""Bytes of referenced values that are looked up and decoded at once, but for one value that is larger."""

LookUp: TypeAlias = Callable[[pa.RecordBatch], Mapping[bytes, bytes]]
"""Returns the values that records refer to, by hash."""

_RAW_COLUMNS: Final = ("key", "value", "value_length", "value_hash")
# What a key alone says, whatever its kind.
_KEY_COLUMNS: Final = frozenset(
    ("shard_uid", "kind", "account_id", "public_key", "nonce_index", "queue_index", "receiving_shard_id", "yield_id")
)


def decode_batch(
    batch: pa.RecordBatch,
    shard_uid: str,
    columns: Sequence[str] | None = tuple(DECODED_SCHEMA.names),
    kinds: Collection[TrieKeyKind] | None = None,
    *,
    strict: bool = False,
    look_up: LookUp | None = None,
) -> Iterator[pa.RecordBatch]:
    """Decode records.

    Args:
        batch: of ``RECORD_SCHEMA``, ascending by key.
        columns: names of ``DECODED_SCHEMA``, in the order wanted; what is not named is not computed. None for those that the kinds with a
            record's first byte have.
        kinds: which records; None for all.
        strict: raise on a key or value that does not decode, in place of noting it in ``decode_error``.
        look_up: finds the long values of kinds that are decoded; without it these rows have a ``decode_error``.
    Yields:
        Record batches of the named columns; each of records with the same first byte, in the order of the input.
    Raises:
        DatasetError: the columns' buffers are not sound.
        MalformedValueError: in strict mode.
    """
    try:
        # Neither Arrow nor native code looks whether offsets stay inside their buffers.
        for name in ("key", "value"):
            batch.column(name).validate(full=True)
    except pa.ArrowInvalid as error:
        raise DatasetError(problem=f"a record batch is damaged: {error}", remedy="Export the source again.") from error
    runs = pc.run_end_encode(pc.binary_slice(batch.column("key"), 0, 1))
    stop = 0
    for end, prefix in zip(runs.run_ends.to_pylist(), runs.values.to_pylist(), strict=True):
        start, stop = stop, end
        # An empty key has no first byte, and is the first if it is there.
        first_byte = prefix[0] if prefix else -1
        possible = KINDS_BY_FIRST_BYTE.get(first_byte, (TrieKeyKind.UNKNOWN,))
        if kinds is not None and not set(possible) & set(kinds):
            continue
        names = columns_of(possible) if columns is None else columns
        for at in range(start, stop, DECODED_ROWS_MAX):
            run = batch.slice(at, min(DECODED_ROWS_MAX, stop - at))
            decoded = _decode_run(run, first_byte, shard_uid, names, strict=strict, look_up=look_up)
            if kinds is not None and not set(possible) <= set(kinds):
                kind = decoded["kind"]
                chosen = pc.is_in(kind, value_set=pa.array([str(wanted) for wanted in kinds]))
                decoded = {name: column.filter(chosen) for name, column in decoded.items()}
            result = pa.RecordBatch.from_arrays([decoded[name] for name in names], schema=decoded_schema(names))
            if result.num_rows:
                yield result


def decoded_schema(columns: Sequence[str]) -> pa.Schema:
    """Return the schema of some columns, in their order."""
    return pa.schema([DECODED_SCHEMA.field(name) for name in columns])


def _decode_run(
    run: pa.RecordBatch, first_byte: int, shard_uid: str, columns: Sequence[str], *, strict: bool, look_up: LookUp | None
) -> dict[str, pa.Array]:
    """Return the columns of records with one first byte, and their kind in any case."""
    result = {name: run.column(name) for name in _RAW_COLUMNS}
    result["shard_uid"] = pa.repeat(pa.scalar(shard_uid), run.num_rows)
    typed = [name for name in {*columns, "kind"} if name not in result]
    if typed == ["kind"] and len(KINDS_BY_FIRST_BYTE.get(first_byte, ())) == 1 and not strict:
        return result | {"kind": pa.repeat(pa.scalar(KINDS_BY_FIRST_BYTE[first_byte][0].value), run.num_rows)}
    fast = native_rows(first_byte, run.column("key"), run.column("value"), typed) if is_available() else None
    fast = fast or FastRows(np.empty(0, np.int64), {})
    is_slow = np.ones(run.num_rows, bool)
    is_slow[fast.rows] = False
    slow = np.flatnonzero(is_slow)
    may_be_long = set(KINDS_BY_FIRST_BYTE.get(first_byte, ())) & LONG_VALUE_KINDS
    if not may_be_long or not (strict or set(typed) - _KEY_COLUMNS):
        look_up = None
    slow_rows = [row for taken, values_by_hash in _slow_rows(run, slow, look_up) for row in _decode_rows(taken, values_by_hash, strict)]
    order = None if not slow.size or not fast.rows.size else pa.array(np.argsort(np.concatenate([fast.rows, slow])))
    for name in typed:
        kind = DECODED_SCHEMA.field(name).type
        make = fast.columns.get(name)
        by_column = pa.nulls(fast.rows.size, kind) if make is None or not fast.rows.size else make()
        if not slow.size:
            result[name] = by_column
            continue
        by_row = pa.array([row.get(name) for row in slow_rows], kind)
        result[name] = by_row if order is None else pa.concat_arrays([by_column, by_row]).take(order)
    return result


def _slow_rows(run: pa.RecordBatch, rows: Ints, look_up: LookUp | None) -> Iterator[tuple[pa.RecordBatch, Mapping[bytes, bytes]]]:
    """Yield the rows that are decoded one by one, and the values that they refer to, as much at once as memory may hold."""
    if not rows.size:
        return
    taken = run.take(pa.array(rows))
    if look_up is None or taken.column("value_hash").null_count == taken.num_rows:
        yield taken, {}
        return
    is_reference = taken.column("value_hash").is_valid().to_numpy(zero_copy_only=False)
    lengths = np.where(is_reference, taken.column("value_length").to_numpy().astype(np.int64), 0)
    start = 0
    while start < taken.num_rows:
        sums = np.cumsum(lengths[start:])
        count = max(1, int(np.searchsorted(sums, LOOKED_UP_BYTES_MAX, side="right")))
        some = taken.slice(start, count)
        yield some, look_up(some) if is_reference[start : start + count].any() else {}
        start += count


def _decode_rows(taken: pa.RecordBatch, values_by_hash: Mapping[bytes, bytes], strict: bool) -> list[dict[str, Any]]:
    decoded = []
    for key, value, value_hash in zip(*(taken.column(name).to_pylist() for name in ("key", "value", "value_hash")), strict=True):
        row = decode_record(key, values_by_hash.get(value_hash) if value is None else value, value_hash)
        if strict and "decode_error" in row:
            problem = f"a record does not decode, {row['decode_error']}"
            raise MalformedValueError(problem=problem, where=f"{row['kind']}, key {key[:80].hex()}")
        decoded.append(row)
    return decoded
