//! Judging a part: three walks from the trusted root over nothing but the part's entries, each entry visited.
//!
//! Source: nearcore core/store/src/trie/state_parts.rs (visit_nodes_for_state_part, find_state_part_boundary,
//! find_node_in_dfs_order) and trie/ops/iter.rs (seek_nibble_slice, visit_nodes_interval).

use crate::entries::{Entries, check_depth};
use crate::limits::TRIE_DEPTH_MAX;
use crate::node::{EncodedKey, Node, NodeKind};
use crate::{ErrorKind, Hash, Result, TrieError};

const EMPTY_ROOT: Hash = [0; 32];

/// The right end of the last part: above every key, as no nibble is 16.
const RIGHT_EDGE: &[u8] = &[16];

/// A path of nibbles, with the length of what it shares with the right end of the interval.
struct Path<'e> {
    nibbles: Vec<u8>,
    end: &'e [u8],
    shared: usize,
}

impl Path<'_> {
    fn truncate(&mut self, length: usize) {
        self.nibbles.truncate(length);
        self.shared = self.shared.min(length);
    }

    #[inline]
    fn extend(&mut self, nibbles: impl Iterator<Item = u8>) -> Result<()> {
        self.nibbles.extend(nibbles);
        check_depth(self.nibbles.len())?;
        while self.shared < self.end.len() && self.nibbles.get(self.shared) == Some(&self.end[self.shared]) {
            self.shared += 1;
        }
        Ok(())
    }

    /// Whether the path has parted from the way to the right end. If it is not behind it, neither is anything that extends it.
    #[inline]
    fn has_left_end(&self) -> bool {
        self.shared < self.nibbles.len()
    }

    /// Whether the path is at or behind the right end.
    #[inline]
    fn is_past_end(&self) -> bool {
        match (self.nibbles.get(self.shared), self.end.get(self.shared)) {
            (Some(nibble), Some(end)) => nibble > end,
            (_, None) => true,
            (None, Some(_)) => false,
        }
    }
}

/// A node on the trail of the interval walk and what is left to do at it.
struct Crumb<'a> {
    node: Node<'a>,
    position: u32,
    /// Length of the path at which the node stands.
    depth: usize,
    /// The node's own value, or the child of an extension, is still to be visited.
    at_node: bool,
    /// Children of a branch that are still to be visited.
    children: u16,
    /// No key before the interval is under the node, and none of the interval was found yet.
    unclaimed: bool,
}

/// Takes what lies in a part's interval, in the order of keys.
pub(crate) trait OnInterval {
    /// Take the position of a value and the nibbles of its key.
    fn value(&mut self, entries: &mut Entries<'_>, path: &[u8], position: u32) -> Result<()>;

    /// Take the position of a node and the nibbles of its place: all keys under it lie in the interval.
    fn subtree(&mut self, entries: &mut Entries<'_>, path: &[u8], position: u32) -> Result<()>;

    /// Take the position of a node that is over an end of the interval; the first key under it lies in the interval.
    fn node_over_end(&mut self, position: u32);
}

/// Visits, and counts what the records would have.
struct Visited;

impl OnInterval for Visited {
    fn value(&mut self, entries: &mut Entries<'_>, path: &[u8], position: u32) -> Result<()> {
        entries.count_value(position, path.len());
        Ok(())
    }

    fn subtree(&mut self, entries: &mut Entries<'_>, path: &[u8], position: u32) -> Result<()> {
        entries.reach(position, path.len())
    }

    fn node_over_end(&mut self, _: u32) {}
}

/// Judge a part as nearcore does, and by what its records would have once it is applied.
pub fn validate(part: &[u8], state_root: &Hash, part_id: u64, num_parts: u64) -> Result<()> {
    check_part(part, state_root, part_id, num_parts).map(|_| ())
}

/// Judge a part as `validate` does, and then the order of its entries, which is to ascend; give the SHA-256 of its bytes, which are read
/// once for both.
pub fn validate_sorted(part: &[u8], state_root: &Hash, part_id: u64, num_parts: u64) -> Result<Hash> {
    check_part_id(part_id, num_parts)?;
    let (entries, digest) = Entries::with_digest(part)?;
    let checked = check_entries(entries, part.len(), state_root, part_id, num_parts)?;
    if !checked.entries.is_sorted() {
        let problem = format!("the entries of part {part_id}/{num_parts} are not in ascending order");
        return Err(TrieError::new(ErrorKind::MalformedPart, problem, ""));
    }
    Ok(digest)
}

/// A part that was judged, and the interval of its keys.
pub(crate) struct CheckedPart<'a> {
    pub(crate) entries: Entries<'a>,
    begin: Vec<u8>,
    end: Vec<u8>,
}

impl CheckedPart<'_> {
    /// Walk over the interval once more, for what lies in it.
    pub(crate) fn walk_again(&mut self, state_root: &Hash, on_interval: &mut impl OnInterval) -> Result<()> {
        if *state_root == EMPTY_ROOT {
            return Ok(());
        }
        self.entries.forget_steps();
        walk_interval(&mut self.entries, state_root, &self.begin, &self.end, on_interval)
    }
}

