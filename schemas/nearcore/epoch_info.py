"""What a run needs of an EpochInfo row: the epoch's height and protocol version, and the shard layout where it holds one.

Borsh enum V1 … V5. The height comes first; the protocol version after the lists of validators, which are skipped. V5 (dynamic
resharding) has the shard layout next; before, it is no column's.

Source: nearcore core/primitives/src/epoch_info.rs, and ValidatorKickoutReason in core/primitives/src/types.rs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.errors import IntegrityError
from schemas.nearcore.block import skip_validator_stake
from schemas.nearcore.borsh import BorshReader
from schemas.nearcore.shard_layout import ShardLayout, read_shard_layout

# Bytes after the tag of each ValidatorKickoutReason: Slashed, NotEnoughBlocks, NotEnoughChunks, Unstaked, NotEnoughStake,
# DidNotGetASeat, NotEnoughChunkEndorsements, ProtocolVersionTooOld.
_KICKOUT_REASON_BYTES: Final = (0, 16, 16, 0, 32, 0, 16, 8)


@dataclass(frozen=True, slots=True)
class EpochInfo:
    """What is used of an EpochInfo."""

    epoch_height: int
    protocol_version: int


def decode_epoch_info(row: bytes, where: str) -> EpochInfo:
    """Decode the part of an EpochInfo that is used; what follows the protocol version is not looked at.

    Raises:
        IntegrityError: malformed, or of an unknown version.
    """
    return _read_head(BorshReader(row, where, IntegrityError))[0]


def peek_epoch_height(row: bytes) -> int | None:
    """Return what stands where every version so far has the epoch's height; None when the row is too short.

    For a row that can't be decoded: enough to say which epoch that may be, and for nothing else.
    """
    return int.from_bytes(row[1:9], "little") if len(row) >= 9 else None


def decode_epoch_shard_layout(row: bytes, where: str) -> ShardLayout | None:
    """Decode the shard layout of an EpochInfo; None before V5.

    Raises:
        IntegrityError: malformed, or of an unknown version.
    """
    reader = BorshReader(row, where, IntegrityError)
    version = _read_head(reader)[1]
    return read_shard_layout(reader, where) if version >= 5 else None


def _read_head(reader: BorshReader) -> tuple[EpochInfo, int]:
    """Take all up to the protocol version; return it with the row's version."""
    version = reader.u8() + 1
    if version > 5:
        reader.fail(f"V{version} is no known version of EpochInfo")
    epoch_height = reader.u64()
    _skip_validator_stakes(reader, version)
    _skip_account_map(reader, 8)
    # block_producers_settlement, chunk_producers_settlement
    reader.fixed_view(8 * reader.count(8))
    for _ in range(reader.count(4)):
        reader.fixed_view(8 * reader.count(8))
    if version < 5:
        # hidden_validators_settlement, fishermen, fishermen_to_index
        reader.fixed_view(16 * reader.count(16))
        _skip_validator_stakes(reader, version)
        _skip_account_map(reader, 8)
    # stake_change, validator_reward
    _skip_account_map(reader, 16)
    _skip_account_map(reader, 16)
    for _ in range(reader.count(5)):
        reader.byte_vec_view()
        reason = reader.u8()
        if reason >= len(_KICKOUT_REASON_BYTES):
            reader.fail(f"{reason} is no known reason for a kickout")
        reader.fixed_view(_KICKOUT_REASON_BYTES[reason])
    # minted_amount, seat_price
    reader.fixed_view(16 + 16)
    return EpochInfo(epoch_height=epoch_height, protocol_version=reader.u32()), version


def _skip_validator_stakes(reader: BorshReader, version: int) -> None:
    for _ in range(reader.count(50)):
        skip_validator_stake(reader, has_tag=version >= 2)


def _skip_account_map(reader: BorshReader, value_bytes: int) -> None:
    for _ in range(reader.count(4 + value_bytes)):
        reader.byte_vec_view()
        reader.fixed_view(value_bytes)
