//! Real blocks of mainnet and testnet, as JSON-RPC and the NEAR lake show them. They lie beside the checkout, and not in it.

use std::fs;
use std::path::Path;

use near_primitives::block::{Block, BlockHeader, BlockV2, Chunks};
use near_primitives::block_header::{BlockHeaderInnerLite, BlockHeaderV3, BlockHeaderV4, BlockHeaderV5};
use near_primitives::hash::CryptoHash;
use near_primitives::sharding::{ShardChunkHeader, ShardChunkHeaderV1};
use near_primitives::stateless_validation::chunk_endorsements_bitmap::ChunkEndorsementsBitmap;
use near_primitives::types::EpochId;
use near_primitives::views::{BlockHeaderView, ChunkHeaderView};
use serde_json::Value;

use super::made_chain::{MadeChain, zero};
use crate::RowKind;
use crate::rows::Chain;

fn vectors() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/real/blocks_with_chunks.json");
    let Ok(text) = fs::read_to_string(&path) else {
        eprintln!("skipped: {} is not there", path.display());
        return Vec::new();
    };
    let document: Value = serde_json::from_str(&text).unwrap();
    document["vectors"].as_array().unwrap().clone()
}

/// near-primitives turns a view into the newest version that has its fields; older ones are filled here.
fn chunk_header(value: &Value, version: &str) -> ShardChunkHeader {
    let mut value = value.clone();
    if value.get("height_included").is_none() {
        value["height_included"] = 0.into();
    }
    let view: ChunkHeaderView = serde_json::from_value(value).unwrap();
    if version != "V1" {
        return view.into();
    }
    let mut header: ShardChunkHeaderV1 = zero();
    let inner = &mut header.inner;
    inner.prev_block_hash = view.prev_block_hash;
    inner.prev_state_root = view.prev_state_root;
    inner.prev_outcome_root = view.outcome_root;
    inner.encoded_merkle_root = view.encoded_merkle_root;
    inner.encoded_length = view.encoded_length;
    inner.height_created = view.height_created;
    inner.shard_id = view.shard_id;
    inner.prev_gas_used = view.gas_used;
    inner.gas_limit = view.gas_limit;
    inner.prev_balance_burnt = view.balance_burnt;
    inner.prev_outgoing_receipts_root = view.outgoing_receipts_root;
    inner.tx_root = view.tx_root;
    header.init();
    ShardChunkHeader::V1(header)
}

fn block_header(view: BlockHeaderView, version: u64) -> BlockHeader {
    macro_rules! filled {
        ($header_type:ty, $variant:expr, |$rest:ident| $more:expr) => {{
            let mut header: $header_type = zero();
            header.prev_hash = view.prev_hash;
            header.inner_lite = BlockHeaderInnerLite {
                height: view.height,
                epoch_id: EpochId(view.epoch_id),
                next_epoch_id: EpochId(view.next_epoch_id),
                prev_state_root: view.prev_state_root,
                prev_outcome_root: view.outcome_root,
                timestamp: view.timestamp_nanosec,
                next_bp_hash: view.next_bp_hash,
                block_merkle_root: view.block_merkle_root,
            };
            let $rest = &mut header.inner_rest;
            $rest.prev_chunk_outgoing_receipts_root = view.chunk_receipts_root;
            $rest.chunk_headers_root = view.chunk_headers_root;
            $rest.chunk_tx_root = view.chunk_tx_root;
            $rest.random_value = view.random_value;
            $rest.prev_validator_proposals = view.validator_proposals.into_iter().map(|stake| stake.into_validator_stake()).collect();
            $rest.chunk_mask = view.chunk_mask;
            $rest.next_gas_price = view.gas_price;
            $rest.block_ordinal = view.block_ordinal.unwrap();
            $rest.total_supply = view.total_supply;
            $rest.last_final_block = view.last_final_block;
            $rest.last_ds_final_block = view.last_ds_final_block;
            $rest.prev_height = view.prev_height.unwrap();
            $rest.epoch_sync_data_hash = view.epoch_sync_data_hash;
            $rest.approvals = view.approvals;
            $rest.latest_protocol_version = view.latest_protocol_version;
            $more;
            header.init();
            $variant(header)
        }};
    }
    match version {
        3 => filled!(BlockHeaderV3, BlockHeader::BlockHeaderV3, |rest| rest.latest_protocol_version = view.latest_protocol_version),
        4 => filled!(BlockHeaderV4, BlockHeader::BlockHeaderV4, |rest| rest.block_body_hash = view.block_body_hash.unwrap()),
        5 => filled!(BlockHeaderV5, BlockHeader::BlockHeaderV5, |rest| {
            rest.block_body_hash = view.block_body_hash.unwrap();
            rest.chunk_endorsements = ChunkEndorsementsBitmap::from_bytes(view.chunk_endorsements.unwrap());
        }),
        other => unreachable!("V{other}"),
    }
}

