//! PartialState bytes: u8 0, u32 count, then u32 length and bytes an entry (nearcore core/primitives/src/state.rs, PartialState).

use crate::borsh::{Reader, push_bytes};
use crate::limits::{PARTIAL_STATE_BYTES_MAX, PARTIAL_STATE_ENTRIES_MAX};
use crate::{ErrorKind, Result, TrieError};

pub(crate) const HEADER_BYTES: usize = 5;
pub(crate) const LENGTH_BYTES: usize = 4;

fn over_limit(problem: String) -> TrieError {
    TrieError::new(ErrorKind::PartLimit, problem, "")
}

#[inline]
fn check_size(bytes: usize) -> Result<()> {
    if bytes > PARTIAL_STATE_BYTES_MAX {
        return Err(over_limit(format!("a part has {bytes} bytes, more than {PARTIAL_STATE_BYTES_MAX}")));
    }
    Ok(())
}

fn check_count(count: usize) -> Result<()> {
    if count > PARTIAL_STATE_ENTRIES_MAX {
        return Err(over_limit(format!("a part has {count} entries, more than {PARTIAL_STATE_ENTRIES_MAX}")));
    }
    Ok(())
}

/// Writes entries that come sorted and once each.
///
/// They lie all over the memory. A few at a time are touched before they are copied: the touches don't wait for each other, as
/// copies do, which halves the time.
pub(crate) struct Writer<'a> {
    out: Vec<u8>,
    count: usize,
    pending: [&'a [u8]; PENDING_MAX],
    pending_count: usize,
}

/// Entries that are touched together.
const PENDING_MAX: usize = 32;

impl<'a> Writer<'a> {
    /// Reserve for at most `count` entries of `size` bytes together.
    pub(crate) fn with_capacity(count: usize, size: usize) -> Self {
        let bytes = HEADER_BYTES + LENGTH_BYTES * count + size;
        let mut out = Vec::with_capacity(bytes.min(PARTIAL_STATE_BYTES_MAX));
        out.extend_from_slice(&[0; HEADER_BYTES]);
        Self { out, count: 0, pending: [&[]; PENDING_MAX], pending_count: 0 }
    }

    #[inline]
    pub(crate) fn push(&mut self, entry: &'a [u8]) -> Result<()> {
        self.pending[self.pending_count] = entry;
        self.pending_count += 1;
        if self.pending_count == PENDING_MAX { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let pending = &self.pending[..self.pending_count];
        let ends = |entry: &[u8]| entry.first().zip(entry.last()).map_or(0, |(first, last)| first ^ last);
        std::hint::black_box(pending.iter().fold(0, |touched, entry| touched ^ ends(entry)));
        for entry in pending {
            check_size(self.out.len() + LENGTH_BYTES + entry.len())?;
            push_bytes(&mut self.out, entry);
        }
        self.count += pending.len();
        self.pending_count = 0;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.flush()?;
        check_count(self.count)?;
        self.out[1..HEADER_BYTES].copy_from_slice(&(self.count as u32).to_le_bytes());
        Ok(self.out)
    }
}

/// Split a part into its entries.
pub fn decode(bytes: &[u8]) -> Result<Vec<&[u8]>> {
    decode_mapped(bytes, |_| ()).map(|(entries, _)| entries)
}

/// Split a part into its entries, and give what is made of each, while it is in the core's cache.
pub(crate) fn decode_mapped<'a, T>(bytes: &'a [u8], mut map: impl FnMut(&'a [u8]) -> T) -> Result<(Vec<&'a [u8]>, Vec<T>)> {
    check_size(bytes.len())?;
    let malformed = |problem: &str| TrieError::new(ErrorKind::MalformedPart, problem, format!("{} bytes", bytes.len()));
    let mut reader = Reader::new(bytes);
    if reader.u8() != Some(0) {
        return Err(malformed("a part does not begin with the tag of PartialState"));
    }
    let count = reader.u32().ok_or_else(|| malformed("a part ends inside its count of entries"))? as usize;
    if count > (bytes.len() - HEADER_BYTES) / LENGTH_BYTES {
        return Err(malformed("a part is too short for its count of entries"));
    }
    check_count(count)?;
    let (mut entries, mut mapped) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let entry = reader.bytes().ok_or_else(|| malformed("a part ends inside an entry"))?;
        mapped.push(map(entry));
        entries.push(entry);
    }
    if !reader.is_empty() {
        return Err(malformed("a part has bytes behind its last entry"));
    }
    Ok((entries, mapped))
}

/// Unite the entries of an interior with boundary nodes: sorted, each once.
pub fn assemble(interior: Option<&[u8]>, nodes: &[&[u8]]) -> Result<Vec<u8>> {
    let inside = interior.map(decode).transpose()?.unwrap_or_default();
    if !inside.is_sorted_by(|a, b| a < b) {
        return Err(TrieError::new(ErrorKind::MalformedPart, "the entries of an interior are not strictly ascending", ""));
    }
    let mut outside = nodes.to_vec();
    outside.sort_unstable();
    outside.dedup();
    outside.retain(|node| inside.binary_search(node).is_err());
    let size = inside.iter().chain(&outside).map(|entry| entry.len()).sum();
    let mut writer = Writer::with_capacity(inside.len() + outside.len(), size);
    let mut outside = outside.into_iter().peekable();
    for entry in inside {
        while let Some(node) = outside.next_if(|node| *node < entry) {
            writer.push(node)?;
        }
        writer.push(entry)?;
    }
    outside.try_for_each(|node| writer.push(node))?;
    writer.finish()
}
