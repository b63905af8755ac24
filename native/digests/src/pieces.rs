//! The SHA-256 of a stored object and its piece hashes for a hybrid torrent, in one reading.
//!
//! The rules are those of `schemas/published/torrent.py` (BEP 3, BEP 47, BEP 52), which says the same in Python.

use sha1::block_api::compress;

use crate::sha256::{BLOCK_BYTES, Digest, Hash, sha256, sha256_beside};

/// A leaf of version 2's tree.
pub const LEAF_BYTES: usize = 16 << 10;

/// A SHA-1.
type Sha1 = [u8; 20];

/// FIPS 180-4, 5.3.1.
const INITIAL_STATE: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// What one reading of an object tells.
#[derive(Debug, PartialEq, Eq)]
pub struct ObjectDigests {
    /// Of all bytes.
    pub sha256: Hash,
    /// SHA-1 of each piece, the last one filled up with zeros.
    pub v1_pieces: Vec<Sha1>,
    /// SHA-1 of the last piece as it is; None for an empty object.
    pub v1_last_unpadded: Option<Sha1>,
    /// Node of each piece in version 2's tree.
    pub v2_piece_layer: Vec<Hash>,
    /// Root of that tree; None for an empty object.
    pub v2_root: Option<Hash>,
}

/// SHA-1 of a piece on the way.
#[derive(Clone)]
struct PieceDigest {
    state: [u32; 5],
    length: usize,
}

impl PieceDigest {
    fn new() -> Self {
        Self { state: INITIAL_STATE, length: 0 }
    }

    fn blocks(&mut self, blocks: &[[u8; BLOCK_BYTES]]) {
        compress(&mut self.state, blocks);
        self.length += blocks.len() * BLOCK_BYTES;
    }

    /// End with fewer bytes than a block has.
    fn finish(mut self, rest: &[u8]) -> Sha1 {
        let mut tail = [[0; BLOCK_BYTES]; 2];
        let count = (rest.len() + 9).div_ceil(BLOCK_BYTES);
        let padded = &mut tail.as_flattened_mut()[..count * BLOCK_BYTES];
        padded[..rest.len()].copy_from_slice(rest);
        padded[rest.len()] = 0x80;
        padded[count * BLOCK_BYTES - 8..].copy_from_slice(&(8 * (self.length + rest.len()) as u64).to_be_bytes());
        compress(&mut self.state, &tail[..count]);
        let mut digest = [0; 20];
        for (out, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(self.state) {
            *out = word.to_be_bytes();
        }
        digest
    }

    /// End with fewer bytes than a block has and zeros behind them, up to a length.
    fn finish_filled(mut self, rest: &[u8], length: usize) -> Sha1 {
        const ZEROS: [[u8; BLOCK_BYTES]; 64] = [[0; BLOCK_BYTES]; 64];
        let mut left = (length - self.length) / BLOCK_BYTES;
        if !rest.is_empty() {
            let mut block = [0; BLOCK_BYTES];
            block[..rest.len()].copy_from_slice(rest);
            self.blocks(&[block]);
            left -= 1;
        }
        while left > 0 {
            let count = left.min(ZEROS.len());
            self.blocks(&ZEROS[..count]);
            left -= count;
        }
        self.finish(&[])
    }
}

/// Digest an object.
///
/// `piece_length` is a power of two of at least `LEAF_BYTES`.
pub fn digest_object(data: &[u8], piece_length: usize) -> ObjectDigests {
    assert!(piece_length >= LEAF_BYTES && piece_length.is_power_of_two(), "a piece of {piece_length} bytes");
    let mut whole = Digest::new(data);
    let mut found =
        ObjectDigests { sha256: [0; 32], v1_pieces: Vec::new(), v1_last_unpadded: None, v2_piece_layer: Vec::new(), v2_root: None };
    let mut layer = Vec::new();
    let mut end = 0;
    for piece in data.chunks(piece_length) {
        let mut digest = PieceDigest::new();
        let mut rest: &[u8] = &[];
        let mut leaves = Vec::with_capacity(piece_length / LEAF_BYTES);
        for leaf in piece.chunks(LEAF_BYTES) {
            // Three readings of a leaf, which stays in the core's own cache.
            end += leaf.len();
            leaves.push(sha256_beside(leaf, &mut whole, end));
            let (blocks, behind) = leaf.as_chunks();
            digest.blocks(blocks);
            rest = behind;
        }
        found.v1_last_unpadded = Some(digest.clone().finish(rest));
        found.v1_pieces.push(if piece.len() == piece_length { digest.finish(rest) } else { digest.finish_filled(rest, piece_length) });
        layer.push(leaves);
    }
    found.sha256 = whole.finish();
    if layer.len() == 1 {
        // An object of one piece has a tree just high enough for its leaves.
        let leaves = layer.pop().expect("one piece");
        let width = leaves.len().next_power_of_two();
        let root = tree_root(leaves, [0; 32], width);
        found.v2_piece_layer = vec![root];
        found.v2_root = Some(root);
    } else if !layer.is_empty() {
        let width = piece_length / LEAF_BYTES;
        found.v2_piece_layer = layer.into_iter().map(|leaves| tree_root(leaves, [0; 32], width)).collect();
        let nodes = found.v2_piece_layer.clone();
        let width_above = nodes.len().next_power_of_two();
        found.v2_root = Some(tree_root(nodes, tree_root(Vec::new(), [0; 32], width), width_above));
    }
    found
}

/// Root of a binary tree over `width` nodes (a power of two), missing ones taken as `filling`.
fn tree_root(mut nodes: Vec<Hash>, mut filling: Hash, mut width: usize) -> Hash {
    let parent = |left: &Hash, right: &Hash| {
        let mut both = [0; 64];
        both[..32].copy_from_slice(left);
        both[32..].copy_from_slice(right);
        sha256(&both)
    };
    while width > 1 {
        if nodes.len() % 2 == 1 {
            nodes.push(filling);
        }
        nodes = nodes.chunks(2).map(|pair| parent(&pair[0], &pair[1])).collect();
        filling = parent(&filling, &filling);
        width /= 2;
    }
    nodes.first().copied().unwrap_or(filling)
}

#[cfg(test)]
mod tests {
    use sha1::{Digest as _, Sha1};

