//! State headers (`ShardStateSyncResponseHeader`): what nearcore dumps beside a shard's parts, from a node's rows.
//!
//! `compute` builds the header that neard would, byte for byte; `verify` checks one of any origin from the hash of the sync block
//! down. The types and their encodings are those of nearcore's own `near-primitives`, so every version of blocks and chunks that the
//! chain has can be read. Rows come through a trait: this crate opens no database.
//!
//! Source: nearcore chain/chain/src/state_sync/adapter.rs, `ChainStateSyncAdapter`.

#![forbid(unsafe_code)]

mod compute;
mod error;
mod layout;
mod receipts;
mod rows;
mod verify;

#[cfg(test)]
mod tests;

pub use compute::compute;
pub use error::{ErrorKind, HeaderError, Result};
pub use layout::Layouts;
pub use rows::{RowKind, Rows};
pub use verify::{Verified, verify};
