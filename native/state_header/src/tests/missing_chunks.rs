//! Headers of shards that were left out of blocks, in every version of blocks and chunks.

use borsh::BorshDeserialize;
use near_primitives::state_sync::ShardStateSyncResponseHeader;

use super::made_chain::{MadeChain, Versions, layouts};
use crate::{ErrorKind, RowKind, compute, verify};

const NEWEST: Versions = Versions { block_header: 6, chunk_header: 3, inner: 5 };

/// Shard 1 is left out of blocks 4 and 6, shard 0 of block 4 too.
fn is_missing(height: u64, shard_id: u64) -> bool {
    height == 4 || (height == 6 && shard_id == 1)
}

fn decoded(data: &[u8]) -> ShardStateSyncResponseHeader {
    ShardStateSyncResponseHeader::try_from_slice(data).unwrap()
}

/// The sync block is 7, so the chunk is of block 5, the one before it of block 3: receipts come from blocks 7 to 4, newest first.
#[test]
fn receipts_of_all_blocks_since_the_previous_chunk_are_there() {
    let chain = MadeChain::new(NEWEST, 8, is_missing);
    let data = compute(&chain, &layouts(), &chain.hashes[&7].0, 1).unwrap();
    let header = decoded(&data);
    assert_eq!(header.chunk_height_included(), 5);
    assert_eq!(header.cloned_prev_chunk_header().unwrap().height_included(), 3);
    let blocks: Vec<_> = header.incoming_receipts_proofs().iter().map(|response| (response.0, response.1.len())).collect();
    // Block 4 has no new chunk, and neard no row of receipts for it.
    assert_eq!(blocks, [(chain.hashes[&7], 2), (chain.hashes[&6], 1), (chain.hashes[&5], 2), (chain.hashes[&4], 0)]);
    let verified = verify(&chain, &layouts(), &chain.hashes[&7].0, 1, &data).unwrap();
    assert_eq!((verified.height_included, verified.blocks, verified.memory_usage), (5, 4, 0));
}

/// A shard with a chunk in every block holds the receipts of two.
#[test]
fn a_shard_without_gaps_has_the_receipts_of_two_blocks() {
    let chain = MadeChain::new(NEWEST, 8, is_missing);
    let data = compute(&chain, &layouts(), &chain.hashes[&7].0, 0).unwrap();
    assert_eq!(decoded(&data).incoming_receipts_proofs().len(), 2);
}

/// All that nearcore's chain contains, from its first blocks on.
#[test]
fn every_version_gives_a_header() {
    let mut all = Vec::new();
    for block_header in 1..=6 {
        for chunk_header in 1..=3 {
            for inner in if chunk_header == 3 { 1..=5 } else { 1..=1 } {
                all.push(Versions { block_header, chunk_header, inner });
            }
        }
    }
    assert_eq!(all.len(), 42);
    for versions in all {
        let chain = MadeChain::new(versions, 8, is_missing);
        for shard_id in [0, 1] {
            let data = compute(&chain, &layouts(), &chain.hashes[&7].0, shard_id).unwrap_or_else(|error| panic!("{versions:?}: {error}"));
            // neard writes V2 headers, whatever the chunk is.
            assert_eq!(data[..2], [1, u8::from(versions.chunk_header > 1)], "{versions:?}");
        }
    }
}

/// No bit of a header of a shard with gaps can be changed.
#[test]
fn a_changed_byte_is_refused() {
    let chain = MadeChain::new(NEWEST, 8, is_missing);
    let data = compute(&chain, &layouts(), &chain.hashes[&7].0, 1).unwrap();
    for index in 0..data.len() {
        let mut changed = data.clone();
        changed[index] ^= 1;
        assert!(verify(&chain, &layouts(), &chain.hashes[&7].0, 1, &changed).is_err(), "byte {index}");
    }
}

/// A node that lacks a row of receipts has not had them: a header without them would not be believed.
#[test]
fn receipts_that_the_node_never_had_are_told() {
    let mut chain = MadeChain::new(NEWEST, 8, is_missing);
    let key = [chain.hashes[&6].as_bytes().as_slice(), &1u64.to_le_bytes()].concat();
    chain.put(RowKind::IncomingReceipts, &key, &Vec::<u8>::new());
    let error = compute(&chain, &layouts(), &chain.hashes[&7].0, 1).unwrap_err();
    assert_eq!(error.kind, ErrorKind::MissingRow);
    assert!(error.problem.contains("0 of the block's 1 new chunks"), "{error}");
}

/// The walk back ends where the rows end, in an error.
#[test]
fn a_chain_that_is_too_short_is_told() {
    let chain = MadeChain::new(NEWEST, 3, |height, shard_id| height > 1 && shard_id == 1);
    let error = compute(&chain, &layouts(), &chain.hashes[&3].0, 1).unwrap_err();
    assert_eq!(error.kind, ErrorKind::MissingRow);
}
