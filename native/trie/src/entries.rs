//! A part's entries, found by hash, what each refers to, and which of them were visited.
//!
//! All references are looked up once, entry by entry, before anything is walked: in that order the table can be read ahead, which a
//! walk can't, as it learns of a node's children only from the node.

use std::hash::{BuildHasher, RandomState};

use statecast_digests::{Digest, sha256, sha256_beside};

use crate::error::hex;
use crate::limits::{
    APPLIED_BYTES_MAX, APPLIED_RATIO_MAX, INLINED_VALUE_BYTES_MAX, NODE_MEMORY_USAGE, PARTIAL_STATE_ENTRIES_MAX, STATE_PART_MEMORY_USAGE,
    TRIE_DEPTH_MAX, WALK_STEPS_MAX,
};
use crate::node::{Node, NodeKind};
use crate::{ErrorKind, Hash, Result, TrieError, partial_state};

/// A reference to what the part does not hold.
const MISSING: u32 = u32::MAX;

/// References that are looked up side by side.
const LOOKUPS: usize = 16;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not to be decoded as a node; a value, if all is right.
    #[default]
    Other,
    Leaf,
    Branch,
    BranchWithValue,
    Extension,
}

/// What is known of an entry; small, as the walk over a part reads these in random order.
#[derive(Clone, Copy, Default)]
pub(crate) struct Facts {
    /// Where its references begin: its value first, then its children.
    pub(crate) references: u32,
    /// Reads of its whole subtree, counted as a tree; at most one more than the limit.
    steps: u32,
    /// What its whole subtree unfolds to, counted as a tree.
    below: Unfolded<u32>,
    /// Nibbles of its own key.
    nibbles: u16,
    /// Nibbles of the longest path below its place.
    height: u16,
    /// Bytes that it has.
    length: u16,
    /// Children that a branch has.
    pub(crate) bitmap: u16,
    reference_count: u8,
    pub(crate) kind: Kind,
    visited: bool,
    /// The whole subtree is visited, `steps` and `height` are known.
    reached: bool,
}

const _: () = assert!(size_of::<Facts>() == 32);

/// What records have once each stands by itself, though they share nodes and values; a number that is full stays full, which is over
/// every limit.
#[derive(Clone, Copy, Default)]
struct Unfolded<T> {
    records: T,
    /// Of values that stand in their records.
    inlined_bytes: T,
    /// Nibbles of the keys, from the node down.
    key_nibbles: T,
}

impl Facts {
    /// Whether it stands in its record, if it is a value.
    #[inline]
    pub(crate) fn is_inlined(&self) -> bool {
        usize::from(self.length) <= INLINED_VALUE_BYTES_MAX
    }

    /// Bytes of the entry, if it is a value that stands in its record.
    #[inline]
    fn inlined_bytes(&self) -> u32 {
        if self.is_inlined() { u32::from(self.length) } else { 0 }
    }

    #[inline]
    fn refers_to_value(&self, reference: u8) -> bool {
        reference == 0 && matches!(self.kind, Kind::Leaf | Kind::BranchWithValue)
    }
}

/// The entries of a part.
pub(crate) struct Entries<'a> {
    pub(crate) entries: Vec<&'a [u8]>,
    pub(crate) hashes: Vec<Hash>,
    table: Table,
    facts: Vec<Facts>,
    references: Vec<u32>,
    visited_count: usize,
    steps: u64,
    unfolded: Unfolded<u64>,
    is_sorted: bool,
}

/// Open addressing: position + 1 and some bits of the mixed hash above it; 0 where nothing is. The size is a power of two.
struct Table {
    slots: Vec<u32>,
    /// Unknown to the part's maker, so that entries can't be chosen to collide in one run of slots.
    seed: u64,
}

/// Bits of a slot that hold position + 1.
const POSITION_BITS: u32 = 25;
const POSITION_MASK: u32 = (1 << POSITION_BITS) - 1;
const _: () = assert!(PARTIAL_STATE_ENTRIES_MAX < POSITION_MASK as usize);

/// Where a hash belongs, and the bits that a slot keeps of it.
#[derive(Clone, Copy, Default)]
struct Home {
    slot: usize,
    tag: u32,
}

