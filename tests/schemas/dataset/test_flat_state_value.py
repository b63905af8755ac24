"""Rows of FlatState."""

from __future__ import annotations

from hashlib import sha256

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dataset.flat_state import RECORD_SCHEMA
from schemas.dataset.flat_state_value import decode_records, encode_inlined, encode_ref
from schemas.errors import IntegrityError
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX, KEY_BYTES_MAX

inlined = st.binary(max_size=80) | st.sampled_from([b"", b"x" * INLINED_VALUE_BYTES_MAX])
references = st.tuples(st.integers(0, 1 << 20), st.binary(min_size=32, max_size=32))


@given(st.lists(st.tuples(st.binary(max_size=30), inlined | references), min_size=1, max_size=40))
def test_rows_come_out_as_records(rows: list[tuple[bytes, bytes | tuple[int, bytes]]]) -> None:
    """Values inlined and referenced, in any mixture, with the key's prefix taken off."""
    keys = [b"shard_id" + key for key, _ in rows]
    encoded = [encode_ref(*value) if isinstance(value, tuple) else encode_inlined(value) for _, value in rows]
    expected = [
        {"key": key, "value": None, "value_length": value[0], "value_hash": value[1]}
        if isinstance(value, tuple)
        else {"key": key, "value": value, "value_length": len(value), "value_hash": None}
        for key, value in rows
    ]
    batch = decode_records(keys, encoded, 8, "test")
    batch.validate(full=True)
    assert batch.equals(pa.RecordBatch.from_pylist(expected, schema=RECORD_SCHEMA))


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_a_value_or_an_integrity_error(row: bytes) -> None:
    """Exactly the two forms are taken."""
    is_inlined = len(row) >= 5 and row[0] == 1 and int.from_bytes(row[1:5], "little") == len(row) - 5
    is_ref = len(row) == 37 and row[0] == 0 and int.from_bytes(row[1:5], "little") <= 16 << 20
    good = encode_inlined(b"good")
    if is_inlined or is_ref:
        assert decode_records([b"k1", b"k2"], [good, row], 0, "test").num_rows == 2
    else:
        with pytest.raises(IntegrityError, match=b"k2".hex()):
            decode_records([b"k1", b"k2", b"k3"], [good, row, good], 0, "test")


def test_values_and_keys_over_their_limits_are_refused() -> None:
    """A node never inlines more, and no trie key is longer."""
    with pytest.raises(IntegrityError):
        decode_records([b"key"], [encode_inlined(bytes(INLINED_VALUE_BYTES_MAX + 1))], 0, "test")
    with pytest.raises(IntegrityError):
        decode_records([bytes(KEY_BYTES_MAX + 1)], [encode_inlined(b"")], 0, "test")
    with pytest.raises(IntegrityError):
        decode_records([b"key"], [encode_ref(2**31, sha256(b"").digest())], 0, "test")
