//! Sorting nodes and values by their bytes into a part's entries.
//!
//! Entries are sorted by their first eight bytes, with a radix sort while there are many; what these leave equal is settled by the
//! next eight, and the few that are equal still by comparing whole entries.

use crate::Result;
use crate::node;
use crate::partial_state::Writer;

/// Below this many entries a comparison sort is faster than eight passes.
const RADIX_ENTRIES_MIN: usize = 1 << 10;

const HEAD_BYTES: usize = 8;

/// An entry by its first bytes, as two numbers that sort like them, and the place of all of them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Keyed {
    pub(crate) head: u64,
    /// The eight bytes behind those of the head.
    pub(crate) next: u64,
    pub(crate) place: u64,
}

/// Entries of one origin, found by their places.
pub(crate) struct Entries<'a, F: Fn(u64) -> &'a [u8]> {
    pub(crate) keyed: Vec<Keyed>,
    pub(crate) bytes_of: F,
}

/// The eight bytes from an offset on, zeros behind the end.
#[inline]
pub(crate) fn head_at(bytes: &[u8], offset: usize) -> u64 {
    let rest = bytes.get(offset..).unwrap_or_default();
    match rest.first_chunk::<HEAD_BYTES>() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => rest.iter().enumerate().fold(0, |head, (at, byte)| head | u64::from(*byte) << (56 - 8 * at)),
    }
}

impl<'a, F: Fn(u64) -> &'a [u8]> Entries<'a, F> {
    /// Sort by bytes, each once.
    pub(crate) fn sort_unique(&mut self) {
        let mut keyed = std::mem::take(&mut self.keyed);
        if keyed.len() >= RADIX_ENTRIES_MIN {
            radix_sort(&mut keyed);
        } else {
            keyed.sort_unstable_by_key(|entry| entry.head);
        }
        for run in keyed.chunk_by_mut(|a, b| a.head == b.head).filter(|run| run.len() > 1) {
            run.sort_unstable_by(|a, b| a.next.cmp(&b.next).then_with(|| self.bytes(a).cmp(self.bytes(b))));
        }
        keyed.dedup_by(|a, b| a.head == b.head && a.next == b.next && self.bytes(a) == self.bytes(b));
        self.keyed = keyed;
    }

    #[inline]
    fn bytes(&self, entry: &Keyed) -> &'a [u8] {
        (self.bytes_of)(entry.place)
    }
}

/// Sort by head, byte by byte from the lowest; a byte that is the same in all is skipped.
fn radix_sort(keyed: &mut [Keyed]) {
    let mut counts = [[0u32; 256]; HEAD_BYTES];
    for entry in keyed.iter() {
        for (digit, count) in counts.iter_mut().enumerate() {
            count[(entry.head >> (8 * digit)) as usize & 255] += 1;
        }
    }
    let length = keyed.len();
    let mut scratch = vec![Keyed::default(); length];
    let (mut from, mut to) = (keyed, &mut scratch[..]);
    let mut swapped = false;
    for (digit, count) in counts.iter().enumerate() {
        if count.iter().any(|&count| count as usize == length) {
            continue;
        }
        let mut starts = [0u32; 256];
        for at in 1..256 {
            starts[at] = starts[at - 1] + count[at - 1];
        }
        for entry in from.iter() {
            let start = &mut starts[(entry.head >> (8 * digit)) as usize & 255];
            to[*start as usize] = *entry;
            *start += 1;
        }
        std::mem::swap(&mut from, &mut to);
        swapped = !swapped;
    }
    if swapped {
        to.copy_from_slice(from);
    }
}

/// PartialState bytes of nodes (by `node::heads`) and values, each sorted and unique.
pub(crate) fn encode<'a>(
    nodes: &Entries<'a, impl Fn(u64) -> &'a [u8]>,
    values: &Entries<'a, impl Fn(u64) -> &'a [u8]>,
    size: usize,
) -> Result<Vec<u8>> {
    let mut writer = Writer::with_capacity(nodes.keyed.len() + values.keyed.len(), size);
    let mut rest = nodes.keyed.iter().peekable();
    for entry in &values.keyed {
        let value = values.bytes(entry);
        // The first eight bytes settle nearly all comparisons without a look at the node.
        let compare = |node: &Keyed| node::first_eight(node.head).cmp(&entry.head).then_with(|| nodes.bytes(node).cmp(value));
        while let Some(node) = rest.next_if(|node| compare(node).is_lt()) {
            writer.push(nodes.bytes(node))?;
        }
        // A value may have the bytes of a node.
        rest.next_if(|node| compare(node).is_eq());
        writer.push(value)?;
    }
    for node in rest {
        writer.push(nodes.bytes(node))?;
    }
    writer.finish()
}
