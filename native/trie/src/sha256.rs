//! SHA-256, by the CPU's SHA instructions where it has them (found out at run time by the `sha2` crate).

use sha2::{Digest, Sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// Hash of a byte string.
#[inline]
pub fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}
