//! SHA-256, by the CPU's SHA instructions where it has them (found out at run time by the `sha2` crate).
//!
//! Nodes and values are short: the padding is laid out here, so that each takes one call of the compression function.

use sha2::block_api::compress256;

/// A SHA-256.
pub type Hash = [u8; 32];

const BLOCK_BYTES: usize = 64;

/// Bytes that are copied and padded on the stack; longer input is compressed where it lies, but for its end.
const COPIED_BYTES_MAX: usize = 8 * BLOCK_BYTES - PADDING_BYTES_MIN;

/// The bit behind the input, and its length.
const PADDING_BYTES_MIN: usize = 9;

/// FIPS 180-4, 5.3.3.
const INITIAL_STATE: [u32; 8] = [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Hash of a byte string.
#[inline]
pub fn sha256(bytes: &[u8]) -> Hash {
    let mut state = INITIAL_STATE;
    let mut rest = bytes;
    if bytes.len() > COPIED_BYTES_MAX {
        let (blocks, end) = bytes.as_chunks::<BLOCK_BYTES>();
        compress256(&mut state, blocks);
        rest = end;
    }
    let mut tail = [[0; BLOCK_BYTES]; (COPIED_BYTES_MAX + PADDING_BYTES_MIN) / BLOCK_BYTES];
    let blocks = (rest.len() + PADDING_BYTES_MIN).div_ceil(BLOCK_BYTES);
    let padded = &mut tail.as_flattened_mut()[..blocks * BLOCK_BYTES];
    padded[..rest.len()].copy_from_slice(rest);
    padded[rest.len()] = 0x80;
    padded[blocks * BLOCK_BYTES - 8..].copy_from_slice(&(8 * bytes.len() as u64).to_be_bytes());
    compress256(&mut state, &tail[..blocks]);
    let mut hash = [0; 32];
    for (out, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *out = word.to_be_bytes();
    }
    hash
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// Every length around the block borders gives what the digest of the `sha2` crate gives.
    #[test]
    fn agrees_with_the_digest() {
        let bytes: Vec<u8> = (0..1300u32).map(|at| (at * 7 % 251) as u8).collect();
        for length in 0..bytes.len() {
            assert_eq!(sha256(&bytes[..length]), <Hash>::from(Sha256::digest(&bytes[..length])), "{length} bytes");
        }
    }
}
