//! A node's rows, each decoded and checked by the hash that it was asked for by.

use borsh::BorshDeserialize;
use near_primitives::block::{Block, BlockHeader};
use near_primitives::epoch_info::EpochInfo;
use near_primitives::hash::{CryptoHash, hash};
use near_primitives::shard_layout::ShardLayout;
use near_primitives::sharding::{ChunkHash, ReceiptProof, ShardChunk};
use near_primitives::types::{EpochId, ShardId, StateRootNode};

use crate::error::{HeaderError, Result};

/// Most blocks that are walked back from the sync block: a shard that got no chunk for longer stood still for hours.
pub(crate) const BLOCKS_MAX: usize = 1 << 14;

const MEMORY_USAGE_BYTES: usize = 8;

/// The columns of a node that headers are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// By block hash.
    BlockHeader,
    /// By block hash.
    Block,
    /// By chunk hash.
    Chunks,
    /// By block hash and shard id (u64, little-endian).
    IncomingReceipts,
    /// By epoch id.
    EpochInfo,
    /// By node hash; the shard is the caller's affair, and so is the reference count.
    State,
    /// By epoch id: JSON of the epoch's shard layout. No column of a node: for a source that says layouts itself.
    ShardLayout,
}

impl RowKind {
    /// The column's name in nearcore.
    pub fn name(self) -> &'static str {
        match self {
            Self::BlockHeader => "BlockHeader",
            Self::Block => "Block",
            Self::Chunks => "Chunks",
            Self::IncomingReceipts => "IncomingReceipts",
            Self::EpochInfo => "EpochInfo",
            Self::State => "State",
            Self::ShardLayout => "ShardLayout",
        }
    }
}

/// Where rows come from.
pub trait Rows {
    /// Return a row; None when there is none.
    fn get(&self, kind: RowKind, key: &[u8]) -> Result<Option<Vec<u8>>>;
}

/// Rows as values.
#[derive(Clone, Copy)]
pub(crate) struct Chain<'a> {
    rows: &'a dyn Rows,
}

impl<'a> Chain<'a> {
    pub(crate) fn new(rows: &'a dyn Rows) -> Self {
        Self { rows }
    }

    pub(crate) fn header(&self, block_hash: &CryptoHash) -> Result<BlockHeader> {
        let header: BlockHeader = self.required(RowKind::BlockHeader, block_hash.as_ref(), block_hash)?;
        if header.hash() != block_hash {
            return Err(HeaderError::integrity(format!("the header hashes to {}", header.hash()), format!("BlockHeader {block_hash}")));
        }
        Ok(header)
    }

    /// The header of the ancestor at a height, the block itself counted.
    ///
    /// Source: nearcore chain/chain/src/store/utils.rs, `get_block_header_on_chain_by_height`.
    pub(crate) fn ancestor(&self, block_hash: &CryptoHash, height: u64) -> Result<BlockHeader> {
        let mut header = self.header(block_hash)?;
        for _ in 0..BLOCKS_MAX {
            if header.height() <= height {
                break;
            }
            header = self.header(header.prev_hash())?;
        }
        if header.height() != height {
            return Err(HeaderError::integrity(
                format!("no block of height {height} is among its last {BLOCKS_MAX} ancestors"),
                format!("block {block_hash}"),
            ));
        }
        Ok(header)
    }

    /// The block, or None when the node no longer has it. Its chunk headers are those that its hash was made of.
    pub(crate) fn block(&self, block_hash: &CryptoHash) -> Result<Option<Block>> {
        let Some(block) = self.optional::<Block>(RowKind::Block, block_hash.as_ref(), block_hash)? else {
            return Ok(None);
        };
        let header = block.header();
        let problem = if header.hash() != block_hash {
            "the block hashes to another hash"
        } else if &block.chunks().compute_chunk_headers_root().0 != header.chunk_headers_root() {
            "the chunk headers have another Merkle root than the block header says"
        } else if &block.chunks().compute_chunk_prev_outgoing_receipts_root() != header.prev_chunk_outgoing_receipts_root() {
            "the roots of outgoing receipts have another Merkle root than the block header says"
        } else if header.block_body_hash() != block.compute_block_body_hash() {
            "the body has another hash than the block header says"
        } else {
            return Ok(Some(block));
        };
        Err(HeaderError::integrity(problem, format!("Block {block_hash}")))
    }

