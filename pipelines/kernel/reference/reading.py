"""Records and values out of Arrow record batches, checked. Computes nothing of the trie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any

import pyarrow as pa

from schemas.errors import PartLimitError, RecordOrderError, ValueMismatchError
from schemas.ids import HASH_BYTES
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX
from schemas.nearcore.trie_node import ValueRef


@dataclass(frozen=True, slots=True)
class RangeValues:
    """The values of a key range's records."""

    value_refs: list[ValueRef]
    """One a record, in record order."""
    values: list[bytes]
    """Inlined values, and referenced ones where they were asked for; in no particular order."""
    hashed_bytes: int
    """Bytes of the values that were hashed."""


def read_keys(records: Sequence[pa.RecordBatch], left_key: bytes | None, right_key: bytes | None) -> list[bytes]:
    """Return the keys of a key range.

    Raises:
        RecordOrderError: keys not strictly ascending, or not between the neighbours.
        PartLimitError: a key is longer than ``KEY_BYTES_MAX``.
    """
    keys = _column(records, "key")
    assert keys, "a key range has at least one record"
    with_neighbours = [key for key in (left_key, *keys, right_key) if key is not None]
    for key in with_neighbours:
        if len(key) > KEY_BYTES_MAX:
            raise PartLimitError(problem=f"a trie key of {len(key)} bytes is over the limit of {KEY_BYTES_MAX}", where=key[:40].hex())
    for before, after in pairwise(with_neighbours):
        if before >= after:
            raise RecordOrderError(problem="trie keys are not strictly ascending", where=f"{before[:40].hex()} before {after[:40].hex()}")
    return keys


def read_value_lengths(records: Sequence[pa.RecordBatch]) -> list[ValueRef]:
    """Return the value lengths of a key range's records, as references of no hash."""
    return [ValueRef(length=length, hash=bytes(HASH_BYTES)) for length in _column(records, "value_length")]


def read_values(records: Sequence[pa.RecordBatch], values: Sequence[pa.RecordBatch], *, keep_values: bool) -> RangeValues:
    """Return the values of a key range's records.

    Args:
        values: of ``VALUE_SCHEMA``; looked at with ``keep_values`` only.
    Raises:
        ValueMismatchError: a referenced value is missing or does not hash, a length is wrong, or a record has neither value nor
            value_hash.
    """
    columns = (_column(records, name) for name in ("value", "value_length", "value_hash"))
    rows: list[tuple[bytes | None, int, bytes | None]] = list(zip(*columns, strict=True))
    value_refs = [_value_ref(*row) for row in rows]
    inlined = [value for value, _, _ in rows if value is not None]
    referenced: dict[bytes, bytes] = {}
    if keep_values:
        wanted = {value_ref.hash: value_ref.length for (value, _, _), value_ref in zip(rows, value_refs, strict=True) if value is None}
        referenced = _referenced_values(values, wanted)
    for (value, _, _), value_ref in zip(rows, value_refs, strict=True):
        if value is None and keep_values and len(referenced[value_ref.hash]) != value_ref.length:
            raise ValueMismatchError(
                problem=f"a value is not of the {value_ref.length} bytes that a record says", where=value_ref.hash.hex()
            )
    hashed_bytes = sum(map(len, inlined)) + sum(map(len, referenced.values()))
    return RangeValues(value_refs=value_refs, values=inlined + list(referenced.values()), hashed_bytes=hashed_bytes)


def _value_ref(value: bytes | None, value_length: int, value_hash: bytes | None) -> ValueRef:
    if value is None:
        if value_hash is None:
            raise ValueMismatchError(problem="a record has neither its value nor the value's hash")
        return ValueRef(length=value_length, hash=value_hash)
    if len(value) != value_length:
        raise ValueMismatchError(problem=f"an inlined value has {len(value)} bytes, its record says {value_length}")
    return ValueRef(length=value_length, hash=sha256(value).digest())


def _referenced_values(values: Sequence[pa.RecordBatch], wanted: dict[bytes, int]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for value_hash, value in zip(_column(values, "value_hash"), _column(values, "value"), strict=True):
        if value_hash in wanted and value_hash not in found:
            if sha256(value).digest() != value_hash:
                raise ValueMismatchError(problem="a referenced value does not have its hash", where=value_hash.hex())
            found[value_hash] = value
    missing = wanted.keys() - found.keys()
    if missing:
        raise ValueMismatchError(problem=f"{len(missing)} referenced values are missing", where=min(missing).hex())
    return found


def _column(batches: Sequence[pa.RecordBatch], name: str) -> list[Any]:
    return [item for batch in batches for item in batch.column(name).to_pylist()]
