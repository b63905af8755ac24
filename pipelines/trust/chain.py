"""From a block hash that a reader trusts to a shard's state root, each step by hash. No signature, no I/O.

1. The trusted hash is that of the sync block or of its parent. A manifest brings the borsh headers of both; neither is believed
   before it hashes: with the sync block's hash the sync block's header must hash to it, and the parent's to its ``prev_hash``; with
   the parent's hash the parent's header must hash to it, and the sync block's header must name it as ``prev_hash``.
2. The parent's header holds ``chunk_headers_root``, the Merkle root over (chunk hash, height included) of its shards.
3. The state header begins with a chunk header; its hash is computed, never read. A Merkle path that leads from it to that root
   lies in the state header behind transactions and receipts, which are not decoded: the path is found by trying every place whose
   bytes have the form of one. That is sound, because nothing is believed of a place but that SHA-256 leads from the chunk to the
   root: a path that does so *is* a proof, wherever it lies, and making another one means finding a collision. A leaf hashes 40 bytes
   and an inner node 64, so neither can pass for the other. The search is bounded by the header's length.
4. The chunk header holds the shard's id and ``prev_state_root``, which is the state root of the parts, and the root's node at the end of
   the state header hashes to it and holds the memory usage.

What a trusted *parent* does not prove is the sync hash itself: anyone can make a header that names a parent. Parts and state root
do not depend on it; a caller that hands them to a node compares the sync hash with the node's own.

Source: nearcore chain/chain/src/state_sync/adapter.rs, ChainStateSyncAdapter::set_state_header.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.errors import IntegrityError, ManifestError
from schemas.ids import CryptoHash
from schemas.nearcore.block import BlockHeader, decode_block_header
from schemas.nearcore.state_header import StateHeader, prove_chunk
from schemas.published.manifest import Manifest
from schemas.published.shard_statement import ShardStatement


@dataclass(frozen=True, slots=True)
class ProvenBlocks:
    """The sync block's parent, tied to the trusted hash."""

    parent: BlockHeader
    sync_hash: CryptoHash
    sync_hash_is_proven: bool
    """False where the parent's hash is what was trusted."""


def prove_blocks(trusted_block: CryptoHash, manifest: Manifest, where: str) -> ProvenBlocks:
    """Tie a manifest's block headers to a trusted block hash.

    Raises:
        ManifestError: the manifest has no block headers, or the trusted hash is neither the sync block's nor its parent's, or the
            headers are of another epoch than the manifest says.
    """
    if not manifest.block_headers:
        raise ManifestError(
            problem="the manifest has no block headers, so nothing leads from the trusted block to it",
            where=where,
            remedy="Trust publisher keys instead, or fetch from a publisher that has them.",
        )
    try:
        sync_block, parent, proven = _chained(trusted_block, manifest.sync_hash, manifest.block_headers, where)
    except IntegrityError as error:
        raise ManifestError(
            problem=f"the manifest's block headers do not lead to the trusted block {trusted_block}: {error.problem}",
            where=where,
            remedy="Trust the hash of the epoch's sync block or of its parent.",
        ) from None
    if sync_block.hash != manifest.sync_hash:
        raise ManifestError(problem=f"the manifest's sync hash is {manifest.sync_hash}, its block header's {sync_block.hash}", where=where)
    # Before protocol 74 the sync block was the epoch's first, and its parent the last of the epoch before.
    if manifest.epoch_id not in (parent.epoch_id, parent.next_epoch_id) or (proven and sync_block.epoch_id != manifest.epoch_id):
        raise ManifestError(problem=f"the trusted block is not of the manifest's epoch {manifest.epoch_id}", where=where)
    return ProvenBlocks(parent, sync_block.hash, proven)


def prove_statement(blocks: ProvenBlocks, statement: ShardStatement, state_header: bytes, where: str) -> StateHeader:
    """Tie a shard statement's state root to the proven blocks, by a state header.

    Args:
        state_header: its bytes; believed in nothing that does not hash.
    Raises:
        ManifestError: the state header proves another shard, state root or memory usage than the statement says, or nothing.
    """
    try:
        header = prove_chunk(state_header, blocks.parent, where)
    except IntegrityError as error:
        raise ManifestError(
            problem=f"the state header does not tie shard {statement.shard_id} to the trusted block: {error.problem}", where=where
        ) from None
    said = (statement.shard_id, statement.state_root, statement.memory_usage)
    proven = (header.chunk.shard_id, header.state_root, header.memory_usage)
    if said != proven:
        raise ManifestError(
            problem=f"the chain has shard {proven[0]} with state root {proven[1]} and memory usage {proven[2]}, "
            f"the statement says shard {said[0]}, {said[1]}, {said[2]}",
            where=where,
            remedy="The statement is false. Fetch from another publisher.",
        )
    return header


def _chained(
    trusted_block: CryptoHash, sync_hash: CryptoHash, block_headers: Sequence[bytes], where: str
) -> tuple[BlockHeader, BlockHeader, bool]:
    """Return sync block, parent, and whether the sync block's hash is the trusted one."""
    first = f"{where}, header of the sync block"
    second = f"{where}, header of its parent"
    try:
        sync_block = decode_block_header(block_headers[0], first, trusted_block)
    except IntegrityError:
        parent = decode_block_header(block_headers[1], second, trusted_block)
        sync_block = decode_block_header(block_headers[0], first, sync_hash)
        if sync_block.prev_hash != trusted_block:
            raise IntegrityError(
                problem=f"the sync block's header names the parent {sync_block.prev_hash}, not {trusted_block}", where=first
            ) from None
        return sync_block, parent, False
    return sync_block, decode_block_header(block_headers[1], second, sync_block.prev_hash), True
