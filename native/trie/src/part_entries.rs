//! Sorting nodes and values by their bytes into a part's entries.

use crate::Result;
use crate::partial_state::Writer;

/// An entry with its first 16 bytes as a number, which settles nearly every comparison without a look at the bytes.
#[derive(Clone, Copy)]
struct Keyed<'a> {
    head: u128,
    bytes: &'a [u8],
}

#[inline]
fn keyed(bytes: &[u8]) -> Keyed<'_> {
    let head = match bytes.first_chunk::<16>() {
        Some(chunk) => *chunk,
        None => {
            let mut padded = [0; 16];
            padded[..bytes.len()].copy_from_slice(bytes);
            padded
        }
    };
    Keyed { head: u128::from_be_bytes(head), bytes }
}

/// PartialState bytes of entries that come in any order and more than once.
pub(crate) fn encode_unsorted<'a>(entries: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>> {
    let mut sorted: Vec<Keyed<'a>> = entries.map(keyed).collect();
    sorted.sort_unstable_by(|a, b| a.head.cmp(&b.head).then_with(|| a.bytes.cmp(b.bytes)));
    sorted.dedup_by(|a, b| a.head == b.head && a.bytes == b.bytes);
    let size = sorted.iter().map(|entry| entry.bytes.len()).sum();
    let mut writer = Writer::with_capacity(sorted.len(), size)?;
    for entry in sorted {
        writer.push(entry.bytes);
    }
    Ok(writer.finish())
}
