"""Decoding of the FlatState column: FlatStateValue, many rows at once or one.

Borsh: ``u8 0`` Ref, ``u32`` length, ``[u8; 32]`` sha256; or ``u8 1`` Inlined, ``u32`` length, that many bytes. The decoding of many
checks whole arrays at once, since a shard has hundreds of millions of rows. Nothing here reads a database.

Source: nearcore core/primitives/src/state.rs, FlatStateValue.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from schemas.errors import IntegrityError
from schemas.flat_state import INLINED_VALUE_BYTES_MAX, KEY_BYTES_MAX, RECORD_SCHEMA, VALUE_BYTES_MAX

_REF: Final = 0
_INLINED: Final = 1
_HEAD_BYTES: Final = 5
_HASH_BYTES: Final = 32


def encode_inlined(value: bytes) -> bytes:
    """Return the row of an inlined value."""
    return struct.pack("<BI", _INLINED, len(value)) + value


def encode_ref(value_length: int, value_hash: bytes) -> bytes:
    """Return the row of a referenced value."""
    return struct.pack("<BI", _REF, value_length) + value_hash


def decode_records(keys: Sequence[bytes], rows: Sequence[bytes], prefix_bytes: int, where: str) -> pa.RecordBatch:
    """Decode rows of the FlatState column into a record batch of ``RECORD_SCHEMA``, one record a row, in their order.

    A reference to a value of at most ``INLINED_VALUE_BYTES_MAX`` bytes is kept as it is: older nodes have such rows, and only a
    source can look the value up.

    Args:
        keys: database keys.
        rows: FlatStateValue bytes, as many as keys.
        prefix_bytes: how many leading bytes of a key are not part of the trie key.
        where: the column and database, for errors.
    Raises:
        IntegrityError: a row is not a FlatStateValue, or is over a limit of `schemas.flat_state`; its trie key is named.
    """
    count = len(rows)
    lengths = np.fromiter(map(len, rows), np.int64, count)
    key_lengths = np.fromiter(map(len, keys), np.int64, count) - prefix_bytes
    # A row that is too short gets a head that is refused below.
    heads = np.frombuffer(b"".join([row[:_HEAD_BYTES].ljust(_HEAD_BYTES, b"\xff") for row in rows]), np.uint8).reshape(count, _HEAD_BYTES)
    tags = heads[:, 0]
    value_lengths = np.ascontiguousarray(heads[:, 1:]).view("<u4").reshape(count)
    is_ref = (tags == _REF) & (lengths == _HEAD_BYTES + _HASH_BYTES) & (value_lengths <= VALUE_BYTES_MAX)
    is_inlined = (tags == _INLINED) & (lengths == value_lengths.astype(np.int64) + _HEAD_BYTES) & (value_lengths <= INLINED_VALUE_BYTES_MAX)
    bad = np.flatnonzero(~(is_ref | is_inlined) | (key_lengths > KEY_BYTES_MAX))
    if bad.size:
        row = rows[int(bad[0])]
        raise IntegrityError(
            problem=f"a row of flat state is no FlatStateValue within its limits: {len(row)} bytes beginning with {row[:_HEAD_BYTES].hex()}",
            where=f"{where}, trie key {keys[int(bad[0])][prefix_bytes:][:KEY_BYTES_MAX].hex()}",
            remedy="The node's flat state is damaged, or of a version that is not known.",
        )
    values: list[bytes | None] = [row[_HEAD_BYTES:] for row in rows]
    hashes: list[bytes | None] | None = None
    if is_ref.any():
        hashes = [None] * count
        for index in np.flatnonzero(is_ref).tolist():
            hashes[index] = values[index]
            values[index] = None
    return pa.RecordBatch.from_arrays(
        [
            pa.array([key[prefix_bytes:] for key in keys], pa.binary()),
            pa.array(values, pa.binary()),
            pa.array(value_lengths, pa.uint32()),
            pa.nulls(count, pa.binary(_HASH_BYTES)) if hashes is None else pa.array(hashes, pa.binary(_HASH_BYTES)),
        ],
        schema=RECORD_SCHEMA,
    )
