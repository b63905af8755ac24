//! Roots over receipts, and the blocks whose receipts a header holds.

use std::collections::BTreeMap;

use near_primitives::block::{Block, BlockHeader};
use near_primitives::hash::CryptoHash;
use near_primitives::merkle::{MerklePath, merklize};
use near_primitives::receipt::Receipt;
use near_primitives::shard_layout::ShardLayout;
use near_primitives::types::ShardId;

use crate::error::{HeaderError, Result};
use crate::layout::Layouts;
use crate::rows::{BLOCKS_MAX, Chain};

/// The root over a chunk's outgoing receipts, grouped by the shards that they go to.
///
/// Source: nearcore chain/chain/src/chain.rs, `Chain::build_receipts_hashes`.
pub(crate) fn outgoing_receipts_root(receipts: &[Receipt], layout: &ShardLayout) -> Result<CryptoHash> {
    let mut groups: Vec<(ShardId, Vec<&Receipt>)> = layout.shard_ids().map(|shard_id| (shard_id, Vec::new())).collect();
    let indexes: BTreeMap<ShardId, usize> = layout.shard_ids().zip(0..).collect();
    for receipt in receipts {
        let shard_id = receipt
            .receiver_shard_id(layout)
            .map_err(|error| HeaderError::integrity(error.to_string(), format!("receipt {}", receipt.receipt_id())))?;
        groups[indexes[&shard_id]].1.push(receipt);
    }
    // The leaves are hashes, and a Merkle tree hashes its leaves: so each group is hashed twice.
    let hashes: Vec<CryptoHash> = groups.iter().map(CryptoHash::hash_borsh).collect();
    Ok(merklize(&hashes).0)
}

/// The Merkle paths of the roots of outgoing receipts in a block.
pub(crate) fn receipts_root_paths(block: &Block) -> Vec<MerklePath> {
    let roots: Vec<CryptoHash> = block.chunks().iter_raw().map(|chunk| *chunk.prev_outgoing_receipts_root()).collect();
    merklize(&roots).1
}

/// The headers from the sync block back to above the height of the shard's previous chunk: they bring the receipts for its last one.
///
/// Source: nearcore chain/chain/src/store/utils.rs, `get_incoming_receipts_for_shard`. Where the layout changes on the way, nearcore
/// goes on with the parent shard; there, no header is computed.
pub(crate) fn receiving_blocks(
    chain: &Chain<'_>,
    layouts: &Layouts,
    sync_hash: &CryptoHash,
    above_height: u64,
) -> Result<Vec<BlockHeader>> {
    let mut headers: Vec<BlockHeader> = Vec::new();
    let mut header = chain.header(sync_hash)?;
    while header.height() > above_height {
        if headers.len() == BLOCKS_MAX {
            return Err(HeaderError::unsupported(format!("the shard got no chunk in {BLOCKS_MAX} blocks"), format!("block {sync_hash}")));
        }
        if let Some(last) = headers.last()
            && last.epoch_id() != header.epoch_id()
            && layouts.of(chain, last)? != layouts.of(chain, &header)?
        {
            return Err(HeaderError::unsupported(
                "the shard layout changes between the blocks whose receipts the header would hold",
                format!("block {}", last.hash()),
            ));
        }
        let parent = *header.prev_hash();
        headers.push(header);
        header = chain.header(&parent)?;
    }
    if header.height() != above_height {
        return Err(HeaderError::integrity(
            format!("no block on the way has the height {above_height} of the previous chunk"),
            format!("block {sync_hash}"),
        ));
    }
    Ok(headers)
}