impl Table {
    fn new(hashes: &[Hash]) -> Self {
        let slots = vec![0; (hashes.len() + hashes.len() / 2 + 1).next_power_of_two()];
        let mut table = Self { slots, seed: RandomState::new().hash_one(0u8) };
        for (position, hash) in hashes.iter().enumerate() {
            let home = table.home(hash);
            if let (slot, None) = table.find(hash, home, hashes) {
                table.slots[slot] = home.tag | (position as u32 + 1);
            }
        }
        table
    }

    #[inline]
    fn home(&self, hash: &Hash) -> Home {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let head = u64::from_le_bytes(*hash.first_chunk().expect("32 bytes"));
        let product = u128::from(head ^ self.seed) * u128::from(GOLDEN);
        let mixed = (product >> 64) as u64 ^ product as u64;
        Home { slot: mixed as usize & (self.slots.len() - 1), tag: (mixed >> 32) as u32 & !POSITION_MASK }
    }

    /// The slot of a hash, and the position of the entry in it.
    #[inline]
    fn find(&self, hash: &Hash, home: Home, hashes: &[Hash]) -> (usize, Option<u32>) {
        let mut slot = home.slot;
        loop {
            let found = self.slots[slot];
            if found == 0 {
                return (slot, None);
            }
            let position = (found & POSITION_MASK) - 1;
            if found & !POSITION_MASK == home.tag && hashes[position as usize] == *hash {
                return (slot, Some(position));
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    fn position(&self, hash: &Hash, hashes: &[Hash]) -> Option<u32> {
        self.find(hash, self.home(hash), hashes).1
    }

    /// Look up several hashes: first all slots, then all entries, so that the memory is read side by side.
    fn find_all(&self, wanted: &[&Hash], hashes: &[Hash], out: &mut Vec<u32>) {
        let mut homes = [Home::default(); LOOKUPS];
        let mut slots = [0u32; LOOKUPS];
        for ((home, slot), hash) in homes.iter_mut().zip(&mut slots).zip(wanted) {
            *home = self.home(hash);
            *slot = self.slots[home.slot];
        }
        for ((&home, &slot), hash) in homes.iter().zip(&slots).zip(wanted) {
            let position = (slot & POSITION_MASK).wrapping_sub(1);
            let here = slot & !POSITION_MASK == home.tag && hashes.get(position as usize) == Some(*hash);
            out.push(if here { position } else { self.find(hash, home, hashes).1.unwrap_or(MISSING) });
        }
    }
}

impl<'a> Entries<'a> {
    pub(crate) fn new(part: &'a [u8]) -> Result<Self> {
        let (entries, hashes) = partial_state::decode_mapped(part, sha256)?;
        Ok(Self::of_hashes(entries, hashes, false))
    }

    /// Also look at the order of the entries, and digest the part while its entries are hashed.
    pub(crate) fn with_digest(part: &'a [u8]) -> Result<(Self, Hash)> {
        let mut digest = Digest::new(part);
        let mut end = partial_state::HEADER_BYTES;
        let mut is_sorted = true;
        let mut before: Option<&[u8]> = None;
        let (entries, hashes) = partial_state::decode_mapped(part, |entry| {
            is_sorted &= before.is_none_or(|before| before < entry);
            before = Some(entry);
            end += partial_state::LENGTH_BYTES + entry.len();
            sha256_beside(entry, &mut digest, end)
        })?;
        Ok((Self::of_hashes(entries, hashes, is_sorted), digest.finish()))
    }

    fn of_hashes(entries: Vec<&'a [u8]>, hashes: Vec<Hash>, is_sorted: bool) -> Self {
        let table = Table::new(&hashes);
        let facts = Vec::with_capacity(entries.len());
        let unfolded = Unfolded::default();
        let mut found = Self { entries, hashes, table, facts, references: Vec::new(), visited_count: 0, steps: 0, unfolded, is_sorted };
        found.resolve();
        found
    }

    /// Whether the entries were looked at and ascend strictly.
    pub(crate) fn is_sorted(&self) -> bool {
        self.is_sorted
    }

    /// Decode each entry that looks like a node and look up what it refers to. What it would be if it were one says nothing yet: a
    /// value may look like a node.
    fn resolve(&mut self) {
        let mut wanted: Vec<&Hash> = Vec::with_capacity(LOOKUPS + 17);
        let mut references = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let mut facts = Facts { references: (references.len() + wanted.len()) as u32, length: capped(entry.len()), ..Facts::default() };
            let before = wanted.len();
            if let Some(node) = Node::read_whole(entry) {
                match node.kind {
                    NodeKind::Leaf { key, value, .. } => {
                        (facts.kind, facts.nibbles) = (Kind::Leaf, capped(key.len()));
                        wanted.push(value);
                    }
                    NodeKind::Branch { value, bitmap, children } => {
                        facts.bitmap = bitmap;
                        facts.kind = if value.is_some() { Kind::BranchWithValue } else { Kind::Branch };
                        wanted.extend(value.map(|(hash, _)| hash));
                        wanted.extend(children.as_chunks::<32>().0);
                    }
                    NodeKind::Extension { key, child } => {
                        (facts.kind, facts.nibbles) = (Kind::Extension, capped(key.len()));
                        wanted.push(child);
                    }
                }
            }
            facts.reference_count = (wanted.len() - before) as u8;
            self.facts.push(facts);
            if wanted.len() >= LOOKUPS {
                for some in wanted.chunks(LOOKUPS) {
                    self.table.find_all(some, &self.hashes, &mut references);
                }
                wanted.clear();
            }
        }
        for some in wanted.chunks(LOOKUPS) {
            self.table.find_all(some, &self.hashes, &mut references);
        }
        self.references = references;
    }

    /// Visit the root.
    pub(crate) fn root(&mut self, hash: &Hash) -> Result<u32> {
        let position = self.table.position(hash, &self.hashes).ok_or_else(|| missing(hash))?;
        self.visit(position);
        self.step(1)?;
        Ok(position)
    }

    /// Visit what a node refers to: its value if it has one is the first reference, then come its children.
    pub(crate) fn follow(&mut self, position: u32, reference: usize) -> Result<u32> {
        let to = self.reference(position, reference)?;
        self.visit(to);
        self.step(1)?;
        Ok(to)
    }

    #[inline]
    fn reference(&self, position: u32, reference: usize) -> Result<u32> {
        let to = self.references[self.facts[position as usize].references as usize + reference];
        if to == MISSING {
            return Err(self.missing_reference(position, reference));
        }
        Ok(to)
    }

    /// What is known of an entry.
    #[inline]
    pub(crate) fn facts(&self, position: u32) -> &Facts {
        &self.facts[position as usize]
    }

    /// What a node of a validated subtree refers to: its value first, then its children, ascending.
    #[inline]
    pub(crate) fn referred(&self, facts: &Facts) -> &[u32] {
        &self.references[facts.references as usize..][..usize::from(facts.reference_count)]
    }

    /// What stands at a place among all references.
    #[inline]
    pub(crate) fn reference_at(&self, place: u32) -> u32 {
        self.references[place as usize]
    }

    /// Read a little of what a walk will need of all that a node refers to: what is read side by side here does not have to be waited for
    /// one by one when the walk comes to it.
    #[inline]
    pub(crate) fn touch(&self, referred: &[u32]) {
        let mut touched = 0u16;
        for &to in referred {
            let facts = self.facts(to);
            if facts.kind == Kind::Leaf {
                touched ^= u16::from(self.entries[to as usize][0]);
                touched ^= self.facts(self.references[facts.references as usize]).length;
            }
        }
        std::hint::black_box(touched);
    }

    #[cold]
    fn missing_reference(&self, position: u32, reference: usize) -> TrieError {
        let node = Node::read_whole(self.entries[position as usize]).expect("it was decoded before");
        match node.kind {
            NodeKind::Leaf { value, .. } => missing(value),
            NodeKind::Extension { child, .. } => missing(child),
            NodeKind::Branch { value, children, .. } => {
                let hashes: Vec<&Hash> = value.map(|(hash, _)| hash).into_iter().chain(children.as_chunks().0).collect();
                missing(hashes[reference])
            }
        }
    }

    #[inline]
    fn visit(&mut self, position: u32) {
        let facts = &mut self.facts[position as usize];
        self.visited_count += usize::from(!facts.visited);
        facts.visited = true;
    }

    fn step(&mut self, count: u64) -> Result<()> {
        self.steps += count;
        if self.steps > WALK_STEPS_MAX {
            return Err(TrieError::new(ErrorKind::PartLimit, format!("a part takes more than {WALK_STEPS_MAX} reads to walk"), ""));
        }
        Ok(())
    }

    /// Let the next walk have as many steps as the one before.
    pub(crate) fn forget_steps(&mut self) {
        self.steps = 0;
    }

    /// Count a record of the interval, whose value was visited and whose key has so many nibbles.
    pub(crate) fn count_value(&mut self, value: u32, nibbles: usize) {
        self.unfolded.records += 1;
        self.unfolded.inlined_bytes += u64::from(self.facts[value as usize].inlined_bytes());
        self.unfolded.key_nibbles += nibbles as u64;
    }

    /// Refuse a part whose records have more bytes than the state can have for them, or than its own bytes are good for.
    ///
    /// A part ends at the first key with which the memory usage from its beginning is over its share, so all its records but the first
    /// have no more together, and each has that of a node and a value beside its bytes. No root of a chain says otherwise; and where the
    /// root itself says what nobody can hold, a part of more than the usual memory usage is bounded by its bytes.
    pub(crate) fn check_unfolded(&self, share: u64, part_bytes: u64) -> Result<()> {
        let Unfolded { records, inlined_bytes, key_nibbles } = self.unfolded;
        let memory_usage = inlined_bytes + 2 * NODE_MEMORY_USAGE * records;
        if memory_usage > share.saturating_add(2 * NODE_MEMORY_USAGE + INLINED_VALUE_BYTES_MAX as u64) {
            let problem = format!("the records of a part have a memory usage of {memory_usage}, its share of the state root's is {share}");
            return Err(TrieError::new(ErrorKind::PartLimit, problem, ""));
        }
        let bytes = inlined_bytes + key_nibbles / 2;
        let bytes_max = STATE_PART_MEMORY_USAGE.max(APPLIED_BYTES_MAX.min(APPLIED_RATIO_MAX * part_bytes));
        if share > STATE_PART_MEMORY_USAGE && bytes > bytes_max {
            let problem = format!("the records of a part of {part_bytes} bytes have {bytes}, more than {bytes_max}");
            return Err(TrieError::new(ErrorKind::PartLimit, problem, ""));
        }
        Ok(())
    }

    /// Decode an entry that is referred to as a node.
    pub(crate) fn node(&self, position: u32) -> Result<Node<'a>> {
        Node::read_whole(self.entries[position as usize]).ok_or_else(|| self.no_node(position))
    }

    #[cold]
    fn no_node(&self, position: u32) -> TrieError {
        TrieError::new(ErrorKind::MalformedNode, "an entry is no trie node", hex(&self.hashes[position as usize]))
    }

    /// Visit the whole subtree of a visited node that stands at a depth in nibbles.
    ///
    /// Equal subtrees are walked once and counted each time, so the work is bounded by the entries.
    pub(crate) fn reach(&mut self, position: u32, depth: usize) -> Result<()> {
        if !self.facts[position as usize].reached {
            self.reach_anew(position)?;
        }
        let facts = self.facts[position as usize];
        check_depth(depth + usize::from(facts.height))?;
        let below = facts.below;
        self.unfolded.records += u64::from(below.records);
        self.unfolded.inlined_bytes += u64::from(below.inlined_bytes);
        self.unfolded.key_nibbles += u64::from(below.key_nibbles) + depth as u64 * u64::from(below.records);
        // The node itself was counted when it was followed.
        self.step(u64::from(facts.steps) - 1)
    }

    fn reach_anew(&mut self, position: u32) -> Result<()> {
        let mut trail: Vec<(u32, u8)> = Vec::with_capacity(64);
        self.enter(position)?;
        trail.push((position, 0));
        while let Some((at, next)) = trail.last_mut() {
            let (at, reference) = (*at, *next);
            let facts = self.facts[at as usize];
            if reference == facts.reference_count {
                self.facts[at as usize].reached = true;
                trail.pop();
                if let Some(&(parent, _)) = trail.last() {
                    self.add_up(parent, at);
                }
                continue;
            }
            *next += 1;
            if facts.refers_to_value(reference) {
                continue;
            }
            let to = self.references[facts.references as usize + usize::from(reference)];
            if self.facts[to as usize].reached {
                self.add_up(at, to);
            } else {
                self.enter(to)?;
                trail.push((to, 0));
            }
        }
        Ok(())
    }

    /// Visit all that a node refers to, and finish those of its children that are leaves.
    ///
    /// Nothing here waits for what was read just before, so that memory is read side by side.
    fn enter(&mut self, position: u32) -> Result<()> {
        let facts = self.facts[position as usize];
        if facts.kind == Kind::Other {
            return Err(self.no_node(position));
        }
        let mut own = Unfolded::default();
        for reference in 0..facts.reference_count {
            let to = self.reference(position, usize::from(reference))?;
            self.visit(to);
            if facts.refers_to_value(reference) {
                own = Unfolded { records: 1, inlined_bytes: self.facts[to as usize].inlined_bytes(), key_nibbles: facts.nibbles.into() };
            }
        }
        for reference in 0..facts.reference_count {
            let child = self.references[facts.references as usize + usize::from(reference)];
            let leaf = self.facts[child as usize];
            if leaf.kind == Kind::Leaf && !leaf.reached && !facts.refers_to_value(reference) {
                let value = self.reference(child, 0)?;
                self.visit(value);
                let inlined_bytes = self.facts[value as usize].inlined_bytes();
                let leaf = &mut self.facts[child as usize];
                (leaf.steps, leaf.height, leaf.reached) = (2, leaf.nibbles, true);
                leaf.below = Unfolded { records: 1, inlined_bytes, key_nibbles: leaf.nibbles.into() };
            }
        }
        let facts = &mut self.facts[position as usize];
        (facts.steps, facts.height, facts.below) = (1 + own.records, facts.nibbles, own);
        Ok(())
    }

    /// Count a child that is done into its parent.
    #[inline]
    fn add_up(&mut self, parent: u32, child: u32) {
        let child = self.facts[child as usize];
        let parent = &mut self.facts[parent as usize];
        parent.steps = parent.steps.saturating_add(child.steps);
        let own = if parent.kind == Kind::Extension { parent.nibbles } else { 1 };
        parent.height = parent.height.max(own.saturating_add(child.height));
        let (sum, below) = (&mut parent.below, child.below);
        sum.records = sum.records.saturating_add(below.records);
        sum.inlined_bytes = sum.inlined_bytes.saturating_add(below.inlined_bytes);
        sum.key_nibbles = sum.key_nibbles.saturating_add(below.key_nibbles).saturating_add(below.records.saturating_mul(own.into()));
    }

    /// Refuse entries that the walk did not reach: duplicates, or entries of another part.
    pub(crate) fn check_all_visited(&self) -> Result<()> {
        if self.visited_count == self.entries.len() {
            return Ok(());
        }
        let at = self.facts.iter().position(|facts| !facts.visited).expect("fewer were visited than there are");
        let hash = &self.hashes[at];
        let problem = match self.table.position(hash, &self.hashes) {
            Some(first) if first as usize != at => "a part has an entry twice",
            _ => "a part has an entry that its proof never visits",
        };
        Err(TrieError::new(ErrorKind::UnexpectedTrieValue, problem, hex(hash)))
    }
}

fn capped(nibbles: usize) -> u16 {
    u16::try_from(nibbles).unwrap_or(u16::MAX)
}

fn missing(hash: &Hash) -> TrieError {
    TrieError::new(ErrorKind::MissingTrieValue, "a part lacks an entry that its proof needs", hex(hash))
}

pub(crate) fn check_depth(nibbles: usize) -> Result<()> {
    if nibbles > TRIE_DEPTH_MAX {
        return Err(TrieError::new(ErrorKind::PartLimit, format!("a path has more than {TRIE_DEPTH_MAX} nibbles"), ""));
    }
    Ok(())
}
