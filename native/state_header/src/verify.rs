//! Verifying a header from the hash of the sync block down.
//!
//! All that nearcore checks before it believes a header of a peer is checked. Some bytes nearcore leaves unbound (the signatures of the
//! two chunk headers, the shard that receipts are said to go to, the side of a path that two equal neighbours leave open); these are
//! checked too, the signatures where the node has the blocks.
//!
//! Source: nearcore chain/chain/src/state_sync/adapter.rs, `set_state_header`; chain/chain/src/validate.rs, `validate_chunk_proofs`;
//! chain/chain/src/runtime/mod.rs, `validate_state_root_node`.

use std::collections::BTreeSet;

use borsh::{BorshDeserialize, BorshSerialize};
use near_primitives::block::BlockHeader;
use near_primitives::hash::{CryptoHash, hash};
use near_primitives::merkle::{MerklePath, merklize, verify_path_with_index};
use near_primitives::sharding::{ChunkHashHeight, ReceiptList, ReceiptProof, ShardChunk, ShardChunkHeader, ShardProof};
use near_primitives::state_sync::{ReceiptProofResponse, RootProof, ShardStateSyncResponseHeader};
use near_primitives::types::ShardId;
use near_primitives::types::StateRootNode;

use crate::error::{HeaderError, Result};
use crate::layout::{Layouts, ShardIndex};
use crate::receipts::{outgoing_receipts_root, receiving_blocks};
use crate::rows::{Chain, Rows, memory_usage};

/// What a header that verified says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// 1 or 2.
    pub version: u8,
    pub chunk_hash: [u8; 32],
    pub height_included: u64,
    pub state_root: [u8; 32],
    pub memory_usage: u64,
    /// Blocks whose receipts it holds.
    pub blocks: usize,
    /// Receipts that it holds for the shard.
    pub receipts: usize,
}

/// Verify the borsh bytes of a header against the hash of its sync block.
pub fn verify(rows: &dyn Rows, layouts: &Layouts, sync_hash: &[u8; 32], shard_id: u64, data: &[u8]) -> Result<Verified> {
    let header = ShardStateSyncResponseHeader::try_from_slice(data).map_err(|error| refusal(format!("can't be decoded: {error}")))?;
    // Two encodings of one header would have two digests.
    if borsh::to_vec(&header).is_ok_and(|encoded| encoded != data) {
        return Err(refusal("is not encoded as nearcore encodes it"));
    }
    verify_header(&Chain::new(rows), layouts, &CryptoHash(*sync_hash), ShardId::new(shard_id), &header)
}

pub(crate) fn verify_header(
    chain: &Chain<'_>,
    layouts: &Layouts,
    sync_hash: &CryptoHash,
    shard_id: ShardId,
    header: &ShardStateSyncResponseHeader,
) -> Result<Verified> {
    let chunk = header.cloned_chunk();
    if chunk.shard_id() != shard_id {
        return Err(refusal(format!("is of shard {}, not of shard {shard_id}", chunk.shard_id())));
    }
    let sync_prev_hash = *chain.header(sync_hash)?.prev_hash();
    let sync_prev = chain.header(&sync_prev_hash)?;
    let shard_index = layouts.index(chain, &sync_prev, shard_id)?;
    check_chunk_path(chain, &chunk.cloned_header(), header.chunk_proof(), &sync_prev, shard_index, "chunk")?;
    let chunk_block = chain.ancestor(sync_hash, chunk.height_included())?;
    check_chunk_body(chain, layouts, &chunk, &chunk_block)?;

    let prev_chunk_header = header.cloned_prev_chunk_header();
    match (&prev_chunk_header, header.prev_chunk_proof()) {
        (Some(prev_chunk_header), Some(path)) => {
            let prev = chain.header(chunk_block.prev_hash())?;
            check_chunk_path(chain, prev_chunk_header, path, &prev, shard_index, "previous chunk")?;
        }
        (None, None) if chunk.height_included() == 0 => {}
        _ => return Err(refusal("must have the previous chunk's header and its proof")),
    }
    let prev_height = prev_chunk_header.map_or(0, |header| header.height_included());
    let blocks = receiving_blocks(chain, layouts, sync_hash, prev_height)?;
    let receipts = check_receipts(chain, layouts, &blocks, shard_id, header)?;
    check_root_node(header.state_root_node(), &chunk.prev_state_root())?;
    Ok(Verified {
        version: match header {
            ShardStateSyncResponseHeader::V1(_) => 1,
            ShardStateSyncResponseHeader::V2(_) => 2,
        },
        chunk_hash: chunk.chunk_hash().0.0,
        height_included: chunk.height_included(),
        state_root: chunk.prev_state_root().0,
        memory_usage: header.state_root_node().memory_usage,
        blocks: blocks.len(),
        receipts,
    })
}

