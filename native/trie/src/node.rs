//! Bytes of trie nodes: `RawTrieNodeWithSize`, as nearcore's core/store/src/trie/raw_node.rs defines them.

use crate::Hash;
use crate::borsh::Reader;
use crate::limits::{KEY_BYTE_MEMORY_USAGE, NODE_MEMORY_USAGE};
use crate::nibbles::{encoded_key_bytes, push_encoded_key};

const LEAF: u8 = 0;
const BRANCH: u8 = 1;
const BRANCH_WITH_VALUE: u8 = 2;
const EXTENSION: u8 = 3;

/// Length and SHA-256 of a value; the hash is zeros where nothing is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValueRef {
    pub(crate) length: u32,
    pub(crate) hash: Hash,
}

impl ValueRef {
    pub(crate) fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.hash);
    }

    #[inline]
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { length: reader.u32()?, hash: *reader.array()? })
    }

    fn memory_usage(&self) -> u64 {
        u64::from(self.length) + NODE_MEMORY_USAGE
    }
}

/// Own memory usage of a leaf that holds a count of nibbles.
#[inline]
pub(crate) fn leaf_memory_usage(nibble_count: usize, value_length: u32) -> u64 {
    2 * NODE_MEMORY_USAGE + KEY_BYTE_MEMORY_USAGE * encoded_key_bytes(nibble_count) as u64 + u64::from(value_length)
}

/// Own memory usage of an extension of a count of nibbles.
#[inline]
pub(crate) fn extension_memory_usage(nibble_count: usize) -> u64 {
    NODE_MEMORY_USAGE + KEY_BYTE_MEMORY_USAGE * encoded_key_bytes(nibble_count) as u64
}

/// Own memory usage of a branch.
#[inline]
pub(crate) fn branch_memory_usage(value_length: Option<u32>) -> u64 {
    NODE_MEMORY_USAGE + value_length.map_or(0, |length| NODE_MEMORY_USAGE + u64::from(length))
}

/// Append a leaf that holds the nibbles of `key` from `from` on.
#[inline]
pub(crate) fn push_leaf(out: &mut Vec<u8>, key: &[u8], from: usize, value: &ValueRef, memory_usage: u64) {
    out.push(LEAF);
    push_key(out, key, from, 2 * key.len(), true);
    value.push(out);
    out.extend_from_slice(&memory_usage.to_le_bytes());
}

/// Append an extension of the nibbles `from..to` of `key`.
#[inline]
pub(crate) fn push_extension(out: &mut Vec<u8>, key: &[u8], from: usize, to: usize, child: &Hash, memory_usage: u64) {
    out.push(EXTENSION);
    push_key(out, key, from, to, false);
    out.extend_from_slice(child);
    out.extend_from_slice(&memory_usage.to_le_bytes());
}

/// Append a branch; `children` are the hashes of the bitmap's children, one behind the other.
#[inline]
pub(crate) fn push_branch(out: &mut Vec<u8>, value: Option<&ValueRef>, bitmap: u16, children: &[u8], memory_usage: u64) {
    match value {
        None => out.push(BRANCH),
        Some(value) => {
            out.push(BRANCH_WITH_VALUE);
            value.push(out);
        }
    }
    out.extend_from_slice(&bitmap.to_le_bytes());
    out.extend_from_slice(children);
    out.extend_from_slice(&memory_usage.to_le_bytes());
}

#[inline]
fn push_key(out: &mut Vec<u8>, key: &[u8], from: usize, to: usize, leaf: bool) {
    out.extend_from_slice(&(encoded_key_bytes(to - from) as u32).to_le_bytes());
    push_encoded_key(out, key, from, to, leaf);
}

/// Twice eight bytes of a node that sort as its first bytes do: those of a key's length that are always zero are left out.
#[inline]
pub(crate) fn heads(node: &[u8]) -> (u64, u64) {
    let eight_at = |at: usize| u64::from_be_bytes(*node[at..].first_chunk().expect("a node has more than 18 bytes"));
    match node[0] {
        LEAF | EXTENSION => (eight_at(0) & !0xff_ffff_ffff | eight_at(2) & 0xff_ffff_ffff, eight_at(10)),
        _ => (eight_at(0), eight_at(8)),
    }
}

/// The first eight bytes of a node, out of the first one of its heads.
#[inline]
pub(crate) fn first_eight(head: u64) -> u64 {
    match (head >> 56) as u8 {
        LEAF | EXTENSION => head & !0xff_ffff_ffff | head >> 16 & 0xff_ffff,
        _ => head,
    }
}

