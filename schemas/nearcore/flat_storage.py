"""Rows about flat storage: where its head stands, and the changes of each block after it.

Keys: FlatStorageStatus has the shard uid; FlatStateDeltaMetadata and FlatStateChanges have the shard uid and a block hash.

Source: nearcore core/store/src/flat/{types,delta}.rs. Nothing here reads a database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.errors import IntegrityError
from schemas.ids import CryptoHash
from schemas.nearcore.borsh import BorshReader, BorshWriter
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX, KEY_BYTES_MAX

STATUS_NAMES: Final = {0: "Disabled", 1: "Empty", 2: "Creation", 3: "Ready", 4: "Resharding"}
_READY: Final = 3
_REF: Final = 0
_INLINED: Final = 1


@dataclass(frozen=True, slots=True)
class FlatBlock:
    """A block as flat storage knows it."""

    hash: CryptoHash
    height: int
    prev_hash: CryptoHash


@dataclass(frozen=True, slots=True)
class FlatStorageStatus:
    """A shard's FlatStorageStatus."""

    name: str
    """One of ``STATUS_NAMES``, or ``unknown N``."""
    flat_head: FlatBlock | None
    """The block whose post-state the flat state is; None unless Ready."""


@dataclass(frozen=True, slots=True)
class FlatStateDeltaMetadata:
    """One block after the flat head."""

    block: FlatBlock
    prev_block_with_changes: tuple[CryptoHash, int] | None
    """None when the block has changes; else hash and height of the last block before it that has."""


def _block(reader: BorshReader) -> FlatBlock:
    return FlatBlock(hash=CryptoHash(reader.fixed(32)), height=reader.u64(), prev_hash=CryptoHash(reader.fixed(32)))


def decode_flat_storage_status(row: bytes, where: str) -> FlatStorageStatus:
    """Decode a row of FlatStorageStatus. Progress of a creation or resharding is not looked at.

    Raises:
        IntegrityError: a Ready row without a whole flat head.
    """
    reader = BorshReader(row, where, IntegrityError)
    tag = reader.u8()
    if tag != _READY:
        return FlatStorageStatus(name=STATUS_NAMES.get(tag, f"unknown {tag}"), flat_head=None)
    flat_head = _block(reader)
    reader.end()
    return FlatStorageStatus(name=STATUS_NAMES[_READY], flat_head=flat_head)


def encode_ready_status(flat_head: FlatBlock) -> bytes:
    """Return the row that says Ready at a block."""
    return BorshWriter().u8(_READY).fixed(flat_head.hash).u64(flat_head.height).fixed(flat_head.prev_hash).to_bytes()


def decode_flat_state_delta_metadata(row: bytes, where: str) -> FlatStateDeltaMetadata:
    """Decode a row of FlatStateDeltaMetadata.

    Raises:
        IntegrityError: truncated or longer than it should be.
    """
    reader = BorshReader(row, where, IntegrityError)
    block = _block(reader)
    previous: tuple[CryptoHash, int] | None = None
    # Rows from before the option was introduced end with the block.
    if reader.remaining and reader.flag():
        previous = (CryptoHash(reader.fixed(32)), reader.u64())
    reader.end()
    return FlatStateDeltaMetadata(block=block, prev_block_with_changes=previous)


def decode_flat_state_changes(row: bytes, where: str) -> dict[bytes, bytes | None]:
    """Decode a row of FlatStateChanges.

    Returns:
        For each changed trie key its new FlatStateValue bytes, as a row of the FlatState column has them; None for a deleted key.
    Raises:
        IntegrityError: not such a map, or a key twice.
    """
    reader = BorshReader(row, where, IntegrityError)
    changes: dict[bytes, bytes | None] = {}
    # The shortest entry is an empty key and no value.
    for _ in range(reader.count(5)):
        key = reader.byte_vec(KEY_BYTES_MAX)
        if key in changes:
            reader.fail(f"trie key {key.hex()} is changed twice")
        changes[key] = _flat_state_value(reader) if reader.flag() else None
    reader.end()
    return changes


def _flat_state_value(reader: BorshReader) -> bytes:
    tag = reader.u8()
    if tag == _REF:
        return bytes([tag]) + reader.fixed(36)
    if tag != _INLINED:
        reader.fail(f"{tag} is no kind of FlatStateValue")
    value = reader.byte_vec(INLINED_VALUE_BYTES_MAX)
    return BorshWriter().u8(tag).byte_vec(value).to_bytes()