/// The path leads from the chunk header to the block; and byte for byte it is one of the block's, where the block is there.
fn check_chunk_path(
    chain: &Chain<'_>,
    chunk_header: &ShardChunkHeader,
    path: &MerklePath,
    block_header: &BlockHeader,
    shard_index: ShardIndex,
    name: &str,
) -> Result<()> {
    let leaf = ChunkHashHeight(chunk_header.chunk_hash().clone(), chunk_header.height_included());
    if !leads_to(*block_header.chunk_headers_root(), path, &leaf, shard_index) {
        return Err(refusal(format!("has a proof of the {name} that does not lead to block {}", block_header.hash())));
    }
    let block = chain.block(block_header.hash())?;
    if block.is_some_and(|block| block.chunks().get(shard_index.index) != Some(chunk_header)) {
        return Err(refusal(format!("has another header of the {name} than block {}", block_header.hash())));
    }
    Ok(())
}

/// Whether a path leads from the item at an index to the root. nearcore does not look at the index; but where two neighbours are
/// equal, a path that has them the wrong way round leads to the root as well.
fn leads_to<T: BorshSerialize>(root: CryptoHash, path: &MerklePath, item: T, at: ShardIndex) -> bool {
    verify_path_with_index(root, path, item, at.index as u64, at.shards)
}

fn check_chunk_body(chain: &Chain<'_>, layouts: &Layouts, chunk: &ShardChunk, chunk_block: &BlockHeader) -> Result<()> {
    let computed = chunk.compute_header_hash();
    if chunk.header_hash() != &computed || chunk.chunk_hash() != &computed {
        return Err(refusal("names its chunk by another hash than the chunk header has"));
    }
    if &merklize(chunk.to_transactions()).0 != chunk.tx_root() {
        return Err(refusal("has other transactions than the chunk header says"));
    }
    let receipts = chunk.prev_outgoing_receipts();
    let receipts_root = if chunk.height_created() == 0 && receipts.is_empty() {
        CryptoHash::default()
    } else {
        outgoing_receipts_root(receipts, layouts.of(chain, chunk_block)?.as_ref())?
    };
    if &receipts_root != chunk.prev_outgoing_receipts_root() {
        return Err(refusal("has other outgoing receipts than the chunk header says, or the shard layout is not the epoch's"));
    }
    Ok(())
}

fn check_receipts(
    chain: &Chain<'_>,
    layouts: &Layouts,
    blocks: &[BlockHeader],
    shard_id: ShardId,
    header: &ShardStateSyncResponseHeader,
) -> Result<usize> {
    let responses = header.incoming_receipts_proofs();
    if responses.len() != blocks.len() || header.root_proofs().len() != blocks.len() {
        return Err(refusal(format!("has the receipts of {} blocks, not of {}", responses.len(), blocks.len())));
    }
    let mut count = 0;
    for ((block, response), root_proofs) in blocks.iter().zip(responses).zip(header.root_proofs()) {
        let ReceiptProofResponse(block_hash, receipt_proofs) = response;
        if block_hash != block.hash() {
            return Err(refusal(format!("has the receipts of block {block_hash} where those of {} belong", block.hash())));
        }
        let new_chunks = block.chunks_included();
        if receipt_proofs.len() as u64 != new_chunks || root_proofs.len() as u64 != new_chunks {
            return Err(refusal(format!("has not one proof of receipts for each new chunk of block {block_hash}")));
        }
        let to = layouts.index(chain, block, shard_id)?;
        let mut from_shards = BTreeSet::new();
        for (receipt_proof, root_proof) in receipt_proofs.iter().zip(root_proofs) {
            // With as many proofs as new chunks, and no shard twice, no receipt can be hidden.
            if !from_shards.insert(receipt_proof.1.from_shard_id) {
                return Err(refusal(format!("has two proofs of receipts from one shard in block {block_hash}")));
            }
            let from = layouts.index(chain, block, receipt_proof.1.from_shard_id)?;
            check_receipt_proof(block, shard_id, from, to, receipt_proof, root_proof)?;
            count += receipt_proof.0.len();
        }
    }
    Ok(count)
}

fn check_receipt_proof(
    block: &BlockHeader,
    shard_id: ShardId,
    from: ShardIndex,
    to: ShardIndex,
    receipt_proof: &ReceiptProof,
    root_proof: &RootProof,
) -> Result<()> {
    let ReceiptProof(receipts, ShardProof { from_shard_id, to_shard_id, proof }) = receipt_proof;
    let RootProof(root, root_path) = root_proof;
    let receipts_hash = CryptoHash::hash_borsh(ReceiptList(shard_id, receipts));
    if *to_shard_id == shard_id
        && block.chunk_mask().get(from.index) == Some(&true)
        && leads_to(*root, proof, receipts_hash, to)
        && leads_to(*block.prev_chunk_outgoing_receipts_root(), root_path, root, from)
    {
        return Ok(());
    }
    Err(refusal(format!("has receipts from shard {from_shard_id} that are not those of block {}", block.hash())))
}

fn check_root_node(node: &StateRootNode, state_root: &CryptoHash) -> Result<()> {
    let is_valid = if state_root == &CryptoHash::default() {
        node == &StateRootNode::empty()
    } else {
        hash(&node.data) == *state_root && memory_usage(&node.data) == Some(node.memory_usage)
    };
    if is_valid { Ok(()) } else { Err(refusal(format!("does not have the node of state root {state_root}"))) }
}

fn refusal(problem: impl AsRef<str>) -> HeaderError {
    HeaderError::integrity(format!("the state header {}", problem.as_ref()), "")
}
