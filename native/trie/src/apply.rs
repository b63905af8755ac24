//! The records of a validated part.

use crate::entries::Entries;
use crate::error::hex;
use crate::limits::INLINED_VALUE_BYTES_MAX;
use crate::nibbles::{pack, unpack};
use crate::references::count_references;
use crate::validate::{CheckedPart, OnValue, check_part};
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
        key_of(&self.keys, &self.records, row)
    }
}

fn key_of<'a>(keys: &'a [u8], records: &[AppliedRecord], row: usize) -> &'a [u8] {
    let begin = if row == 0 { 0 } else { records[row - 1].key_end };
    &keys[begin..records[row].key_end]
}

/// Collects records as the walk reaches their values.
#[derive(Default)]
struct Records {
    keys: Vec<u8>,
    records: Vec<AppliedRecord>,
    referenced: Vec<u32>,
}

impl OnValue for Records {
    const IN_ORDER: bool = true;

    fn value(&mut self, entries: &Entries<'_>, path: &[u8], position: u32) -> Result<()> {
        let (pairs, odd) = path.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(TrieError::new(ErrorKind::MalformedNode, "a key has an odd count of nibbles", hex(&pack(path))));
        }
        self.keys.extend(pairs.iter().map(|[high, low]| high << 4 | low));
        if !Applied::is_inlined(entries.entries[position as usize]) {
            self.referenced.push(position);
        }
        self.records.push(AppliedRecord { key_end: self.keys.len(), entry: position });
        Ok(())
    }
}

/// Validate a part and return its records. How many bytes they have is known, and bounded, before the first is taken down.
pub fn apply<'a>(part: &'a [u8], state_root: &Hash, part_id: u64, num_parts: u64) -> Result<Applied<'a>> {
    let mut checked = check_part(part, state_root, part_id, num_parts)?;
    let found = records_of(&mut checked, state_root)?;
    Ok(applied(checked, found))
}

/// `apply`, and how often each entry is referred to by what lies in the part's key interval, counted as a tree.
pub fn apply_counted<'a>(part: &'a [u8], state_root: &Hash, part_id: u64, num_parts: u64) -> Result<(Applied<'a>, Vec<u64>)> {
    let mut checked = check_part(part, state_root, part_id, num_parts)?;
    let found = records_of(&mut checked, state_root)?;
    let counts = if found.records.is_empty() {
        vec![0; checked.entries.entries.len()]
    } else {
        let nibbles = |row| {
            let key = key_of(&found.keys, &found.records, row);
            unpack(key, 2 * key.len())
        };
        count_references(&mut checked.entries, state_root, &nibbles(0), &nibbles(found.records.len() - 1))?
    };
    Ok((applied(checked, found), counts))
}

fn records_of(checked: &mut CheckedPart<'_>, state_root: &Hash) -> Result<Records> {
    let mut found = Records::default();
    checked.walk_again(state_root, &mut found)?;
    Ok(found)
}

fn applied<'a>(checked: CheckedPart<'a>, found: Records) -> Applied<'a> {
    let entries = checked.entries;
    let mut referenced = found.referenced;
    referenced.sort_unstable_by_key(|&at| entries.hashes[at as usize]);
    referenced.dedup();
    Applied { keys: found.keys, records: found.records, entries: entries.entries, hashes: entries.hashes, referenced }
}
