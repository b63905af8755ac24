//! SHA-256 of byte strings that lie in one piece.
//!
//! Nodes and values are short: the padding is laid out here, so that each takes one call of the compression function.

use sha2::block_api::compress256;

/// A SHA-256.
pub type Hash = [u8; 32];

pub(crate) const BLOCK_BYTES: usize = 64;

/// Blocks that are copied and padded on the stack; longer input is compressed where it lies, but for its end.
const COPIED_BLOCKS_MAX: usize = 8;
const COPIED_BYTES_MAX: usize = COPIED_BLOCKS_MAX * BLOCK_BYTES - PADDING_BYTES_MIN;

/// Blocks of a leaf, an extension and most values: blanking the room for more takes a tenth of the time that hashing them takes.
const FEW_BLOCKS: usize = 2;
const FEW_BYTES_MAX: usize = FEW_BLOCKS * BLOCK_BYTES - PADDING_BYTES_MIN;

/// The bit behind the input, and its length.
const PADDING_BYTES_MIN: usize = 9;

/// FIPS 180-4, 5.3.3.
const INITIAL_STATE: [u32; 8] = [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The last blocks of an input with its padding, at most so many.
struct Tail<const BLOCKS_MAX: usize> {
    blocks: [[u8; BLOCK_BYTES]; BLOCKS_MAX],
    count: usize,
}

impl<const BLOCKS_MAX: usize> Tail<BLOCKS_MAX> {
    /// Args: what no block was filled with yet, which fits with its padding; bytes of the whole input.
    #[inline]
    fn new(rest: &[u8], length: usize) -> Self {
        let mut blocks = [[0; BLOCK_BYTES]; BLOCKS_MAX];
        let count = (rest.len() + PADDING_BYTES_MIN).div_ceil(BLOCK_BYTES);
        let padded = &mut blocks.as_flattened_mut()[..count * BLOCK_BYTES];
        padded[..rest.len()].copy_from_slice(rest);
        padded[rest.len()] = 0x80;
        padded[count * BLOCK_BYTES - 8..].copy_from_slice(&(8 * length as u64).to_be_bytes());
        Self { blocks, count }
    }

    #[inline]
    fn blocks(&self) -> &[[u8; BLOCK_BYTES]] {
        &self.blocks[..self.count]
    }
}

#[inline]
fn to_bytes(state: [u32; 8]) -> Hash {
    let mut hash = [0; 32];
    for (out, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *out = word.to_be_bytes();
    }
    hash
}

/// Blocks of an input that are compressed where they lie, and the rest.
#[inline]
fn split(bytes: &[u8]) -> (&[[u8; BLOCK_BYTES]], &[u8]) {
    if bytes.len() > COPIED_BYTES_MAX { bytes.as_chunks::<BLOCK_BYTES>() } else { (&[], bytes) }
}

/// Hash of a byte string.
#[inline]
pub fn sha256(bytes: &[u8]) -> Hash {
    let mut state = INITIAL_STATE;
    let (blocks, rest) = split(bytes);
    if !blocks.is_empty() {
        compress256(&mut state, blocks);
    }
    if rest.len() <= FEW_BYTES_MAX {
        compress256(&mut state, Tail::<FEW_BLOCKS>::new(rest, bytes.len()).blocks());
    } else {
        compress256(&mut state, Tail::<COPIED_BLOCKS_MAX>::new(rest, bytes.len()).blocks());
    }
    to_bytes(state)
}

/// Hash of a byte string that is a part of what `digest` digests: that one follows, block by block, up to `end`.
///
/// `end` counts from the begin of the digest's bytes.
#[inline]
pub fn sha256_beside(bytes: &[u8], digest: &mut Digest<'_>, end: usize) -> Hash {
    let mut state = INITIAL_STATE;
    let (blocks, rest) = split(bytes);
    let end_block = end / BLOCK_BYTES;
    let mut take = |blocks: &[[u8; BLOCK_BYTES]]| {
        for block in blocks {
            compress256(&mut state, std::slice::from_ref(block));
            digest.step(end_block);
        }
    };
    take(blocks);
    if rest.len() <= FEW_BYTES_MAX {
        take(Tail::<FEW_BLOCKS>::new(rest, bytes.len()).blocks());
    } else {
        take(Tail::<COPIED_BLOCKS_MAX>::new(rest, bytes.len()).blocks());
    }
    to_bytes(state)
}

/// The SHA-256 of a byte string, taken a block at a time between other work.
pub struct Digest<'a> {
    blocks: &'a [[u8; BLOCK_BYTES]],
    rest: &'a [u8],
    done: usize,
    state: [u32; 8],
}

impl<'a> Digest<'a> {
    /// Begin the digest of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks();
        Self { blocks, rest, done: 0, state: INITIAL_STATE }
    }

    /// Take one block more, unless it is at `end_block` or behind it.
    #[inline]
    pub(crate) fn step(&mut self, end_block: usize) {
        if self.done < end_block.min(self.blocks.len()) {
            compress256(&mut self.state, &self.blocks[self.done..=self.done]);
            self.done += 1;
        }
    }

    /// Take what is left.
    pub fn finish(mut self) -> Hash {
        compress256(&mut self.state, &self.blocks[self.done..]);
        let length = self.blocks.len() * BLOCK_BYTES + self.rest.len();
        compress256(&mut self.state, Tail::<FEW_BLOCKS>::new(self.rest, length).blocks());
        to_bytes(self.state)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn bytes(length: u32) -> Vec<u8> {
        (0..length).map(|at| (at * 7 % 251) as u8).collect()
    }

    /// Every length around the block borders gives what the digest of the `sha2` crate gives.
    #[test]
    fn agrees_with_the_digest() {
        let bytes = bytes(1300);
        for length in 0..bytes.len() {
            assert_eq!(sha256(&bytes[..length]), <Hash>::from(Sha256::digest(&bytes[..length])), "{length} bytes");
        }
    }

    /// However the bytes are cut into strings, theirs and the hash of all of them are the same as each alone.
    #[test]
    fn two_digests_in_one_reading() {
        let bytes = bytes(5000);
        for step in [1, 3, 55, 56, 63, 64, 65, 130, 700, 2000, 5000] {
            for length in [0, 1, 64, 127, 128, 4999, 5000] {
                let mut whole = Digest::new(&bytes[..length]);
                let mut end = 0;
                for piece in bytes[..length].chunks(step) {
                    end += piece.len();
                    assert_eq!(sha256_beside(piece, &mut whole, end), sha256(piece), "{length} bytes by {step}");
                }
                assert_eq!(whole.finish(), sha256(&bytes[..length]), "{length} bytes by {step}");
            }
        }
    }
}
