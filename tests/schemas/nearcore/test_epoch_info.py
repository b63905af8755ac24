"""EpochInfo rows of all versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import IntegrityError
from schemas.nearcore.borsh import BorshWriter
from schemas.nearcore.epoch_info import EpochInfo, decode_epoch_info, decode_epoch_shard_layout
from schemas.nearcore.shard_layout import ShardLayout

names = st.lists(st.text("abc.", min_size=1, max_size=8), max_size=3)
KICKOUTS = (0, 16, 16, 0, 32, 0, 16, 8)


def stakes(writer: BorshWriter, accounts: list[str], version: int) -> None:
    """Append validators."""
    writer.u32(len(accounts))
    for index, account in enumerate(accounts):
        if version > 1:
            writer.u8(0)
        key_type = index % 2
        writer.byte_vec(account.encode()).u8(key_type).fixed(bytes(64 if key_type else 32)).u128(10**24)


def account_map(writer: BorshWriter, accounts: list[str], value_bytes: int) -> None:
    """Append a map of accounts."""
    writer.u32(len(accounts))
    for account in accounts:
        writer.byte_vec(account.encode()).fixed(b"\7" * value_bytes)


@given(version=st.integers(1, 5), height=st.integers(0, 2**64 - 1), accounts=names, others=names, shards=st.integers(0, 3))
def test_height_and_protocol_version_are_found_among_lists_of_any_length(
    version: int, height: int, accounts: list[str], others: list[str], shards: int
) -> None:
    """Each version's fields before the protocol version are skipped; what follows it is not looked at."""
    writer = BorshWriter().u8(version - 1).u64(height)
    stakes(writer, accounts, version)
    account_map(writer, accounts, 8)
    writer.u32(2).u64(0).u64(1).u32(shards)
    for _ in range(shards):
        writer.u32(1).u64(9)
    if version < 5:
        writer.u32(1).u64(0).u64(5)
        stakes(writer, others, version)
        account_map(writer, others, 8)
    account_map(writer, others, 16)
    account_map(writer, accounts, 16)
    writer.u32(len(KICKOUTS))
    for reason, byte_count in enumerate(KICKOUTS):
        writer.byte_vec(b"kicked").u8(reason).fixed(bytes(byte_count))
    row = writer.u128(1).u128(2).u32(83).fixed(b"what follows").to_bytes()
    assert decode_epoch_info(row, "test") == EpochInfo(epoch_height=height, protocol_version=83)
    with_layout = row.removesuffix(b"what follows") + b"\0" + (3).to_bytes(8, "little") + (1).to_bytes(4, "little") + b"what follows"
    layout = decode_epoch_shard_layout(with_layout, "test")
    assert layout == (ShardLayout("V0", 1, (0, 1, 2)) if version == 5 else None)
    with pytest.raises(IntegrityError):
        decode_epoch_info(row[: -len(b"what follows") - 1], "test")


@pytest.mark.parametrize("row", [b"", b"\5" + bytes(100), b"\3" + bytes(8) + b"\xff\xff\xff\xff"])
def test_what_is_no_epoch_info_is_refused(row: bytes) -> None:
    """Unknown versions, and counts that can't be."""
    with pytest.raises(IntegrityError):
        decode_epoch_info(row, "test")