    use super::*;

    /// The digests are those of the crates, whole or in pieces, at every length around the borders of blocks, leaves and pieces.
    #[test]
    fn agrees_with_the_digests() {
        let bytes: Vec<u8> = (0..5u32 * 32768).map(|at| (at * 7 % 251) as u8).collect();
        for border in [0, 64, LEAF_BYTES, 32768, 3 * LEAF_BYTES, 65536, 4 * 32768] {
            for length in border.saturating_sub(1)..=border + 1 {
                let data = &bytes[..length];
                let found = digest_object(data, 32768);
                assert_eq!(found.sha256, sha256(data), "{length} bytes");
                let mut pieces: Vec<Vec<u8>> = data.chunks(32768).map(<[u8]>::to_vec).collect();
                assert_eq!(found.v1_last_unpadded, pieces.last().map(|piece| Sha1::digest(piece).into()), "{length} bytes");
                pieces.iter_mut().for_each(|piece| piece.resize(32768, 0));
                let expected: Vec<[u8; 20]> = pieces.iter().map(|piece| Sha1::digest(piece).into()).collect();
                assert_eq!(found.v1_pieces, expected, "{length} bytes");
                assert_eq!(found.v2_piece_layer.len(), pieces.len(), "{length} bytes");
            }
        }
    }

    /// A tree fills up with zero leaves.
    #[test]
    fn root_of_three_leaves() {
        let data = vec![7; 3 * LEAF_BYTES];
        let leaf = sha256(&data[..LEAF_BYTES]);
        let node = |left: Hash, right: Hash| sha256(&[left, right].concat());
        let root = node(node(leaf, leaf), node(leaf, [0; 32]));
        assert_eq!(digest_object(&data, LEAF_BYTES * 4).v2_root, Some(root));
        assert_eq!(digest_object(&data, LEAF_BYTES).v2_root, Some(root));
    }
}
