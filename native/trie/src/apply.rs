//! The records of a validated part, and how often its nodes and values are referred to, counted as a tree.
//!
//! The rules of counting are those of `pipelines/kernel/reference_counts.py`, which counts the same in Python: a node belongs to the range
//! that holds the first key under it, so the counts of adjacent parts add up to the trie's.

use crate::entries::{Entries, Kind};
use crate::error::hex;
use crate::limits::{INLINED_VALUE_BYTES_MAX, TRIE_DEPTH_MAX};
use crate::nibbles::{pack, unpack};
use crate::node::Node;
use crate::validate::{CheckedPart, OnInterval, check_part};
use crate::{ErrorKind, Hash, Result, TrieError};

/// One record of the part's key interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedRecord {
    /// Where its key ends in `Applied::keys`; it begins where the one before ends.
    key_end: usize,
    /// Position of the value in `Applied::entries`.
    pub entry: u32,
}

/// A part's records, ascending by key, over its entries.
pub struct Applied<'a> {
    /// All keys, one after the other.
    keys: Vec<u8>,
    /// Where keys and values are.
    pub records: Vec<AppliedRecord>,
    /// Nodes and values, in the part's order.
    pub entries: Vec<&'a [u8]>,
    /// One an entry.
    pub hashes: Vec<Hash>,
    /// Entries that are referenced values, ascending by hash.
    pub referenced: Vec<u32>,
}

impl Applied<'_> {
    /// Whether a value of this length stands in its record.
    pub fn is_inlined(value: &[u8]) -> bool {
        value.len() <= INLINED_VALUE_BYTES_MAX
    }

    /// The whole trie key of a record.
    pub fn key(&self, row: usize) -> &[u8] {
        let begin = if row == 0 { 0 } else { self.records[row - 1].key_end };
        &self.keys[begin..self.records[row].key_end]
    }
}

/// Nibbles as bytes, the first in the high half; room for the deepest path.
struct Place {
    bytes: Vec<u8>,
    nibbles: usize,
}

impl Place {
    fn of(path: &[u8]) -> Self {
        let mut place = Self { bytes: vec![0; TRIE_DEPTH_MAX / 2 + 1], nibbles: 0 };
        path.iter().for_each(|&nibble| place.push(nibble));
        place
    }

    #[inline]
    fn push(&mut self, nibble: u8) {
        let byte = &mut self.bytes[self.nibbles / 2];
        *byte = if self.nibbles.is_multiple_of(2) { nibble << 4 } else { *byte & 0xf0 | nibble };
        self.nibbles += 1;
    }
}

/// A branch of a subtree, and what is left to do at it.
struct Fork {
    /// Nibbles of its place.
    nibbles: usize,
    children: u16,
    /// Where the next child stands among all references.
    next: u32,
}

/// Collects records as the walk reaches their values, and counts references where `COUNTED` is true.
struct Records<const COUNTED: bool> {
    keys: Vec<u8>,
    records: Vec<AppliedRecord>,
    referenced: Vec<u32>,
    /// One an entry. No count is over the steps of a walk.
    counts: Vec<u32>,
}

impl<const COUNTED: bool> Records<COUNTED> {
    fn new(entries: &Entries<'_>) -> Self {
        let counts = if COUNTED { vec![0; entries.entries.len()] } else { Vec::new() };
        Self { keys: Vec::new(), records: Vec::new(), referenced: Vec::new(), counts }
    }

    #[inline]
    fn count(&mut self, position: u32) {
        if COUNTED {
            self.counts[position as usize] += 1;
        }
    }

    /// Take a value whose key is whole.
    #[inline]
    fn end_record(&mut self, entries: &Entries<'_>, position: u32) {
        self.count(position);
        if !entries.facts(position).is_inlined() {
            self.referenced.push(position);
        }
        self.records.push(AppliedRecord { key_end: self.keys.len(), entry: position });
    }
}

