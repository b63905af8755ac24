//! A chain of two shards whose chunks may be missing from blocks, in each version of blocks and chunk headers.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use near_primitives::block::{Block, BlockHeader, BlockV1, BlockV2, BlockV3, BlockV4};
use near_primitives::block_body::{BlockBody, BlockBodyV2};
use near_primitives::block_header::{BlockHeaderV1, BlockHeaderV2, BlockHeaderV3, BlockHeaderV4, BlockHeaderV5, BlockHeaderV6};
use near_primitives::epoch_info::EpochInfo;
use near_primitives::hash::CryptoHash;
use near_primitives::merkle::{MerklePath, merklize};
use near_primitives::shard_layout::ShardLayout;
use near_primitives::sharding::{
    ReceiptList, ReceiptProof, ShardChunk, ShardChunkHeader, ShardChunkHeaderV1, ShardChunkHeaderV2, ShardChunkHeaderV3, ShardChunkV1,
    ShardChunkV2, ShardProof, shard_chunk_header_inner::ShardChunkHeaderInner,
};
use near_primitives::types::ShardId;

use crate::{Layouts, Result, RowKind, Rows};

/// Which versions a chain has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Versions {
    /// 1 to 6.
    pub(super) block_header: u8,
    /// 1 to 3.
    pub(super) chunk_header: u8,
    /// 1 to 5, for chunk headers of V3.
    pub(super) inner: u8,
}

/// Rows in memory.
#[derive(Default)]
pub(super) struct MadeChain {
    rows: BTreeMap<(&'static str, Vec<u8>), Vec<u8>>,
    pub(super) hashes: BTreeMap<u64, CryptoHash>,
}

impl Rows for MadeChain {
    fn get(&self, kind: RowKind, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.rows.get(&(kind.name(), key.to_vec())).cloned())
    }
}

/// A value that is made of zeros.
pub(super) fn zero<T: BorshDeserialize>() -> T {
    T::deserialize(&mut [0; 1 << 12].as_slice()).expect("every version can be zero")
}

pub(super) fn layout() -> ShardLayout {
    ShardLayout::v2(vec!["mm".parse().unwrap()], vec![ShardId::new(0), ShardId::new(1)], None)
}

pub(super) fn layouts() -> Layouts {
    Layouts::new("made", Some(&serde_json::to_string(&layout()).unwrap())).unwrap()
}

impl MadeChain {
    /// Blocks of heights 1 to `height`; `is_missing` tells where a shard has no new chunk.
    pub(super) fn new(versions: Versions, height: u64, is_missing: impl Fn(u64, u64) -> bool) -> Self {
        let mut chain = Self::default();
        chain.put(RowKind::EpochInfo, CryptoHash::default().as_ref(), &zero::<EpochInfo>());
        let (receipts_root, receipt_paths) = no_receipts();
        let mut parent = CryptoHash([7; 32]);
        let mut chunks: Vec<ShardChunkHeader> = Vec::new();
        for height in 1..=height {
            for (index, shard_id) in layout().shard_ids().enumerate() {
                if is_missing(height, shard_id.into()) {
                    continue;
                }
                let mut header = chunk_header(versions, height, shard_id, parent, receipts_root);
                chain.put(RowKind::Chunks, header.chunk_hash().as_ref(), &empty_chunk(header.clone()));
                *header.height_included_mut() = height;
                chunks.truncate(chunks.len().max(index));
                if index < chunks.len() { chunks[index] = header } else { chunks.push(header) }
            }
            let block = block(versions, height, parent, &chunks);
            parent = *block.hash();
            chain.put(RowKind::Block, parent.as_ref(), &block);
            chain.put(RowKind::BlockHeader, parent.as_ref(), block.header());
            chain.hashes.insert(height, parent);
            chain.put_receipts(&block, &receipt_paths);
        }
        chain
    }

    pub(super) fn put<T: BorshSerialize>(&mut self, kind: RowKind, key: &[u8], value: &T) {
        self.put_bytes(kind, key, borsh::to_vec(value).unwrap());
    }

    pub(super) fn put_bytes(&mut self, kind: RowKind, key: &[u8], row: Vec<u8>) {
        self.rows.insert((kind.name(), key.to_vec()), row);
    }

    /// neard writes no row for a block without new chunks.
    fn put_receipts(&mut self, block: &Block, paths: &[MerklePath]) {
        let height = block.header().height();
        for (to_index, to_shard_id) in layout().shard_ids().enumerate() {
            let proofs: Vec<ReceiptProof> = block
                .chunks()
                .iter_raw()
                .filter(|chunk| chunk.is_new_chunk(height))
                .map(|chunk| {
                    let proof = paths[to_index].clone();
                    ReceiptProof(Vec::new(), ShardProof { from_shard_id: chunk.shard_id(), to_shard_id, proof })
                })
                .collect();
            if !proofs.is_empty() {
                let key = [block.hash().as_bytes().as_slice(), &Into::<u64>::into(to_shard_id).to_le_bytes()].concat();
                self.put(RowKind::IncomingReceipts, &key, &proofs);
            }
        }
    }
}

fn no_receipts() -> (CryptoHash, Vec<MerklePath>) {
    let hashes: Vec<CryptoHash> = layout().shard_ids().map(|shard_id| CryptoHash::hash_borsh(ReceiptList(shard_id, &[]))).collect();
    merklize(&hashes)
}