/// Do the three walks of a part.
pub(crate) fn check_part<'a>(part: &'a [u8], state_root: &Hash, part_id: u64, num_parts: u64) -> Result<CheckedPart<'a>> {
    check_part_id(part_id, num_parts)?;
    check_entries(Entries::new(part)?, part.len(), state_root, part_id, num_parts)
}

fn check_part_id(part_id: u64, num_parts: u64) -> Result<()> {
    if part_id >= num_parts {
        return Err(TrieError::new(ErrorKind::Assertion, "a part id is not below the number of parts", format!("{part_id}/{num_parts}")));
    }
    Ok(())
}

fn check_entries<'a>(
    mut entries: Entries<'a>,
    part_bytes: usize,
    state_root: &Hash,
    part_id: u64,
    num_parts: u64,
) -> Result<CheckedPart<'a>> {
    let (mut begin, mut end) = (Vec::new(), Vec::new());
    if *state_root != EMPTY_ROOT {
        begin = find_boundary(&mut entries, state_root, part_id, num_parts)?;
        end = find_boundary(&mut entries, state_root, part_id + 1, num_parts)?;
        let root = entries.root(state_root)?;
        let total = entries.node(root)?.memory_usage;
        let mut share = total / num_parts + u64::from(total % num_parts > 0);
        if begin == RIGHT_EDGE {
            // nearcore's encoding of the right edge reads back as the empty key, so that is where its walk begins then.
            begin.clear();
            share = total;
        }
        walk_interval(&mut entries, state_root, &begin, &end, &mut Visited)?;
        entries.check_unfolded(share, part_bytes as u64)?;
    }
    entries.check_all_visited()?;
    Ok(CheckedPart { entries, begin, end })
}

fn walk_interval(entries: &mut Entries<'_>, state_root: &Hash, begin: &[u8], end: &[u8], on_interval: &mut impl OnInterval) -> Result<()> {
    let mut interval = IntervalWalk { path: Path { nibbles: Vec::new(), end, shared: 0 }, trail: Vec::new() };
    if interval.seek(entries, state_root, begin)? {
        interval.run(entries, on_interval)?;
    }
    Ok(())
}

/// The path at which a part begins.
fn find_boundary(entries: &mut Entries<'_>, state_root: &Hash, part_id: u64, num_parts: u64) -> Result<Vec<u8>> {
    if part_id == 0 {
        return Ok(Vec::new());
    }
    if part_id == num_parts {
        return Ok(RIGHT_EDGE.to_vec());
    }
    let mut position = entries.root(state_root)?;
    let mut node = entries.node(position)?;
    let total = node.memory_usage;
    let threshold = total / num_parts * part_id + part_id.min(total % num_parts);
    if total <= threshold {
        return Ok(RIGHT_EDGE.to_vec());
    }
    let mut path = Vec::new();
    let mut skipped: u64 = 0;
    for _ in 0..=TRIE_DEPTH_MAX {
        skipped = skipped.saturating_add(node.own_memory_usage());
        match node.kind {
            NodeKind::Leaf { key, .. } => {
                path.extend(key.nibbles());
                check_depth(path.len())?;
                return Ok(path);
            }
            NodeKind::Branch { value: Some(_), .. } if skipped > threshold => return Ok(path),
            NodeKind::Branch { value, bitmap, .. } => {
                let (index, child) = choose_child(entries, position, value.is_some(), bitmap, threshold, &mut skipped)?;
                path.push(index);
                position = child;
            }
            NodeKind::Extension { key, .. } => {
                path.extend(key.nibbles());
                position = entries.follow(position, 0)?;
            }
        }
        check_depth(path.len())?;
        node = entries.node(position)?;
    }
    Err(check_depth(TRIE_DEPTH_MAX + 1).expect_err("one more than the limit"))
}

/// The first child, ascending, with which the memory usage passed exceeds the threshold; its index and position.
fn choose_child(
    entries: &mut Entries<'_>,
    position: u32,
    has_value: bool,
    bitmap: u16,
    threshold: u64,
    skipped: &mut u64,
) -> Result<(u8, u32)> {
    for (at, index) in (0..16u8).filter(|index| bitmap & (1 << index) != 0).enumerate() {
        let child = entries.follow(position, usize::from(has_value) + at)?;
        let with_child = skipped.saturating_add(entries.node(child)?.memory_usage);
        if with_child > threshold {
            return Ok((index, child));
        }
        *skipped = with_child;
    }
    Err(TrieError::new(ErrorKind::MalformedNode, "memory usage of a branch is more than that of its children", ""))
}

struct IntervalWalk<'a, 'e> {
    path: Path<'e>,
    trail: Vec<Crumb<'a>>,
}

