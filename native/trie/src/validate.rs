//! Judging a part: three walks from the trusted root over nothing but the part's entries, each entry visited.
//!
//! Source: nearcore core/store/src/trie/state_parts.rs (visit_nodes_for_state_part, find_state_part_boundary,
//! find_node_in_dfs_order) and trie/ops/iter.rs (seek_nibble_slice, visit_nodes_interval).

use std::hash::{BuildHasher, RandomState};

use crate::error::hex;
use crate::limits::{TRIE_DEPTH_MAX, WALK_STEPS_MAX};
use crate::node::{EncodedKey, Node, NodeKind, child_at};
use crate::sha256::sha256;
use crate::{ErrorKind, Hash, Result, TrieError, partial_state};

const EMPTY_ROOT: Hash = [0; 32];

/// The right end of the last part: above every key, as no nibble is 16.
const RIGHT_EDGE: &[u8] = &[16];

/// Entries of a part, found by hash, each marked when it is visited.
pub(crate) struct Entries<'a> {
    pub(crate) entries: Vec<&'a [u8]>,
    pub(crate) hashes: Vec<Hash>,
    /// Open addressing, position + 1 of an entry or 0; the size is a power of two.
    slots: Vec<u32>,
    /// Unknown to whoever made the part, so that nobody can choose entries that fall into one run of slots.
    seed: u64,
    visited: Vec<bool>,
    visited_count: usize,
    steps: u64,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(part: &'a [u8]) -> Result<Self> {
        let entries = partial_state::decode(part)?;
        let hashes: Vec<Hash> = entries.iter().map(|entry| sha256(entry)).collect();
        let slots = vec![0; (2 * entries.len()).next_power_of_two()];
        let visited = vec![false; entries.len()];
        let seed = RandomState::new().hash_one(0u8);
        let mut found = Self { entries, hashes, slots, seed, visited, visited_count: 0, steps: 0 };
        for at in 0..found.hashes.len() {
            let (slot, known) = found.slot(&found.hashes[at]);
            if known.is_none() {
                found.slots[slot] = at as u32 + 1;
            }
        }
        Ok(found)
    }

    /// The slot of a hash, and the entry that is there.
    #[inline]
    fn slot(&self, hash: &Hash) -> (usize, Option<usize>) {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let head = u64::from_le_bytes(*hash.first_chunk().expect("32 bytes"));
        let mixed = (head ^ self.seed).wrapping_mul(GOLDEN);
        let mask = self.slots.len() - 1;
        let mut slot = (mixed ^ (mixed >> 32)) as usize & mask;
        loop {
            match self.slots[slot] {
                0 => return (slot, None),
                position if self.hashes[position as usize - 1] == *hash => return (slot, Some(position as usize - 1)),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    /// Visit the entry of a hash; returns its position.
    #[inline]
    fn visit(&mut self, hash: &Hash) -> Result<usize> {
        let Some(at) = self.slot(hash).1 else {
            return Err(TrieError::new(ErrorKind::MissingTrieValue, "a part lacks an entry that its proof needs", hex(hash)));
        };
        if !self.visited[at] {
            self.visited[at] = true;
            self.visited_count += 1;
        }
        Ok(at)
    }

    #[inline]
    fn node(&mut self, hash: &Hash) -> Result<Node<'a>> {
        self.steps += 1;
        if self.steps > WALK_STEPS_MAX {
            return Err(TrieError::new(ErrorKind::PartLimit, format!("a part unfolds to more than {WALK_STEPS_MAX} nodes"), ""));
        }
        let at = self.visit(hash)?;
        Node::decode(self.entries[at], hash)
    }

    /// Refuse entries that no walk came to: twice the same, or not of this part.
    fn check_all_visited(&self) -> Result<()> {
        if self.visited_count == self.entries.len() {
            return Ok(());
        }
        let at = self.visited.iter().position(|visited| !visited).expect("fewer were visited than there are");
        let problem = match self.slot(&self.hashes[at]).1 {
            Some(first) if first != at => "a part has an entry twice",
            _ => "a part has an entry that its proof never visits",
        };
        Err(TrieError::new(ErrorKind::UnexpectedTrieValue, problem, hex(&self.hashes[at])))
    }
}

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

fn check_depth(nibbles: usize) -> Result<()> {
    if nibbles > TRIE_DEPTH_MAX {
        return Err(TrieError::new(ErrorKind::PartLimit, format!("a path has more than {TRIE_DEPTH_MAX} nibbles"), ""));
    }
    Ok(())
}

/// A node on the trail of the interval walk and what is left to do at it.
struct Crumb<'a> {
    node: Node<'a>,
    /// Length of the path at which the node stands.
    depth: usize,
    /// The node's own value, or the child of an extension, is still to be visited.
    at_node: bool,
    /// Children of a branch that are still to be visited.
    children: u16,
}

