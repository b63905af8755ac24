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
import numpy.typing as npt
import pyarrow as pa

from schemas.dataset.flat_state import RECORD_SCHEMA
from schemas.errors import IntegrityError
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX

_REF: Final = 0
_INLINED: Final = 1
_HEAD_BYTES: Final = 5
_HASH_BYTES: Final = 32

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


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
        IntegrityError: a row is not a FlatStateValue, or is over a limit of `schemas.dataset.flat_state`; its trie key is named.
    """
    count = len(rows)
    key_lengths = np.fromiter(map(len, keys), np.int64, count)
    lengths = np.fromiter(map(len, rows), np.int64, count)
    starts = np.cumsum(lengths) - lengths
    # The padding gives a last row that is too short something to be read from; such a row is refused below.
    data = np.frombuffer(b"".join(rows) + bytes(_HEAD_BYTES), np.uint8)
    heads = data[starts[:, None] + np.arange(_HEAD_BYTES)]
    value_lengths = np.ascontiguousarray(heads[:, 1:]).view("<u4").reshape(count)
    is_ref = (heads[:, 0] == _REF) & (lengths == _HEAD_BYTES + _HASH_BYTES) & (value_lengths <= VALUE_BYTES_MAX)
    is_inlined = (
        (heads[:, 0] == _INLINED) & (lengths == value_lengths.astype(np.int64) + _HEAD_BYTES) & (value_lengths <= INLINED_VALUE_BYTES_MAX)
    )
    bad = np.flatnonzero(~(is_ref | is_inlined) | (key_lengths > KEY_BYTES_MAX + prefix_bytes))
    if bad.size:
        row = rows[int(bad[0])]
        raise IntegrityError(
            problem=f"a row of flat state is no FlatStateValue within its limits: {len(row)} bytes beginning with {row[:_HEAD_BYTES].hex()}",
            where=f"{where}, trie key {keys[int(bad[0])][prefix_bytes:][:KEY_BYTES_MAX].hex()}",
            remedy="The node's flat state is damaged, or of a version that is not known.",
        )
    return pa.RecordBatch.from_arrays(
        [
            _without_heads(np.frombuffer(b"".join(keys), np.uint8), key_lengths, np.full(count, prefix_bytes), None),
            _without_heads(
                data[: len(data) - _HEAD_BYTES], lengths, np.where(is_ref, lengths, _HEAD_BYTES), None if is_inlined.all() else is_inlined
            ),
            pa.array(value_lengths, pa.uint32()),
            _hashes(data, starts, is_ref),
        ],
        schema=RECORD_SCHEMA,
    )


def _without_heads(data: Bytes, lengths: Numbers, heads: Numbers, validity: Flags | None) -> pa.BinaryArray:
    """Return the values that lie one after the other in ``data``, each without its first ``heads`` bytes."""
    starts = np.cumsum(lengths) - lengths
    head_starts = np.cumsum(heads) - heads
    dropped = np.arange(int(heads.sum())) - np.repeat(head_starts - starts, heads)
    keep = np.ones(len(data), np.bool_)
    keep[dropped] = False
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths - heads, out=offsets[1:])
    return pa.Array.from_buffers(pa.binary(), len(lengths), [_bitmap(validity), pa.py_buffer(offsets), pa.py_buffer(data[keep])])


def _hashes(data: Bytes, starts: Numbers, is_ref: Flags) -> pa.FixedSizeBinaryArray:
    count = len(starts)
    if not is_ref.any():
        return pa.nulls(count, pa.binary(_HASH_BYTES))
    hashes = np.zeros((count, _HASH_BYTES), np.uint8)
    hashes[is_ref] = data[starts[is_ref][:, None] + _HEAD_BYTES + np.arange(_HASH_BYTES)]
    return pa.Array.from_buffers(pa.binary(_HASH_BYTES), count, [_bitmap(is_ref), pa.py_buffer(hashes)])


def _bitmap(validity: Flags | None) -> pa.Buffer | None:
    return None if validity is None else pa.py_buffer(np.packbits(validity, bitorder="little"))
