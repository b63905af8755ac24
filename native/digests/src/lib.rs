//! Digests whose bytes are read once: by the CPU's SHA instructions where it has them (found out at run time by the `sha1` and `sha2`
//! crates), and two or three at a time where several are wanted of the same bytes.
//!
//! The instructions of one digest wait for each other, so a core that works on one has half of its time left. Blocks of another digest
//! in between, which wait for nothing of the first, fill it.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod pieces;
mod sha256;

pub use pieces::{LEAF_BYTES, ObjectDigests, digest_object};
pub use sha256::{Digest, Hash, sha256, sha256_beside};
