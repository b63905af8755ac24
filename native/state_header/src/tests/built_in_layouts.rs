//! The layouts that nearcore has built in for the public chains.

use near_primitives::block::BlockHeader;
use near_primitives::epoch_info::{EpochInfo, EpochInfoV4};
use near_primitives::hash::CryptoHash;

use super::made_chain::{MadeChain, layout, zero};
use crate::rows::Chain;
use crate::{ErrorKind, Layouts, RowKind};

fn shards(chain_id: &str, protocol_version: u32) -> Result<u64, ErrorKind> {
    let mut info: EpochInfoV4 = zero();
    info.protocol_version = protocol_version;
    let mut rows = MadeChain::default();
    rows.put(RowKind::EpochInfo, CryptoHash::default().as_ref(), &EpochInfo::V4(info));
    let layouts = Layouts::new(chain_id, None).unwrap();
    layouts.of(&Chain::new(&rows), &zero::<BlockHeader>()).map(|layout| layout.num_shards()).map_err(|error| error.kind)
}

/// One shard at the start, four from protocol version 48, and so on.
#[test]
fn mainnets_shards_by_protocol_version() {
    let found: Vec<_> = [29, 47, 48, 63, 64, 65, 70].map(|version| shards("mainnet", version).unwrap()).into();
    assert_eq!(found, [1, 1, 4, 4, 5, 6, 6]);
}

/// Before the first version, and on other chains, nothing is built in.
#[test]
fn nothing_is_made_up() {
    assert_eq!(shards("mainnet", 28), Err(ErrorKind::Unsupported));
    assert_eq!(shards("made", 70), Err(ErrorKind::Unsupported));
}

/// What the source says of an epoch comes before all else, and no row of the epoch is needed then; what is no layout is refused.
#[test]
fn a_layout_that_the_source_says_needs_no_row_of_the_epoch() {
    let found = |said: Vec<u8>| {
        let mut rows = MadeChain::default();
        rows.put_bytes(RowKind::ShardLayout, CryptoHash::default().as_ref(), said);
        let layouts = Layouts::new("made", None).unwrap();
        layouts.of(&Chain::new(&rows), &zero::<BlockHeader>()).map(|layout| layout.num_shards()).map_err(|error| error.kind)
    };
    assert_eq!(found(serde_json::to_vec(&layout()).unwrap()), Ok(2));
    assert_eq!(found(b"{}".into()), Err(ErrorKind::Unsupported));
}
