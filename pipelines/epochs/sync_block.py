"""The sync hash of an epoch, worked out from its blocks: a node keeps it for the current and the previous epoch only.

Counted are the new chunks of each shard from the epoch's second block on. The sync block is the one after the first block at which
every shard has had two. Before protocol 74 it was the epoch's first block.

Source: nearcore chain/chain/src/state_sync/utils.rs, update_sync_hashes.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from typing import Final

from pipelines.epochs.chain_rows import ChainRows
from pipelines.sources.node_columns import BLOCK, BLOCK_HEADER, BLOCK_HEIGHT, EPOCH_START
from schemas.block import BlockHeader, decode_block_chunks, decode_block_header
from schemas.errors import IntegrityError
from schemas.ids import CryptoHash

SYNC_BLOCK_COLUMNS: Final = (BLOCK, BLOCK_HEADER, BLOCK_HEIGHT, EPOCH_START)
"""Column families that are read."""

CURRENT_EPOCH_SYNC_VERSION: Final = 74
"""Protocol version from which the sync block lies after the epoch's first chunks."""

NEW_CHUNKS: Final = 2
"""New chunks that every shard must have had."""

HEIGHTS_MAX: Final = 1 << 17
"""Most heights that are looked at; an epoch of mainnet has 43,200."""


def find_sync_hash(reader: ChainRows, epoch_id: CryptoHash, protocol_version: int) -> CryptoHash | None:
    """Return an epoch's sync hash; None when the node lacks its blocks, or the epoch has not come to it.

    Raises:
        IntegrityError: a header or chunk header does not hash, or the blocks are not a chain.
        SourceError: the database can't be read.
    """
    new_chunks: Counter[int] = Counter()
    for position, header in enumerate(_epoch_blocks(reader, epoch_id)):
        if protocol_version < CURRENT_EPOCH_SYNC_VERSION:
            return header.hash
        if position == 0:
            continue
        if new_chunks and min(new_chunks.values()) >= NEW_CHUNKS:
            return header.hash
        row = reader.get(BLOCK, header.hash)
        if row is None:
            return None
        for chunk in decode_block_chunks(row, header, f"Block {header.hash}, {reader.folder}"):
            new_chunks[chunk.shard_id] += chunk.height_included == header.height
    return None


def _epoch_blocks(reader: ChainRows, epoch_id: CryptoHash) -> Iterator[BlockHeader]:
    """Yield the headers of an epoch's blocks on the node's chain, from its first."""
    start = reader.get(EPOCH_START, epoch_id)
    if start is None:
        return
    (height,) = struct.unpack("<Q", start.ljust(8, b"\0")[:8])
    previous: BlockHeader | None = None
    for candidate in range(height, height + HEIGHTS_MAX):
        block_hash = reader.get(BLOCK_HEIGHT, struct.pack("<Q", candidate))
        # A height may have no block.
        if block_hash is None:
            if previous is None:
                return
            continue
        row = reader.get(BLOCK_HEADER, block_hash)
        if row is None:
            return
        header = decode_block_header(row, f"BlockHeader {CryptoHash(block_hash)}, {reader.folder}", CryptoHash(block_hash))
        if header.epoch_id != epoch_id:
            return
        if previous is not None and header.prev_hash != previous.hash:
            raise IntegrityError(
                problem=f"block {header.hash} does not follow block {previous.hash}", where=f"BlockHeight, {reader.folder}"
            )
        yield header
        previous = header