fn chunk_headers(vector: &Value) -> Vec<(ShardChunkHeader, CryptoHash)> {
    let versions = vector["chunk_header_versions"].as_array().unwrap();
    let chunks = vector["chunks"].as_array().unwrap();
    let pairs = chunks.iter().zip(versions);
    pairs.map(|(value, version)| (chunk_header(value, version.as_str().unwrap()), hash_of(&value["chunk_hash"]))).collect()
}

fn hash_of(value: &Value) -> CryptoHash {
    value.as_str().unwrap().parse().unwrap()
}

/// Block hashes, chunk hashes and Merkle roots come out as the chain has them.
#[test]
fn real_blocks_hash() {
    let mut blocks = 0;
    for vector in vectors().iter().filter(|vector| vector.get("header").is_some()) {
        let view: BlockHeaderView = serde_json::from_value(vector["header"].clone()).unwrap();
        let version = vector["header_version"].as_u64().unwrap();
        let header = block_header(view, version);
        let chunks: Vec<ShardChunkHeader> = chunk_headers(vector).into_iter().map(|(chunk, _)| chunk).collect();
        let all = Chunks::from_chunk_headers(&chunks, header.height());
        assert_eq!(&all.compute_chunk_headers_root().0, header.chunk_headers_root(), "{}", vector["id"]);
        assert_eq!(&all.compute_chunk_prev_outgoing_receipts_root(), header.prev_chunk_outgoing_receipts_root(), "{}", vector["id"]);
        assert_eq!(header.hash(), &hash_of(&vector["header"]["hash"]), "{} V{version}", vector["id"]);
        check_rows(header, chunks);
        blocks += 1;
    }
    assert!(blocks == 5 || vectors().is_empty());
}

/// The rows of a database with that block are taken, and refused under another hash.
#[allow(deprecated)]
fn check_rows(header: BlockHeader, chunks: Vec<ShardChunkHeader>) {
    let hash = *header.hash();
    let other = CryptoHash([9; 32]);
    let mut rows = MadeChain::default();
    rows.put(RowKind::BlockHeader, hash.as_ref(), &header);
    rows.put(RowKind::BlockHeader, other.as_ref(), &header);
    let has_body_hash = header.block_body_hash().is_some();
    let block = Block::BlockV2(BlockV2 { header, chunks, challenges: Vec::new(), vrf_value: zero(), vrf_proof: zero() });
    rows.put(RowKind::Block, hash.as_ref(), &block);
    let chain = Chain::new(&rows);
    assert_eq!(chain.header(&hash).unwrap().hash(), &hash);
    assert!(chain.header(&other).is_err());
    // JSON has not all of a body; so where the header binds its hash, this body is refused.
    assert_eq!(chain.block(&hash).is_ok(), !has_body_hash);
}

/// Those of the blocks, and those that are there alone.
#[test]
fn real_chunk_headers_hash() {
    let found: Vec<_> = vectors().iter().flat_map(chunk_headers).collect();
    for (chunk, hash) in &found {
        assert_eq!(&chunk.chunk_hash().0, hash);
    }
    assert!(found.len() == 26 || vectors().is_empty());
}
