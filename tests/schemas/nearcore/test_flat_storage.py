"""Rows about flat storage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dataset.flat_state_value import encode_inlined, encode_ref
from schemas.errors import IntegrityError
from schemas.ids import CryptoHash
from schemas.nearcore.borsh import BorshWriter
from schemas.nearcore.flat_storage import (
    STATUS_NAMES,
    FlatBlock,
    decode_flat_state_changes,
    decode_flat_state_delta_metadata,
    decode_flat_storage_status,
    encode_ready_status,
)

hashes = st.binary(min_size=32, max_size=32).map(CryptoHash)
blocks = st.builds(FlatBlock, hashes, st.integers(0, 2**64 - 1), hashes)
values = st.none() | st.binary(max_size=50).map(encode_inlined) | st.builds(encode_ref, st.integers(0, 2**32 - 1), hashes)


@given(blocks)
def test_a_ready_status_has_a_flat_head(block: FlatBlock) -> None:
    """And is read back as it was written."""
    status = decode_flat_storage_status(encode_ready_status(block), "test")
    assert (status.name, status.flat_head) == ("Ready", block)


@pytest.mark.parametrize("tag", [0, 1, 2, 4, 200])
def test_any_other_status_has_none(tag: int) -> None:
    """Whatever progress follows the tag."""
    status = decode_flat_storage_status(bytes([tag]) + b"progress", "test")
    assert status.flat_head is None
    assert status.name == STATUS_NAMES.get(tag, "unknown 200")


@pytest.mark.parametrize("row", [b"", b"\3", b"\3" + bytes(71), b"\3" + bytes(73)])
def test_a_truncated_or_longer_status_is_refused(row: bytes) -> None:
    """A Ready row has exactly a block."""
    with pytest.raises(IntegrityError):
        decode_flat_storage_status(row, "test")


@given(blocks, st.none() | st.tuples(hashes, st.integers(0, 2**64 - 1)))
def test_delta_metadata_names_the_block_and_the_last_one_with_changes(block: FlatBlock, previous: tuple[CryptoHash, int] | None) -> None:
    """Also rows of before there was an option at the end."""
    row = encode_ready_status(block)[1:]
    if previous is None:
        assert decode_flat_state_delta_metadata(row, "old").prev_block_with_changes is None
    tail = b"\0" if previous is None else b"\1" + previous[0] + previous[1].to_bytes(8, "little")
    metadata = decode_flat_state_delta_metadata(row + tail, "test")
    assert (metadata.block, metadata.prev_block_with_changes) == (block, previous)


def encode_changes(changes: list[tuple[bytes, bytes | None]]) -> bytes:
    """Return a FlatStateChanges row."""
    writer = BorshWriter().u32(len(changes))
    for key, row in changes:
        writer.byte_vec(key).option(row, writer.fixed)
    return writer.to_bytes()


@given(st.dictionaries(st.binary(max_size=20), values, max_size=10))
def test_changes_come_out_as_rows_of_flat_state(changes: dict[bytes, bytes | None]) -> None:
    """Inserted and changed keys have their new row, deleted ones None."""
    assert decode_flat_state_changes(encode_changes(list(changes.items())), "test") == changes


@given(st.dictionaries(st.binary(max_size=20), values, min_size=1, max_size=5), st.data())
def test_truncated_changes_are_refused(changes: dict[bytes, bytes | None], data: st.DataObject) -> None:
    """No prefix of such a map is one."""
    row = encode_changes(list(changes.items()))
    with pytest.raises(IntegrityError):
        decode_flat_state_changes(row[: data.draw(st.integers(0, len(row) - 1))], "test")


def test_a_key_twice_and_unknown_kinds_of_value_are_refused() -> None:
    """Neither says what the state is."""
    with pytest.raises(IntegrityError, match="twice"):
        decode_flat_state_changes(encode_changes([(b"k", None), (b"k", None)]), "test")
    with pytest.raises(IntegrityError, match="no kind"):
        decode_flat_state_changes(encode_changes([(b"k", b"\2\0\0\0\0")]), "test")
