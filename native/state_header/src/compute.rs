//! Computing a header out of rows.

use std::sync::Arc;

use near_primitives::block::Block;
use near_primitives::hash::CryptoHash;
use near_primitives::merkle::MerklePath;
use near_primitives::sharding::{ReceiptProof, ShardChunk, ShardChunkHeader};
use near_primitives::state_sync::{ReceiptProofResponse, RootProof, ShardStateSyncResponseHeader, ShardStateSyncResponseHeaderV2};
use near_primitives::types::ShardId;

use crate::error::{HeaderError, Result};
use crate::layout::Layouts;
use crate::receipts::{receipts_root_paths, receiving_blocks};
use crate::rows::{Chain, Rows};
use crate::verify::verify_header;

/// Compute the header of a shard at a sync block, verify it, and return its borsh bytes.
///
/// Source: nearcore chain/chain/src/state_sync/adapter.rs, `compute_state_response_header`.
pub fn compute(rows: &dyn Rows, layouts: &Layouts, sync_hash: &[u8; 32], shard_id: u64) -> Result<Vec<u8>> {
    let chain = Chain::new(rows);
    let sync_hash = CryptoHash(*sync_hash);
    let shard_id = ShardId::new(shard_id);
    let header = build(&chain, layouts, &sync_hash, shard_id)?;
    verify_header(&chain, layouts, &sync_hash, shard_id, &header)?;
    Ok(borsh::to_vec(&header).expect("writing to memory does not fail"))
}

fn build(chain: &Chain<'_>, layouts: &Layouts, sync_hash: &CryptoHash, shard_id: ShardId) -> Result<ShardStateSyncResponseHeader> {
    let sync_block = chain.header(sync_hash)?;
    let sync_prev_block = chain.required_block(sync_block.prev_hash())?;
    let shard_index = layouts.index(chain, sync_prev_block.header(), shard_id)?.index;
    let chunk_header = chunk_at(&sync_prev_block, shard_index)?;
    if chunk_header.shard_id() != shard_id {
        return Err(HeaderError::unsupported(
            format!("the chunk in the place of shard {shard_id} is of shard {}: of before a resharding", chunk_header.shard_id()),
            format!("Block {}", sync_prev_block.hash()),
        ));
    }
    let chunk = chain.chunk(chunk_header.chunk_hash(), chunk_header.height_included())?;

    let chunk_block = chain.ancestor(sync_hash, chunk_header.height_included())?;
    let (prev_chunk_header, prev_chunk_proof) = if chunk_block.is_genesis() {
        (None, None)
    } else {
        let block = chain.required_block(chunk_block.prev_hash())?;
        (Some(chunk_at(&block, shard_index)?), Some(chunk_path(&block, shard_index)))
    };

    let prev_height = prev_chunk_header.as_ref().map_or(0, ShardChunkHeader::height_included);
    let mut incoming_receipts_proofs = Vec::new();
    let mut root_proofs = Vec::new();
    for block in receiving_blocks(chain, layouts, sync_hash, prev_height)? {
        let receipts = chain.incoming_receipts(block.hash(), shard_id)?;
        if receipts.len() as u64 != block.chunks_included() {
            return Err(HeaderError::missing(
                format!(
                    "the node has the receipts of {} of the block's {} new chunks for shard {shard_id}",
                    receipts.len(),
                    block.chunks_included()
                ),
                format!("IncomingReceipts {}", block.hash()),
            ));
        }
        root_proofs.push(prove_roots(chain, layouts, &chain.required_block(block.hash())?, &receipts)?);
        incoming_receipts_proofs.push(ReceiptProofResponse(*block.hash(), Arc::new(receipts)));
    }

    Ok(ShardStateSyncResponseHeader::V2(ShardStateSyncResponseHeaderV2 {
        // Beside a chunk of V1 there can be no other header than one of V1.
        prev_chunk_header: prev_chunk_header
            .filter(|header| matches!(chunk, ShardChunk::V2(_)) || matches!(header, ShardChunkHeader::V1(_))),
        chunk,
        chunk_proof: chunk_path(&sync_prev_block, shard_index),
        prev_chunk_proof,
        incoming_receipts_proofs,
        root_proofs,
        state_root_node: chain.state_root_node(&chunk_header.prev_state_root())?,
    }))
}

fn chunk_at(block: &Block, shard_index: usize) -> Result<ShardChunkHeader> {
    block
        .chunks()
        .get(shard_index)
        .cloned()
        .ok_or_else(|| HeaderError::unsupported("the block has fewer chunks than its epoch has shards", format!("Block {}", block.hash())))
}

fn chunk_path(block: &Block, shard_index: usize) -> MerklePath {
    block.chunks().compute_chunk_headers_root().1[shard_index].clone()
}

/// For each proof of receipts: the root of its source shard, and that root's path in the block.
fn prove_roots(chain: &Chain<'_>, layouts: &Layouts, block: &Block, receipts: &[ReceiptProof]) -> Result<Vec<RootProof>> {
    let paths = receipts_root_paths(block);
    let prove = |receipt_proof: &ReceiptProof| {
        let index = layouts.index(chain, block.header(), receipt_proof.1.from_shard_id)?.index;
        Ok(RootProof(*chunk_at(block, index)?.prev_outgoing_receipts_root(), paths[index].clone()))
    };
    receipts.iter().map(prove).collect()
}
