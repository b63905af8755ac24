//! NEAR's state trie over sorted records: structure, hashing, edges of key ranges, state parts.
//!
//! The terms and the edge format are those of `pipelines/kernel/trie_kernel.py`; this crate is one of its two implementations and
//! agrees with the other byte for byte. It works on slices and iterators: it knows neither Python nor Arrow, does no I/O, keeps
//! no state between calls and holds no `unsafe`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod apply;
mod borsh;
mod build;
mod edge;
mod entries;
mod error;
mod limits;
mod merge;
mod nibbles;
mod node;
mod open_nodes;
mod part_entries;
mod partial_state;
mod seal;
mod validate;
mod walk;

pub use apply::{Applied, AppliedRecord, apply, apply_counted};
pub use build::{Build, Structure, ValueSource, build, structure};
pub use error::{ErrorKind, TrieError};
pub use limits::*;
pub use merge::merge;
pub use partial_state::{assemble, decode as decode_partial_state};
pub use seal::{RangeCharges, Sealed, seal};
pub use statecast_digests::{Hash, sha256};
pub use validate::{validate, validate_sorted};

/// Result of everything here that can be refused.
pub type Result<T> = std::result::Result<T, TrieError>;