impl<const COUNTED: bool> OnInterval for Records<COUNTED> {
    fn value(&mut self, entries: &mut Entries<'_>, path: &[u8], position: u32) -> Result<()> {
        let (pairs, odd) = path.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(odd_key(path));
        }
        self.keys.extend(pairs.iter().map(|[high, low]| high << 4 | low));
        self.end_record(entries, position);
        Ok(())
    }

    /// All of it was visited before, so that nothing is looked up, checked or bounded anew.
    fn subtree(&mut self, entries: &mut Entries<'_>, path: &[u8], position: u32) -> Result<()> {
        let mut place = Place::of(path);
        let mut trail: Vec<Fork> = Vec::with_capacity(64);
        let mut at = position;
        loop {
            self.count(at);
            let facts = entries.facts(at);
            let referred = entries.referred(facts);
            if matches!(facts.kind, Kind::Leaf | Kind::Extension) {
                let key = Node::read_own_key(entries.entries[at as usize]).expect("it was decoded before");
                if facts.kind == Kind::Extension {
                    key.nibbles().for_each(|nibble| place.push(nibble));
                    at = referred[0];
                    continue;
                }
                if !key.push_key_behind(&place.bytes, place.nibbles, &mut self.keys) {
                    key.nibbles().for_each(|nibble| place.push(nibble));
                    return Err(odd_key(&unpack(&place.bytes, place.nibbles)));
                }
                self.end_record(entries, referred[0]);
            } else {
                entries.touch(referred);
                let has_value = facts.kind == Kind::BranchWithValue;
                if has_value {
                    if !place.nibbles.is_multiple_of(2) {
                        return Err(odd_key(&unpack(&place.bytes, place.nibbles)));
                    }
                    self.keys.extend_from_slice(&place.bytes[..place.nibbles / 2]);
                    self.end_record(entries, referred[0]);
                } else if COUNTED && facts.bitmap == 0 {
                    // No trie has such a node, and it would belong to no range of keys.
                    let hash = &entries.hashes[at as usize];
                    return Err(TrieError::new(ErrorKind::MalformedNode, "a branch has neither value nor child", hex(hash)));
                }
                trail.push(Fork { nibbles: place.nibbles, children: facts.bitmap, next: facts.references + u32::from(has_value) });
            }
            let fork = loop {
                match trail.last_mut() {
                    None => return Ok(()),
                    Some(fork) if fork.children != 0 => break fork,
                    Some(_) => trail.pop(),
                };
            };
            place.nibbles = fork.nibbles;
            place.push(fork.children.trailing_zeros() as u8);
            at = entries.reference_at(fork.next);
            fork.children &= fork.children - 1;
            fork.next += 1;
        }
    }

    fn node_over_end(&mut self, position: u32) {
        self.count(position);
    }
}

fn odd_key(path: &[u8]) -> TrieError {
    TrieError::new(ErrorKind::MalformedNode, "a key has an odd count of nibbles", hex(&pack(path)))
}

/// Validate a part and return its records. How many bytes they have is known, and bounded, before the first is taken down.
pub fn apply<'a>(part: &'a [u8], state_root: &Hash, part_id: u64, num_parts: u64) -> Result<Applied<'a>> {
    Ok(collect::<false>(check_part(part, state_root, part_id, num_parts)?, state_root)?.0)
}

/// `apply`, and how often each entry is referred to by what lies in the part's key interval, counted as a tree.
pub fn apply_counted<'a>(part: &'a [u8], state_root: &Hash, part_id: u64, num_parts: u64) -> Result<(Applied<'a>, Vec<u32>)> {
    collect::<true>(check_part(part, state_root, part_id, num_parts)?, state_root)
}

fn collect<'a, const COUNTED: bool>(mut checked: CheckedPart<'a>, state_root: &Hash) -> Result<(Applied<'a>, Vec<u32>)> {
    let mut found = Records::<COUNTED>::new(&checked.entries);
    checked.walk_again(state_root, &mut found)?;
    let entries = checked.entries;
    let mut referenced = found.referenced;
    referenced.sort_unstable_by_key(|&at| entries.hashes[at as usize]);
    referenced.dedup();
    Ok((Applied { keys: found.keys, records: found.records, entries: entries.entries, hashes: entries.hashes, referenced }, found.counts))
}
