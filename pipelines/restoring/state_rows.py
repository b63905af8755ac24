"""Rows of the columns that a database is restored with: in native code where its wheel is installed, else in Python; the same rows.

A row of FlatState is a FlatStateValue. A row of State is payload and i64 count, as nearcore's merge operator leaves it when nothing is pending.

Source: nearcore core/primitives/src/state.rs, FlatStateValue; core/store/src/db/refcount.rs, add_positive_refcount.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import pyarrow as pa

from pipelines.kernel.native import is_available, native_errors
from pipelines.near.node.rocksdb_reader import Row
from schemas.dataset.flat_state_value import encode_inlined, encode_ref
from schemas.errors import ValueMismatchError

STATE_COUNT_BYTES: Final = 8
"""What a State row has behind its payload."""

STEP_ROWS: Final = 4096
"""Rows that are Python objects at once."""


def flat_state_rows(batches: Iterable[pa.RecordBatch], prefix: bytes) -> Iterator[Row]:
    """Yield the FlatState rows of records, in their order.

    Args:
        batches: of ``RECORD_SCHEMA``.
        prefix: what a key begins with in the database.
    """
    make = _native_flat_state_rows if is_available() else _flat_state_rows
    steps = (batch.slice(begin, STEP_ROWS) for batch in batches for begin in range(0, batch.num_rows, STEP_ROWS))
    return itertools.chain.from_iterable(make(step, prefix) for step in steps)


def _native_flat_state_rows(batch: pa.RecordBatch, prefix: bytes) -> list[Row]:
    with native_errors():
        import statecast_kernel

        return statecast_kernel.flat_state_rows(batch, prefix)


def _flat_state_rows(batch: pa.RecordBatch, prefix: bytes) -> list[Row]:
    keys, values, lengths, hashes = (column.to_pylist() for column in batch.columns)
    return [
        (prefix + key, encode_ref(length, value_hash) if value is None else encode_inlined(value))
        for key, value, length, value_hash in zip(keys, values, lengths, hashes, strict=True)
    ]


class MergedRows:
    """The State rows of several parts: one row a hash, with the sum of its references. Is iterated once; the sum is known then.

    Args:
        batches: of ``REFERENCES_SCHEMA``, each ascending by hash.
        prefix: what a key begins with in the database.
    """

    def __init__(self, batches: Sequence[pa.RecordBatch], prefix: bytes) -> None:
        self.references = 0
        self._batches = batches
        self._prefix = prefix

    def __iter__(self) -> Iterator[Row]:
        return self._natively() if is_available() else self._in_python()

    def _natively(self) -> Iterator[Row]:
        with native_errors():
            import statecast_kernel

            merged = statecast_kernel.StateRows(self._batches, self._prefix)
        at = 0
        while True:
            rows, references, at = merged.take(at, STEP_ROWS)
            if not rows:
                return
            self.references += references
            yield from rows

    def _in_python(self) -> Iterator[Row]:
        merged: dict[bytes, tuple[int, pa.Scalar]] = {}
        for batch in self._batches:
            for value_hash, references, payload in zip(
                batch.column(0).to_pylist(), batch.column(1).to_pylist(), batch.column(2), strict=True
            ):
                merged[value_hash] = (merged[value_hash][0] + references if value_hash in merged else references, payload)
        self.references = sum(references for references, _ in merged.values())
        for value_hash in sorted(merged):
            references, payload = merged[value_hash]
            yield self._prefix + value_hash, payload.as_py() + struct.pack("<q", references)


def check_state_rows(rows: list[Row], prefix_bytes: int, where: str) -> int:
    """Return the sum of the references of State rows that have nothing pending.

    Args:
        prefix_bytes: how many leading bytes of a key are not part of the hash.
        where: the database, for errors.
    Raises:
        ValueMismatchError: a row does not hash to its key, or its count is not above zero.
    """
    if is_available():
        try:
            with native_errors():
                import statecast_kernel

                return statecast_kernel.check_state_rows(rows, prefix_bytes)
        except ValueMismatchError as error:
            raise _mismatch(error.where, where) from None
    return sum(_references(row, key[prefix_bytes:], where) for key, row in rows)


def _references(row: bytes, value_hash: bytes, where: str) -> int:
    references: int = struct.unpack("<q", row[-STATE_COUNT_BYTES:])[0] if len(row) >= STATE_COUNT_BYTES else 0
    if references < 1 or hashlib.sha256(row[:-STATE_COUNT_BYTES]).digest() != value_hash:
        raise _mismatch(value_hash.hex(), where)
    return references


def _mismatch(value_hash: str, where: str) -> ValueMismatchError:
    return ValueMismatchError(problem=f"the State row {value_hash} does not hash to its key, or has no references", where=where)
