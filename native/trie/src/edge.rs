//! The edge of a key range: what its neighbours need to know of it, and its bytes.

use crate::borsh::{Reader, push_bytes, push_count, push_option};
use crate::limits::{KEY_BYTES_MAX, TRIE_DEPTH_MAX};
use crate::node::ValueRef;
use crate::{ErrorKind, Hash, Result, TrieError};

const VERSION: u8 = 1;

/// A closed node directly under an open branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) hash: Hash,
    pub(crate) memory_usage: u64,
    /// Empty when nothing is hashed.
    pub(crate) bytes: Vec<u8>,
}

/// A branch of which a part of the keys lies outside the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenNode {
    /// One nibble a byte.
    pub(crate) prefix: Vec<u8>,
    pub(crate) first_key: Option<Vec<u8>>,
    pub(crate) value: Option<ValueRef>,
    pub(crate) bitmap: u16,
    /// One for each bit, ascending.
    pub(crate) children: Vec<Child>,
}

/// Memory usage to add to the record of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) key: Vec<u8>,
    pub(crate) memory_usage: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) hashed: bool,
    pub(crate) left_key: Option<Vec<u8>>,
    pub(crate) first_key: Vec<u8>,
    pub(crate) last_key: Vec<u8>,
    pub(crate) right_key: Option<Vec<u8>>,
    /// Ascending by prefix.
    pub(crate) open: Vec<OpenNode>,
    pub(crate) first_path: Vec<Vec<u8>>,
    pub(crate) top: Option<Child>,
    /// Ascending by key, each key once.
    pub(crate) charges: Vec<Charge>,
}

impl Child {
    fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&self.memory_usage.to_le_bytes());
        push_bytes(out, &self.bytes);
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { hash: reader.hash()?, memory_usage: reader.u64()?, bytes: reader.bytes()?.to_vec() })
    }
}

impl OpenNode {
    fn push(&self, out: &mut Vec<u8>) {
        push_bytes(out, &self.prefix);
        push_option(out, self.first_key.as_ref(), |out, key| push_bytes(out, key));
        push_option(out, self.value.as_ref(), |out, value| value.push(out));
        out.extend_from_slice(&self.bitmap.to_le_bytes());
        self.children.iter().for_each(|child| child.push(out));
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let prefix = reader.bytes()?.to_vec();
        if prefix.len() > TRIE_DEPTH_MAX || prefix.iter().any(|&nibble| nibble > 15) {
            return None;
        }
        let first_key = reader.option(read_key)?;
        let value = reader.option(ValueRef::read)?;
        let bitmap = reader.u16()?;
        let children = (0..bitmap.count_ones()).map(|_| Child::read(reader)).collect::<Option<_>>()?;
        Some(Self { prefix, first_key, value, bitmap, children })
    }
}

fn read_key(reader: &mut Reader<'_>) -> Option<Vec<u8>> {
    reader.bytes().filter(|key| key.len() <= KEY_BYTES_MAX).map(<[u8]>::to_vec)
}

impl Edge {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.hashed)];
        push_option(&mut out, self.left_key.as_ref(), |out, key| push_bytes(out, key));
        push_bytes(&mut out, &self.first_key);
        push_bytes(&mut out, &self.last_key);
        push_option(&mut out, self.right_key.as_ref(), |out, key| push_bytes(out, key));
        push_count(&mut out, self.open.len());
        self.open.iter().for_each(|node| node.push(&mut out));
        push_count(&mut out, self.first_path.len());
        self.first_path.iter().for_each(|node| push_bytes(&mut out, node));
        push_option(&mut out, self.top.as_ref(), |out, top| top.push(out));
        push_count(&mut out, self.charges.len());
        for charge in &self.charges {
            push_bytes(&mut out, &charge.key);
            out.extend_from_slice(&charge.memory_usage.to_le_bytes());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let edge = Self::read(&mut reader);
        edge.filter(|edge| reader.is_empty() && edge.is_ordered())
            .ok_or_else(|| TrieError::new(ErrorKind::MalformedNode, "an edge can't be decoded", format!("{} bytes", bytes.len())))
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        if reader.u8()? != VERSION {
            return None;
        }
        Some(Self {
            hashed: reader.flag()?,
            left_key: reader.option(read_key)?,
            first_key: read_key(reader)?,
            last_key: read_key(reader)?,
            right_key: reader.option(read_key)?,
            open: reader.vec(8, OpenNode::read)?,
            first_path: reader.vec(4, |reader| reader.bytes().map(<[u8]>::to_vec))?,
            top: reader.option(Child::read)?,
            charges: reader.vec(12, |reader| Some(Charge { key: read_key(reader)?, memory_usage: reader.u64()? }))?,
        })
    }

    /// What the rest of this crate relies on: sorted lists, keys in order, a top exactly where nothing is open.
    fn is_ordered(&self) -> bool {
        let keys = [self.left_key.as_ref(), Some(&self.first_key)];
        let ends = [Some(&self.last_key), self.right_key.as_ref()];
        let apart = |pair: [Option<&Vec<u8>>; 2]| !matches!(pair, [Some(left), Some(right)] if left >= right);
        apart(keys)
            && apart(ends)
            && self.first_key <= self.last_key
            && self.open.is_sorted_by(|a, b| a.prefix < b.prefix)
            && self.charges.is_sorted_by(|a, b| a.key < b.key)
            && self.top.is_some() == (self.left_key.is_none() && self.right_key.is_none())
            && self.top.is_some() == self.open.is_empty()
    }
}