    pub(crate) fn required_block(&self, block_hash: &CryptoHash) -> Result<Block> {
        self.block(block_hash)?.ok_or_else(|| no_row(RowKind::Block, block_hash))
    }

    /// Source: nearcore chain/chain/src/store/utils.rs, `get_chunk_clone_from_header`, which then sets the height.
    pub(crate) fn chunk(&self, chunk_hash: &ChunkHash, height_included: u64) -> Result<ShardChunk> {
        let mut chunk: ShardChunk = self.required(RowKind::Chunks, chunk_hash.as_ref(), &chunk_hash.0)?;
        chunk.set_height_included(height_included);
        Ok(chunk)
    }

    /// The receipts that a block brought a shard; none where there is no row, which is right where no chunk was new.
    pub(crate) fn incoming_receipts(&self, block_hash: &CryptoHash, shard_id: ShardId) -> Result<Vec<ReceiptProof>> {
        let key = [block_hash.as_bytes().as_slice(), &Into::<u64>::into(shard_id).to_le_bytes()].concat();
        Ok(self.optional(RowKind::IncomingReceipts, &key, block_hash)?.unwrap_or_default())
    }

    pub(crate) fn epoch_info(&self, epoch_id: &EpochId) -> Result<EpochInfo> {
        self.required(RowKind::EpochInfo, epoch_id.as_ref(), &epoch_id.0)
    }

    /// The layout that the source itself says an epoch has, where it says one.
    pub(crate) fn said_layout(&self, epoch_id: &EpochId) -> Result<Option<ShardLayout>> {
        let Some(row) = self.rows.get(RowKind::ShardLayout, epoch_id.as_ref())? else {
            return Ok(None);
        };
        let place = format!("ShardLayout {}", epoch_id.0);
        serde_json::from_slice(&row)
            .map(Some)
            .map_err(|error| HeaderError::unsupported(format!("the shard layout can't be read: {error}"), place))
    }

    /// Source: nearcore core/store/src/trie/mod.rs, `Trie::retrieve_root_node`: the node ends in its memory usage.
    pub(crate) fn state_root_node(&self, state_root: &CryptoHash) -> Result<StateRootNode> {
        if state_root == &CryptoHash::default() {
            return Ok(StateRootNode::empty());
        }
        let data = self.rows.get(RowKind::State, state_root.as_ref())?.ok_or_else(|| no_row(RowKind::State, state_root))?;
        let memory_usage = memory_usage(&data)
            .filter(|_| hash(&data) == *state_root)
            .ok_or_else(|| HeaderError::integrity("the node does not hash to its hash", format!("State {state_root}")))?;
        Ok(StateRootNode { data: data.into(), memory_usage })
    }

    fn required<T: BorshDeserialize>(&self, kind: RowKind, key: &[u8], name: &CryptoHash) -> Result<T> {
        self.optional(kind, key, name)?.ok_or_else(|| no_row(kind, name))
    }

    fn optional<T: BorshDeserialize>(&self, kind: RowKind, key: &[u8], name: &CryptoHash) -> Result<Option<T>> {
        let Some(row) = self.rows.get(kind, key)? else {
            return Ok(None);
        };
        let place = format!("{} {name}", kind.name());
        T::try_from_slice(&row).map(Some).map_err(|error| HeaderError::integrity(format!("the row can't be decoded: {error}"), place))
    }
}

/// The memory usage that a trie node's bytes end in.
pub(crate) fn memory_usage(node: &[u8]) -> Option<u64> {
    node.last_chunk::<MEMORY_USAGE_BYTES>().map(|bytes| u64::from_le_bytes(*bytes))
}

fn no_row(kind: RowKind, name: &CryptoHash) -> HeaderError {
    HeaderError::missing(format!("the node does not have the row {} {name}", kind.name()), "")
}
