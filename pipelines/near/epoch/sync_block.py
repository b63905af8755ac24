"""The sync hash of an epoch, worked out from its blocks: a node keeps it for the current and the previous epoch only.

Counted are the new chunks of each shard from the epoch's second block on. The sync block is the one after the first block at which
every shard has had two. Before protocol 74 it was the epoch's first block.

The blocks may come from a database or from JSON-RPC. They must be a chain, and the first must be the first of the epoch: its
next_epoch_id is the hash of the block before it, which is what an epoch is named by two epochs later.

The hash may be used as soon as a block of the same epoch calls the sync block final; before that another block may take its place. A
database has blocks that are not final, and its FINAL_HEAD moves only when a block is processed, while nearcore records the sync hash when
the header comes; so finality is taken from the headers. RPC's blocks are final ones. Where the node's own state snapshot is the one for the
sync block, the node has made up its mind, as releases of neard did that recorded the hash without waiting.

Source: nearcore chain/chain/src/state_sync/utils.rs, update_sync_hashes and on_new_header.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from pipelines.near.epoch.chain_rows import ChainRows
from pipelines.near.node.node_columns import BLOCK, BLOCK_HEADER, BLOCK_HEIGHT, BLOCK_MISC, EPOCH_START, STATE_SNAPSHOT_KEY
from schemas.errors import IntegrityError
from schemas.ids import CryptoHash
from schemas.nearcore.block import BlockHeader, ChunkHeader, decode_block_chunks, decode_block_header

SYNC_BLOCK_COLUMNS: Final = (BLOCK, BLOCK_HEADER, BLOCK_HEIGHT, BLOCK_MISC, EPOCH_START)
"""Column families that are read."""

CURRENT_EPOCH_SYNC_VERSION: Final = 74
"""Protocol version from which the sync block lies after the epoch's first chunks."""

NEW_CHUNKS: Final = 2
"""New chunks that every shard must have had."""

FINAL_BLOCKS: Final = 3
"""Blocks of consecutive heights, of which the last one calls the first one final."""

HEIGHTS_MAX: Final = 1 << 17
"""Most heights that are looked at; an epoch of mainnet has 43,200."""


class EpochBlock(Protocol):
    """A block whose header was hashed."""

    @property
    def header(self) -> BlockHeader:
        """The header."""
        ...

    def chunks(self) -> tuple[ChunkHeader, ...] | None:
        """Return the chunk headers, checked against the header; None when the source no longer has them."""
        ...


Block = TypeVar("Block", bound=EpochBlock)


def find_sync_block(blocks: Iterable[Block], epoch_id: CryptoHash, protocol_version: int, where: str) -> Block | None:
    """Return an epoch's sync block; None when the blocks end before it, or one lacks its chunk headers.

    Args:
        blocks: the chain's blocks from the epoch's first on, ascending; no more are taken than are needed.
        where: the source, for errors.
    Raises:
        IntegrityError: the blocks are not a chain, or the first is not the first of the epoch.
    """
    return _sync_block(_chained(blocks, epoch_id, where), protocol_version)


def _sync_block(blocks: Iterable[Block], protocol_version: int) -> Block | None:
    new_chunks: Counter[int] = Counter()
    for position, block in enumerate(blocks):
        if protocol_version < CURRENT_EPOCH_SYNC_VERSION:
            return block
        if position == 0:
            continue
        if new_chunks and min(new_chunks.values()) >= NEW_CHUNKS:
            return block
        chunks = block.chunks()
        if chunks is None:
            return None
        for chunk in chunks:
            new_chunks[chunk.shard_id] += chunk.height_included == block.header.height
    return None


def find_sync_hash(reader: ChainRows, epoch_id: CryptoHash, protocol_version: int) -> CryptoHash | None:
    """Return an epoch's sync hash out of a database; None when the node lacks its blocks, or it is neither known to be final nor what the
    node's state snapshot was made for.

    Raises:
        IntegrityError: a header or chunk header does not hash, or the blocks are not a chain.
        SourceError: the database can't be read.
    """
    blocks = _chained(_database_blocks(reader, epoch_id), epoch_id, str(reader.folder))
    found = _sync_block(blocks, protocol_version)
    if found is None:
        return None
    sync_hash = found.header.hash
    is_settled = is_final(found.header, (block.header for block in blocks)) or _has_snapshot_for(reader, sync_hash)
    return sync_hash if is_settled else None


