//! The records of a validated part.

use crate::entries::Entries;
use crate::error::hex;
use crate::limits::INLINED_VALUE_BYTES_MAX;
use crate::nibbles::pack;
use crate::validate::{OnValue, check_part};
use crate::{ErrorKind, Hash, Result, TrieError};

/// One record of the part's key interval.
#[derive(Debug, PartialEq, Eq)]
pub struct AppliedRecord {
    /// The whole trie key.
    pub key: Vec<u8>,
    /// Position of the value in `Applied::entries`.
    pub entry: u32,
}

/// A part's records, ascending by key, over its entries.
pub struct Applied<'a> {
    /// Keys, and where their values are.
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
}

/// Collects records as the walk reaches their values.
#[derive(Default)]
struct Records {
    records: Vec<AppliedRecord>,
    referenced: Vec<u32>,
}

impl OnValue for Records {
    const IN_ORDER: bool = true;

    fn value(&mut self, entries: &Entries<'_>, path: &[u8], position: u32) -> Result<()> {
        if !path.len().is_multiple_of(2) {
            return Err(TrieError::new(ErrorKind::MalformedNode, "a key has an odd count of nibbles", hex(&pack(path))));
        }
        let key = pack(path);
        let value = entries.entries[position as usize];
        if !Applied::is_inlined(value) {
            self.referenced.push(position);
        }
        self.records.push(AppliedRecord { key, entry: position });
        Ok(())
    }
}

/// Validate a part and return its records. How many bytes they have is known, and bounded, before the first is taken down.
pub fn apply<'a>(part: &'a [u8], state_root: &Hash, part_id: u64, num_parts: u64) -> Result<Applied<'a>> {
    let mut checked = check_part(part, state_root, part_id, num_parts)?;
    let mut found = Records::default();
    checked.walk_again(state_root, &mut found)?;
    let entries = checked.entries;
    let mut referenced = found.referenced;
    referenced.sort_unstable_by_key(|&at| entries.hashes[at as usize]);
    referenced.dedup();
    Ok(Applied { records: found.records, entries: entries.entries, hashes: entries.hashes, referenced })
}