/// Judge a part as nearcore does.
pub fn validate(part: &[u8], state_root: &Hash, part_id: u64, num_parts: u64) -> Result<()> {
    walk_part(part, state_root, part_id, num_parts, |_, _, _| Ok(())).map(|_| ())
}

/// Validate a part and call `on_value` with entries, path in nibbles and position of each value of its interval, in key order.
pub(crate) fn walk_part<'a>(
    part: &'a [u8],
    state_root: &Hash,
    part_id: u64,
    num_parts: u64,
    mut on_value: impl FnMut(&Entries<'a>, &[u8], usize) -> Result<()>,
) -> Result<Entries<'a>> {
    if part_id >= num_parts {
        return Err(TrieError::new(ErrorKind::Assertion, "a part id is not below the number of parts", format!("{part_id}/{num_parts}")));
    }
    let mut entries = Entries::new(part)?;
    if *state_root != EMPTY_ROOT {
        let begin = find_boundary(&mut entries, state_root, part_id, num_parts)?;
        let end = find_boundary(&mut entries, state_root, part_id + 1, num_parts)?;
        // nearcore's encoding of the right edge reads back as the empty key, so that is where its walk begins then.
        let begin = if begin == RIGHT_EDGE { &[] } else { begin.as_slice() };
        let mut interval = IntervalWalk { path: Path { nibbles: Vec::new(), end: &end, shared: 0 }, trail: Vec::new() };
        if interval.seek(&mut entries, state_root, begin)? {
            interval.run(&mut entries, &mut on_value)?;
        }
    }
    entries.check_all_visited()?;
    Ok(entries)
}

/// The path at which a part begins.
fn find_boundary(entries: &mut Entries<'_>, state_root: &Hash, part_id: u64, num_parts: u64) -> Result<Vec<u8>> {
    if part_id == 0 {
        return Ok(Vec::new());
    }
    if part_id == num_parts {
        return Ok(RIGHT_EDGE.to_vec());
    }
    let mut node = entries.node(state_root)?;
    let total = node.memory_usage;
    let threshold = total / num_parts * part_id + part_id.min(total % num_parts);
    if total <= threshold {
        return Ok(RIGHT_EDGE.to_vec());
    }
    let mut path = Vec::new();
    let mut skipped: u64 = 0;
    for _ in 0..=TRIE_DEPTH_MAX {
        skipped = skipped.saturating_add(node.own_memory_usage());
        check_depth(path.len())?;
        match node.kind {
            NodeKind::Leaf { key, .. } => {
                path.extend(key.nibbles());
                return Ok(path);
            }
            NodeKind::Branch { value: Some(_), .. } if skipped > threshold => return Ok(path),
            NodeKind::Branch { bitmap, children, .. } => {
                node = choose_child(entries, bitmap, children, threshold, &mut skipped, &mut path)?;
            }
            NodeKind::Extension { key, child } => {
                path.extend(key.nibbles());
                node = entries.node(child)?;
            }
        }
    }
    check_depth(TRIE_DEPTH_MAX + 1)?;
    unreachable!("the depth just checked is over the limit")
}