def _has_snapshot_for(reader: ChainRows, sync_hash: CryptoHash) -> bool:
    snapshot = reader.get(BLOCK_MISC, STATE_SNAPSHOT_KEY)
    return snapshot is not None and snapshot == snapshot_block_of(reader, sync_hash)


def snapshot_block_of(reader: ChainRows, sync_hash: CryptoHash) -> CryptoHash | None:
    """Return the hash that the snapshot for a sync hash is named by: of the block two before; None when the node lacks a header.

    Source: nearcore core/store/src/trie/shard_tries.rs, ShardTries::get_snapshot_flat_storage_status; the sync block's
    previous block's prev_hash is what state sync asks for (chain/client/src/sync/state/network.rs).

    Raises:
        SourceError, IntegrityError: the database can't be read, or a header does not hash.
    """
    block_hash = sync_hash
    for _ in range(2):
        row = reader.get(BLOCK_HEADER, block_hash)
        if row is None:
            return None
        block_hash = decode_block_header(row, f"BlockHeader {block_hash}, {reader.folder}", block_hash).prev_hash
    return block_hash


def is_final(header: BlockHeader, descendants: Iterable[BlockHeader]) -> bool:
    """Return whether the blocks after a block make it final: it or one of them begins a run of `FINAL_BLOCKS` consecutive heights.

    No header says that with fewer: nodes refuse one whose last_final_block is another than this rule's.

    Args:
        descendants: the blocks after it, each the child of the one before; no more are taken than are needed.

    Source: nearcore chain/chain/src/chain.rs, Chain::validate_header, expected_last_final_block.
    """
    run, height = 1, header.height
    for descendant in descendants:
        run = run + 1 if descendant.height == height + 1 else 1
        if run == FINAL_BLOCKS:
            return True
        height = descendant.height
    return False


def _chained(blocks: Iterable[Block], epoch_id: CryptoHash, where: str) -> Iterator[Block]:
    """Yield the blocks of one epoch; its end is the end."""
    previous: BlockHeader | None = None
    for block in blocks:
        header = block.header
        if previous is None:
            if header.epoch_id != epoch_id or header.prev_hash != header.next_epoch_id:
                raise IntegrityError(problem=f"block {header.hash} is not the first of epoch {epoch_id}", where=where)
        elif header.prev_hash != previous.hash:
            raise IntegrityError(problem=f"block {header.hash} does not follow block {previous.hash}", where=where)
        if header.epoch_id != epoch_id:
            return
        yield block
        previous = header


@dataclass(frozen=True, slots=True)
class _DatabaseBlock:
    """A block of a node's database."""

    reader: ChainRows
    header: BlockHeader

    def chunks(self) -> tuple[ChunkHeader, ...] | None:
        row = self.reader.get(BLOCK, self.header.hash)
        if row is None:
            return None
        return decode_block_chunks(row, self.header, f"Block {self.header.hash}, {self.reader.folder}")


def _database_blocks(reader: ChainRows, epoch_id: CryptoHash) -> Iterator[_DatabaseBlock]:
    """Yield the blocks on the node's chain from an epoch's first on; nothing when the node does not know it."""
    start = reader.get(EPOCH_START, epoch_id)
    if start is None:
        return
    (height,) = struct.unpack("<Q", start.ljust(8, b"\0")[:8])
    for candidate in range(height, height + HEIGHTS_MAX):
        block_hash = reader.get(BLOCK_HEIGHT, struct.pack("<Q", candidate))
        # A height may have no block; the epoch's first has one, unless it is gone.
        if block_hash is None and candidate == height:
            return
        if block_hash is None:
            continue
        row = reader.get(BLOCK_HEADER, block_hash)
        if row is None:
            return
        header = decode_block_header(row, f"BlockHeader {CryptoHash(block_hash)}, {reader.folder}", CryptoHash(block_hash))
        yield _DatabaseBlock(reader, header)
