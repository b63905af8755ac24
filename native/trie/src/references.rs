//! How often each node and value of a part is referred to by what lies in its key interval, counted as a tree.
//!
//! The rules are those of `pipelines/kernel/reference_counts.py`, which counts the same in Python: a node belongs to the range that
//! holds the first key under it, so the counts of adjacent parts add up to the trie's.

use crate::entries::{Counted, Entries};
use crate::limits::WALK_STEPS_MAX;
use crate::node::NodeKind;
use crate::{ErrorKind, Hash, Result, TrieError};

/// Count the references of a validated part's key range.
///
/// `first` and `last` are the nibbles of its first and last key. Returns a count an entry.
pub(crate) fn count_references(entries: &mut Entries<'_>, state_root: &Hash, first: &[u8], last: &[u8]) -> Result<Vec<u64>> {
    entries.forget_steps();
    let root = entries.root(state_root)?;
    let own_depth = own_depth(entries, root, first)?;
    let mut counts = vec![0; entries.entries.len()];
    let mut inner = Vec::new();
    let mut to_visit: Vec<(Vec<u8>, u32)> = vec![(Vec::new(), root)];
    while let Some((position, at)) = to_visit.pop() {
        if position[..] > *last {
            break;
        }
        let before_first = first.starts_with(&position);
        if position[..] < *first && !before_first {
            continue;
        }
        if !before_first && !last.starts_with(&position) {
            inner.push(at);
            continue;
        }
        if !before_first || position.len() >= own_depth {
            counts[at as usize] += 1;
        }
        match entries.node(at)?.kind {
            NodeKind::Leaf { .. } => counts[entries.follow(at, 0)? as usize] += 1,
            NodeKind::Extension { key, .. } => {
                let child = entries.follow(at, 0)?;
                to_visit.push((position.iter().copied().chain(key.nibbles()).collect(), child));
            }
            NodeKind::Branch { value, bitmap, .. } => {
                let mut reference = 0;
                if value.is_some() {
                    if position[..] >= *first {
                        counts[entries.follow(at, 0)? as usize] += 1;
                    }
                    reference = 1;
                }
                let begin = to_visit.len();
                for index in (0..16u8).filter(|index| bitmap & (1 << index) != 0) {
                    // What lies outside of the range is in the part only where a boundary needs it.
                    let path = [&position[..], &[index]].concat();
                    if path[..] <= *last && (path[..] >= *first || first.starts_with(&path)) {
                        to_visit.push((path, entries.follow(at, reference)?));
                    }
                    reference += 1;
                }
                to_visit[begin..].reverse();
            }
        }
    }
    count_subtrees(entries, inner, &mut counts)?;
    Ok(counts)
}

/// From which depth on the nodes on the way to the first key have no earlier key under them.
fn own_depth(entries: &mut Entries<'_>, root: u32, first: &[u8]) -> Result<usize> {
    let (mut depth, mut at, mut own_depth) = (0, root, 0);
    loop {
        match entries.node(at)?.kind {
            NodeKind::Leaf { .. } => return Ok(own_depth),
            NodeKind::Extension { key, .. } => {
                depth += key.len();
                at = entries.follow(at, 0)?;
            }
            NodeKind::Branch { value, bitmap, .. } => {
                let Some(&index) = first.get(depth) else { return Ok(own_depth) };
                let below = bitmap & ((1u32 << index) - 1) as u16;
                if value.is_some() || below != 0 {
                    own_depth = depth + 1;
                }
                depth += 1;
                at = entries.follow(at, usize::from(value.is_some()) + below.count_ones() as usize)?;
            }
        }
    }
}

/// Count whole subtrees, where no key need be looked at: nearly all of a part.
fn count_subtrees(entries: &Entries<'_>, mut to_visit: Vec<u32>, counts: &mut [u64]) -> Result<()> {
    let mut steps = 0u64;
    while let Some(at) = to_visit.pop() {
        counts[at as usize] += 1;
        steps += 1;
        for referred in entries.referred(at)? {
            steps += 1;
            match referred? {
                Counted::Value(value) => counts[value as usize] += 1,
                Counted::Leaf { leaf, value } => {
                    counts[leaf as usize] += 1;
                    counts[value as usize] += 1;
                }
                Counted::Inner(child) => to_visit.push(child),
            }
        }
        if steps > WALK_STEPS_MAX {
            return Err(TrieError::new(ErrorKind::PartLimit, format!("a key range has more than {WALK_STEPS_MAX} nodes"), ""));
        }
    }
    Ok(())
}