/// Encoded nibbles inside a node. As in nearcore the first byte's flags other than the odd one say nothing.
#[derive(Clone, Copy)]
pub(crate) struct EncodedKey<'a> {
    bytes: &'a [u8],
}

impl<'a> EncodedKey<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let bytes = reader.bytes()?;
        (!bytes.is_empty()).then_some(Self { bytes })
    }

    #[inline]
    fn skipped(self) -> usize {
        if self.bytes[0] & 0x10 == 0 { 2 } else { 1 }
    }

    /// Count of nibbles.
    #[inline]
    pub(crate) fn len(self) -> usize {
        2 * self.bytes.len() - self.skipped()
    }

    /// Append the whole key of a leaf whose place is a count of nibbles at the beginning of `path`; false where that makes no whole bytes.
    #[inline]
    pub(crate) fn push_key_behind(self, path: &[u8], nibbles: usize, out: &mut Vec<u8>) -> bool {
        let odd = nibbles % 2 == 1;
        if odd != (self.skipped() == 1) {
            return false;
        }
        out.extend_from_slice(&path[..nibbles / 2]);
        if odd {
            out.push(path[nibbles / 2] & 0xf0 | self.bytes[0] & 15);
        }
        out.extend_from_slice(&self.bytes[1..]);
        true
    }

    #[inline]
    pub(crate) fn nibbles(self) -> impl Iterator<Item = u8> + 'a {
        (self.skipped()..2 * self.bytes.len()).map(move |at| crate::nibbles::nibble(self.bytes, at))
    }
}

/// A decoded node, borrowing from its bytes.
#[derive(Clone, Copy)]
pub(crate) enum NodeKind<'a> {
    Leaf { key: EncodedKey<'a>, value: &'a Hash, value_length: u32 },
    Branch { value: Option<(&'a Hash, u32)>, bitmap: u16, children: &'a [u8] },
    Extension { key: EncodedKey<'a>, child: &'a Hash },
}

#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    pub(crate) kind: NodeKind<'a>,
    /// Of the whole subtree, as the node says.
    pub(crate) memory_usage: u64,
}

impl<'a> Node<'a> {
    /// Decode a node; no byte may be left over.
    #[inline]
    pub(crate) fn read_whole(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Self::read(&mut reader).filter(|_| reader.is_empty())
    }

    /// The key of a leaf or an extension.
    #[inline]
    pub(crate) fn read_own_key(bytes: &'a [u8]) -> Option<EncodedKey<'a>> {
        let mut reader = Reader::new(bytes);
        matches!(reader.u8()?, LEAF | EXTENSION).then(|| EncodedKey::read(&mut reader)).flatten()
    }

    #[inline]
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let kind = match reader.u8()? {
            LEAF => {
                let key = EncodedKey::read(reader)?;
                let value_length = reader.u32()?;
                NodeKind::Leaf { key, value: reader.array()?, value_length }
            }
            BRANCH => Self::read_branch(reader, None)?,
            BRANCH_WITH_VALUE => {
                let value_length = reader.u32()?;
                let value = reader.array()?;
                Self::read_branch(reader, Some((value, value_length)))?
            }
            EXTENSION => NodeKind::Extension { key: EncodedKey::read(reader)?, child: reader.array()? },
            _ => return None,
        };
        Some(Self { kind, memory_usage: reader.u64()? })
    }

    #[inline]
    fn read_branch(reader: &mut Reader<'a>, value: Option<(&'a Hash, u32)>) -> Option<NodeKind<'a>> {
        let bitmap = reader.u16()?;
        let children = reader.take(32 * bitmap.count_ones() as usize)?;
        Some(NodeKind::Branch { value, bitmap, children })
    }

    /// Own memory usage (nearcore TrieNode::memory_usage_direct_no_memory).
    pub(crate) fn own_memory_usage(&self) -> u64 {
        match self.kind {
            NodeKind::Leaf { key, value_length, .. } => leaf_memory_usage(key.len(), value_length),
            NodeKind::Branch { value, .. } => branch_memory_usage(value.map(|(_, length)| length)),
            NodeKind::Extension { key, .. } => extension_memory_usage(key.len()),
        }
    }
}

impl ValueRef {
    /// Own memory usage of a branch with this value, if any.
    pub(crate) fn branch_memory_usage(value: Option<&Self>) -> u64 {
        NODE_MEMORY_USAGE + value.map_or(0, Self::memory_usage)
    }
}