impl<'a> IntervalWalk<'a, '_> {
    fn push(&mut self, entries: &Entries<'a>, position: u32) -> Result<Node<'a>> {
        let node = entries.node(position)?;
        let children = if let NodeKind::Branch { bitmap, .. } = node.kind { bitmap } else { 0 };
        self.trail.push(Crumb { node, position, depth: self.path.nibbles.len(), at_node: true, children, unclaimed: true });
        // Extensions of no nibbles would lengthen the trail without lengthening the path.
        check_depth(self.trail.len() - 1)?;
        Ok(node)
    }

    /// Go to the first key that is not below `key`; false when that is already past the end.
    fn seek(&mut self, entries: &mut Entries<'a>, root: &Hash, key: &[u8]) -> Result<bool> {
        let mut rest = key;
        let mut position = entries.root(root)?;
        loop {
            let node = self.push(entries, position)?;
            let crumb = self.trail.last_mut().expect("just pushed");
            match node.kind {
                NodeKind::Leaf { key, .. } => {
                    if !is_at_or_after(key, rest) {
                        crumb.at_node = false;
                        self.path.extend(key.nibbles())?;
                    }
                    break;
                }
                NodeKind::Branch { bitmap, value, .. } => {
                    let Some((&index, behind)) = rest.split_first() else { break };
                    crumb.at_node = false;
                    crumb.children = (u32::from(bitmap) & !((2u32 << index) - 1)) as u16;
                    self.path.extend([index].into_iter())?;
                    if bitmap & (1 << index) == 0 {
                        break;
                    }
                    position = entries.follow(position, child_reference(value.is_some(), bitmap, index))?;
                    rest = behind;
                }
                NodeKind::Extension { key, .. } => {
                    if rest.len() >= key.len() && key.nibbles().zip(rest).all(|(a, b)| a == *b) {
                        crumb.at_node = false;
                        rest = &rest[key.len()..];
                        self.path.extend(key.nibbles())?;
                        position = entries.follow(position, 0)?;
                        continue;
                    }
                    if !is_at_or_after(key, rest) {
                        crumb.at_node = false;
                        self.path.extend(key.nibbles())?;
                    }
                    break;
                }
            }
        }
        self.leave_to_earlier(key);
        Ok(!self.path.is_past_end())
    }

    /// Leave those nodes on the way to the interval's first key alone that have an earlier key under them.
    fn leave_to_earlier(&mut self, key: &[u8]) {
        let mut earlier = false;
        for crumb in self.trail.iter_mut().rev() {
            earlier |= !crumb.at_node
                && match crumb.node.kind {
                    NodeKind::Leaf { .. } => true,
                    // What was followed leads to the next crumb; this is about one that was passed over.
                    NodeKind::Extension { key: own, .. } => !key[crumb.depth..].iter().copied().take(own.len()).eq(own.nibbles()),
                    NodeKind::Branch { value, bitmap, .. } => value.is_some() || bitmap & ((1u32 << key[crumb.depth]) - 1) as u16 != 0,
                };
            crumb.unclaimed = !earlier;
        }
    }

    /// Tell of the nodes over an end whose first key was found now.
    fn claim(&mut self, on_interval: &mut impl OnInterval) {
        for crumb in self.trail.iter_mut().rev().take_while(|crumb| crumb.unclaimed) {
            crumb.unclaimed = false;
            on_interval.node_over_end(crumb.position);
        }
    }

    /// Visit nodes and values in depth-first order up to the end of the interval.
    fn run(&mut self, entries: &mut Entries<'a>, on_interval: &mut impl OnInterval) -> Result<()> {
        while let Some(crumb) = self.trail.last_mut() {
            let position = crumb.position;
            self.path.truncate(crumb.depth);
            // Which reference is next, and whether it is a value.
            let (reference, is_value) = match crumb.node.kind {
                NodeKind::Leaf { key, .. } if crumb.at_node => {
                    self.path.extend(key.nibbles())?;
                    (0, true)
                }
                NodeKind::Extension { key, .. } if crumb.at_node => {
                    self.path.extend(key.nibbles())?;
                    (0, false)
                }
                NodeKind::Branch { value: Some(_), .. } if crumb.at_node => (0, true),
                NodeKind::Branch { bitmap, value, .. } if crumb.children != 0 => {
                    let index = crumb.children.trailing_zeros() as u8;
                    crumb.children &= crumb.children - 1;
                    self.path.extend([index].into_iter())?;
                    (child_reference(value.is_some(), bitmap, index), false)
                }
                _ => {
                    self.trail.pop();
                    continue;
                }
            };
            crumb.at_node = false;
            if self.path.is_past_end() {
                return Ok(());
            }
            let to = entries.follow(position, reference)?;
            if is_value {
                self.claim(on_interval);
                on_interval.value(entries, &self.path.nibbles, to)?;
            } else if self.path.has_left_end() {
                self.claim(on_interval);
                on_interval.subtree(entries, &self.path.nibbles, to)?;
            } else {
                self.push(entries, to)?;
            }
        }
        Ok(())
    }
}

/// Which reference of a branch leads to the child at an index that its bitmap has.
fn child_reference(has_value: bool, bitmap: u16, index: u8) -> usize {
    usize::from(has_value) + (u32::from(bitmap) & ((1u32 << index) - 1)).count_ones() as usize
}

/// Whether an encoded key is not below a path.
fn is_at_or_after(key: EncodedKey<'_>, rest: &[u8]) -> bool {
    key.nibbles().ge(rest.iter().copied())
}