fn chunk_header(versions: Versions, height: u64, shard_id: ShardId, parent: CryptoHash, receipts_root: CryptoHash) -> ShardChunkHeader {
    macro_rules! filled {
        ($inner:expr) => {{
            let inner = $inner;
            inner.height_created = height;
            inner.shard_id = shard_id;
            inner.prev_block_hash = parent;
            inner.prev_outgoing_receipts_root = receipts_root;
        }};
    }
    match versions.chunk_header {
        1 => {
            let mut header: ShardChunkHeaderV1 = zero();
            filled!(&mut header.inner);
            header.init();
            ShardChunkHeader::V1(header)
        }
        2 => {
            let mut header: ShardChunkHeaderV2 = zero();
            filled!(&mut header.inner);
            header.init();
            ShardChunkHeader::V2(header)
        }
        _ => {
            let mut header: ShardChunkHeaderV3 = zero();
            header.inner = match versions.inner {
                1 => ShardChunkHeaderInner::V1(zero()),
                2 => ShardChunkHeaderInner::V2(zero()),
                3 => ShardChunkHeaderInner::V3(zero()),
                4 => ShardChunkHeaderInner::V4(zero()),
                _ => ShardChunkHeaderInner::V5(zero()),
            };
            match &mut header.inner {
                ShardChunkHeaderInner::V1(inner) => filled!(inner),
                ShardChunkHeaderInner::V2(inner) => filled!(inner),
                ShardChunkHeaderInner::V3(inner) => filled!(inner),
                ShardChunkHeaderInner::V4(inner) => filled!(inner),
                ShardChunkHeaderInner::V5(inner) => filled!(inner),
                other => unreachable!("{other:?}"),
            }
            header.init();
            ShardChunkHeader::V3(header)
        }
    }
}

fn empty_chunk(header: ShardChunkHeader) -> ShardChunk {
    let chunk_hash = header.chunk_hash().clone();
    match header {
        ShardChunkHeader::V1(header) => {
            ShardChunk::V1(ShardChunkV1 { chunk_hash, header, transactions: Vec::new(), prev_outgoing_receipts: Vec::new() })
        }
        header => ShardChunk::V2(ShardChunkV2 { chunk_hash, header, transactions: Vec::new(), prev_outgoing_receipts: Vec::new() }),
    }
}

#[allow(deprecated)]
fn block(versions: Versions, height: u64, parent: CryptoHash, chunks: &[ShardChunkHeader]) -> Block {
    let body = BlockBody::V2(BlockBodyV2 {
        chunks: chunks.to_vec(),
        challenges: Vec::new(),
        vrf_value: zero(),
        vrf_proof: zero(),
        chunk_endorsements: Vec::new(),
    });
    let header = block_header(versions.block_header, height, parent, chunks, body.compute_hash());
    match (versions.block_header, chunks.first()) {
        (1..=3, Some(ShardChunkHeader::V1(_))) => Block::BlockV1(BlockV1 {
            header,
            chunks: chunks
                .iter()
                .map(|chunk| match chunk {
                    ShardChunkHeader::V1(chunk) => chunk.clone(),
                    other => unreachable!("{other:?}"),
                })
                .collect(),
            challenges: Vec::new(),
            vrf_value: zero(),
            vrf_proof: zero(),
        }),
        (1..=3, _) => {
            Block::BlockV2(BlockV2 { header, chunks: chunks.to_vec(), challenges: Vec::new(), vrf_value: zero(), vrf_proof: zero() })
        }
        (4, _) => {
            let mut body: near_primitives::block_body::BlockBodyV1 = zero();
            body.chunks = chunks.to_vec();
            let header = block_header(4, height, parent, chunks, body.compute_hash());
            Block::BlockV3(BlockV3 { header, body })
        }
        _ => Block::BlockV4(BlockV4 { header, body }),
    }
}

fn block_header(version: u8, height: u64, parent: CryptoHash, chunks: &[ShardChunkHeader], body_hash: CryptoHash) -> BlockHeader {
    let leaves: Vec<_> = chunks
        .iter()
        .map(|chunk| near_primitives::sharding::ChunkHashHeight(chunk.chunk_hash().clone(), chunk.height_included()))
        .collect();
    let roots: Vec<CryptoHash> = chunks.iter().map(|chunk| *chunk.prev_outgoing_receipts_root()).collect();
    let mask: Vec<bool> = chunks.iter().map(|chunk| chunk.is_new_chunk(height)).collect();
    macro_rules! filled {
        ($header_type:ty, $variant:expr, |$rest:ident| $more:expr) => {{
            let mut header: $header_type = zero();
            header.prev_hash = parent;
            header.inner_lite.height = height;
            let $rest = &mut header.inner_rest;
            $rest.chunk_headers_root = merklize(&leaves).0;
            $rest.prev_chunk_outgoing_receipts_root = merklize(&roots).0;
            $rest.chunk_mask = mask.clone();
            $more;
            header.init();
            $variant(header)
        }};
    }
    match version {
        1 => filled!(BlockHeaderV1, BlockHeader::BlockHeaderV1, |rest| rest.chunks_included =
            mask.iter().filter(|is_new| **is_new).count() as u64),
        2 => filled!(BlockHeaderV2, BlockHeader::BlockHeaderV2, |rest| rest.latest_protocol_version = 1),
        3 => filled!(BlockHeaderV3, BlockHeader::BlockHeaderV3, |rest| rest.latest_protocol_version = 1),
        4 => filled!(BlockHeaderV4, BlockHeader::BlockHeaderV4, |rest| rest.block_body_hash = body_hash),
        5 => filled!(BlockHeaderV5, BlockHeader::BlockHeaderV5, |rest| rest.block_body_hash = body_hash),
        _ => filled!(BlockHeaderV6, BlockHeader::BlockHeaderV6, |rest| rest.block_body_hash = body_hash),
    }
}