/// The first child, ascending, with which the memory usage passed exceeds the threshold.
fn choose_child<'a>(
    entries: &mut Entries<'a>,
    bitmap: u16,
    children: &[u8],
    threshold: u64,
    skipped: &mut u64,
    path: &mut Vec<u8>,
) -> Result<Node<'a>> {
    for index in (0..16u8).filter(|index| bitmap & (1 << index) != 0) {
        let child = entries.node(child_at(bitmap, children, index))?;
        let with_child = skipped.saturating_add(child.memory_usage);
        if with_child > threshold {
            path.push(index);
            return Ok(child);
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
    fn descend(&mut self, entries: &mut Entries<'a>, hash: &Hash) -> Result<Node<'a>> {
        let node = entries.node(hash)?;
        let children = if let NodeKind::Branch { bitmap, .. } = node.kind { bitmap } else { 0 };
        self.trail.push(Crumb { node, depth: self.path.nibbles.len(), at_node: true, children });
        // Extensions of no nibbles would lengthen the trail without lengthening the path.
        check_depth(self.trail.len() - 1)?;
        Ok(node)
    }

    /// Go to the first key that is not below `key`; false when that is already past the end.
    fn seek(&mut self, entries: &mut Entries<'a>, root: &Hash, key: &[u8]) -> Result<bool> {
        let mut rest = key;
        let mut hash = root;
        loop {
            let node = self.descend(entries, hash)?;
            let crumb = self.trail.last_mut().expect("just pushed");
            match node.kind {
                NodeKind::Leaf { key, .. } => {
                    if !is_at_or_after(key, rest) {
                        crumb.at_node = false;
                        self.path.extend(key.nibbles())?;
                    }
                    break;
                }
                NodeKind::Branch { bitmap, children, .. } => {
                    let Some((&index, behind)) = rest.split_first() else { break };
                    crumb.at_node = false;
                    crumb.children = (u32::from(bitmap) & !((2u32 << index) - 1)) as u16;
                    self.path.extend([index].into_iter())?;
                    if bitmap & (1 << index) == 0 {
                        break;
                    }
                    hash = child_at(bitmap, children, index);
                    rest = behind;
                }
                NodeKind::Extension { key, child } => {
                    if rest.len() >= key.len() && key.nibbles().zip(rest).all(|(a, b)| a == *b) {
                        crumb.at_node = false;
                        rest = &rest[key.len()..];
                        self.path.extend(key.nibbles())?;
                        hash = child;
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
        Ok(!self.path.is_past_end())
    }

    /// Visit nodes and values in depth-first order up to the end of the interval.
    fn run(&mut self, entries: &mut Entries<'a>, on_value: &mut impl FnMut(&Entries<'a>, &[u8], usize) -> Result<()>) -> Result<()> {
        while let Some(crumb) = self.trail.last_mut() {
            let node = crumb.node;
            self.path.truncate(crumb.depth);
            let mut value = None;
            let mut next = None;
            match node.kind {
                NodeKind::Leaf { key, value: hash, .. } if crumb.at_node => {
                    self.path.extend(key.nibbles())?;
                    value = Some(hash);
                }
                NodeKind::Extension { key, child } if crumb.at_node => {
                    self.path.extend(key.nibbles())?;
                    next = Some(child);
                }
                NodeKind::Branch { value: Some((hash, _)), .. } if crumb.at_node => value = Some(hash),
                NodeKind::Branch { bitmap, children, .. } if crumb.children != 0 => {
                    let index = crumb.children.trailing_zeros() as u8;
                    crumb.children &= crumb.children - 1;
                    self.path.extend([index].into_iter())?;
                    next = Some(child_at(bitmap, children, index));
                }
                _ => {
                    self.trail.pop();
                    continue;
                }
            }
            crumb.at_node = false;
            if self.path.is_past_end() {
                return Ok(());
            }
            if let Some(hash) = value {
                let at = entries.visit(hash)?;
                on_value(entries, &self.path.nibbles, at)?;
            }
            if let Some(hash) = next {
                self.descend(entries, hash)?;
            }
        }
        Ok(())
    }
}

/// Whether an encoded key is not below a path.
fn is_at_or_after(key: EncodedKey<'_>, rest: &[u8]) -> bool {
    key.nibbles().ge(rest.iter().copied())
}
