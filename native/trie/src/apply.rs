//! The records of a validated part.

use crate::error::hex;
use crate::limits::{APPLIED_BYTES_MAX, INLINED_VALUE_BYTES_MAX};
use crate::nibbles::pack;
use crate::validate::walk_part;
use crate::{ErrorKind, Hash, Result, TrieError};

/// One record of the part's key interval.
#[derive(Debug, PartialEq, Eq)]
pub struct AppliedRecord {
    pub key: Vec<u8>,
    /// Position of the value in `Applied::entries`.
    pub entry: u32,
}

/// A part's records, ascending by key, over its entries.
pub struct Applied<'a> {
    pub records: Vec<AppliedRecord>,
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

/// Validate a part and return its records.
pub fn apply<'a>(part: &'a [u8], state_root: &Hash, part_id: u64, num_parts: u64) -> Result<Applied<'a>> {
    let mut records: Vec<AppliedRecord> = Vec::new();
    let mut referenced = Vec::new();
    let mut bytes = 0usize;
    let entries = walk_part(part, state_root, part_id, num_parts, |entries, path, at| {
        if path.len() % 2 != 0 {
            return Err(TrieError::new(ErrorKind::MalformedNode, "a key has an odd count of nibbles", hex(&pack(path))));
        }
        let key = pack(path);
        let value = entries.entries[at];
        bytes += key.len();
        if Applied::is_inlined(value) {
            bytes += value.len();
        } else {
            referenced.push(at as u32);
        }
        if bytes > APPLIED_BYTES_MAX {
            return Err(TrieError::new(
                ErrorKind::PartLimit,
                format!("the records of a part have more than {APPLIED_BYTES_MAX} bytes"),
                "",
            ));
        }
        records.push(AppliedRecord { key, entry: at as u32 });
        Ok(())
    })?;
    referenced.sort_unstable_by_key(|&at| entries.hashes[at as usize]);
    referenced.dedup();
    Ok(Applied { records, entries: entries.entries, hashes: entries.hashes, referenced })
}
