//! One pass over the sorted keys of a range, with a stack of the branches that the present key is under.
//!
//! The depth of a node's parent branch is the longer one of the prefixes that its keys share with the key before and the key after
//! them. Both are known when the walk passes, so a node is finished at once and never touched again.

use crate::edge::{Child, OpenNode};
use crate::nibbles::{nibble, unpack};
use crate::node::{self, ValueRef};
use crate::part_entries::Keyed;
use statecast_digests::sha256;

/// Room for nodes that a walk begins with, a little over what a record of real state takes, so that it seldom has to be moved.
const ARENA_BYTES_A_RECORD: usize = 192;
const NODES_A_RECORD: usize = 2;

/// Most records that room is made for in advance.
const RESERVED_RECORDS_MAX: usize = 1 << 20;

/// Where a node's bytes lie in the arena.
#[derive(Clone, Copy, Default)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) length: u32,
}

impl Span {
    const LENGTH_BITS: u32 = 24;

    /// Start and length as one number; no node has 16 MiB, no machine an arena of 2^40 bytes.
    fn place(self) -> u64 {
        (self.start as u64) << Self::LENGTH_BITS | u64::from(self.length)
    }

    /// The bytes at a place.
    #[inline]
    pub(crate) fn bytes_at(arena: &[u8], place: u64) -> &[u8] {
        let start = (place >> Self::LENGTH_BITS) as usize;
        &arena[start..start + (place as usize & ((1 << Self::LENGTH_BITS) - 1))]
    }
}

/// A branch whose keys are being passed. Frames are used again, so that a push costs next to nothing.
struct Frame<'a> {
    depth: usize,
    /// The branch is also over the key left of the range.
    left_open: bool,
    first: usize,
    first_key: &'a [u8],
    value: Option<ValueRef>,
    bitmap: u16,
    children: usize,
    /// Of the children together.
    memory_usage: u64,
    /// Where the children's bytes begin in the arena.
    arena_start: usize,
    hashes: [u8; 32 * 16],
    usages: [u64; 16],
    spans: [Span; 16],
}

impl Frame<'_> {
    fn blank() -> Self {
        Self {
            depth: 0,
            left_open: false,
            first: 0,
            first_key: &[],
            value: None,
            bitmap: 0,
            children: 0,
            memory_usage: 0,
            arena_start: 0,
            hashes: [0; 512],
            usages: [0; 16],
            spans: [Span::default(); 16],
        }
    }
}

/// What to do with nodes besides linking them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Forget a node's bytes once its parent is hashed.
    Nothing,
    /// Keep all nodes' bytes.
    Nodes,
}

/// The walk. `HASHED` false computes memory usage alone, and charges it to the records.
pub(crate) struct Walk<'a, const HASHED: bool> {
    frames: Vec<Frame<'a>>,
    height: usize,
    keep: Keep,
    pub(crate) arena: Vec<u8>,
    /// The nodes in the arena, to be sorted into a part.
    pub(crate) kept: Vec<Keyed>,
    /// Structure only, one a record.
    pub(crate) charges: Vec<u64>,
    pub(crate) open: Vec<OpenNode>,
    /// Closed nodes over the first key, deepest first.
    pub(crate) first_path: Vec<Vec<u8>>,
    pub(crate) top: Option<Child>,
    pub(crate) node_count: u64,
    pub(crate) hashed_bytes: u64,
}

/// A finished node on its way to its parent.
struct Linked {
    hash: [u8; 32],
    memory_usage: u64,
    span: Span,
}

impl<'a, const HASHED: bool> Walk<'a, HASHED> {
    /// Begin a walk; `left_shared` are the nibbles that the first key shares with the key left of the range, if there is one.
    pub(crate) fn new(first_key: &'a [u8], left_shared: Option<usize>, record_count: usize, keep: Keep) -> Self {
        let reserved = if HASHED && keep == Keep::Nodes { record_count.min(RESERVED_RECORDS_MAX) } else { 0 };
        let mut walk = Self {
            frames: Vec::with_capacity(64),
            height: 0,
            keep,
            arena: Vec::with_capacity(reserved * ARENA_BYTES_A_RECORD),
            kept: Vec::with_capacity(reserved * NODES_A_RECORD),
            charges: if HASHED { Vec::new() } else { vec![0; record_count] },
            open: Vec::new(),
            first_path: Vec::new(),
            top: None,
            node_count: 0,
            hashed_bytes: 0,
        };
        if let Some(depth) = left_shared {
            walk.push(depth, true, 0, first_key, 0);
        }
        walk
    }

    #[inline]
    fn push(&mut self, depth: usize, left_open: bool, first: usize, first_key: &'a [u8], arena_start: usize) {
        if self.height == self.frames.len() {
            self.frames.push(Frame::blank());
        }
        let frame = &mut self.frames[self.height];
        self.height += 1;
        frame.depth = depth;
        frame.left_open = left_open;
        frame.first = first;
        frame.first_key = first_key;
        frame.value = None;
        frame.bitmap = 0;
        frame.children = 0;
        frame.memory_usage = 0;
        frame.arena_start = arena_start;
    }

    /// Pass a key. `before` and `after` are the nibbles that it shares with its neighbours, None where there is no neighbour.
    #[inline]
    pub(crate) fn step(&mut self, at: usize, key: &'a [u8], value: ValueRef, before: Option<usize>, after: Option<usize>) {
        if after > before {
            let depth = after.expect("more than something");
            self.push(depth, false, at, key, self.arena.len());
        }
        if after == Some(2 * key.len()) {
            self.frames[self.height - 1].value = Some(value);
        } else {
            self.add_leaf(at, key, value, before.max(after));
        }
        while self.height > 0 && after.is_none_or(|after| self.frames[self.height - 1].depth > after) {
            self.finish_top(key, after);
        }
    }

    #[inline]
    fn add_leaf(&mut self, at: usize, key: &'a [u8], value: ValueRef, parent: Option<usize>) {
        let from = parent.map_or(0, |depth| depth + 1);
        let own = node::leaf_memory_usage(2 * key.len() - from, value.length);
        let start = self.arena.len();
        if HASHED {
            node::push_leaf(&mut self.arena, key, from, &value, own);
        }
        let linked = self.hash_new(start, own);
        self.count(at, own, start);
        self.link(key, linked);
    }

    /// Hash the node that was just written to the end of the arena.
    #[inline]
    fn hash_new(&mut self, start: usize, memory_usage: u64) -> Linked {
        let length = self.arena.len() - start;
        let hash = if HASHED { sha256(&self.arena[start..]) } else { [0; 32] };
        self.hashed_bytes += length as u64;
        let span = Span { start, length: length as u32 };
        if HASHED && self.keep == Keep::Nodes {
            let (head, next) = node::heads(&self.arena[start..]);
            self.kept.push(Keyed { head, next, place: span.place() });
        }
        Linked { hash, memory_usage, span }
    }

    /// Account for a closed node: its bytes are those at the end of the arena.
    #[inline]
    fn count(&mut self, first: usize, own_memory_usage: u64, start: usize) {
        self.node_count += 1;
        if !HASHED {
            self.charges[first] += own_memory_usage;
        } else if first == 0 {
            self.first_path.push(self.arena[start..].to_vec());
        }
    }

    /// Make a finished node a child of the top frame, or the root.
    #[inline]
    fn link(&mut self, key: &[u8], linked: Linked) {
        if self.height == 0 {
            let bytes = self.arena[linked.span.start..][..linked.span.length as usize].to_vec();
            self.top = Some(Child { hash: linked.hash, memory_usage: linked.memory_usage, bytes });
            return;
        }
        let frame = &mut self.frames[self.height - 1];
        let at = frame.children;
        frame.bitmap |= 1 << nibble(key, frame.depth);
        frame.children += 1;
        frame.memory_usage += linked.memory_usage;
        frame.usages[at] = linked.memory_usage;
        if HASHED {
            frame.hashes[32 * at..32 * at + 32].copy_from_slice(&linked.hash);
            frame.spans[at] = linked.span;
        }
    }

    /// Take the top frame off: hand it on as open, or close it and link it to its parent.
    fn finish_top(&mut self, key: &'a [u8], after: Option<usize>) {
        self.height -= 1;
        let frame = &self.frames[self.height];
        let (left_open, first, first_key, arena_start) = (frame.left_open, frame.first, frame.first_key, frame.arena_start);
        if left_open {
            let node = self.open_node(self.height);
            self.open.push(node);
        }
        let closed = (!left_open).then_some(self.height);
        let below = self.height.checked_sub(1).map(|at| self.frames[at].depth);
        let parent = below.max(after);
        let linked = closed.map(|at| self.close(at, key, parent));
        if after > below {
            // The parent is a branch that no key has shown yet; it takes the place of the frame just popped.
            self.push(after.expect("more than something"), left_open, first, first_key, arena_start);
        }
        if let Some(linked) = linked {
            self.link(key, linked);
        }
    }

    /// Write and hash a branch, and the extension above it where nibbles remain between it and its parent.
    #[inline]
    fn close(&mut self, at: usize, key: &[u8], parent: Option<usize>) -> Linked {
        let frame = &self.frames[at];
        let (depth, first) = (frame.depth, frame.first);
        let own = ValueRef::branch_memory_usage(frame.value.as_ref());
        let memory_usage = own + frame.memory_usage;
        if HASHED && self.keep == Keep::Nothing {
            self.arena.truncate(frame.arena_start);
        }
        let start = self.arena.len();
        if HASHED {
            let hashes = &frame.hashes[..32 * frame.children];
            node::push_branch(&mut self.arena, frame.value.as_ref(), frame.bitmap, hashes, memory_usage);
        }
        let branch = self.hash_new(start, memory_usage);
        self.count(first, own, start);
        let from = parent.map_or(0, |depth| depth + 1);
        if depth == from {
            return branch;
        }
        let own = node::extension_memory_usage(depth - from);
        let memory_usage = memory_usage + own;
        let start = self.arena.len();
        if HASHED {
            node::push_extension(&mut self.arena, key, from, depth, &branch.hash, memory_usage);
        }
        let extension = self.hash_new(start, memory_usage);
        self.count(first, own, start);
        extension
    }

    fn open_node(&self, at: usize) -> OpenNode {
        let frame = &self.frames[at];
        let children = (0..frame.children).map(|index| {
            let mut hash = [0; 32];
            let mut bytes = Vec::new();
            if HASHED {
                hash.copy_from_slice(&frame.hashes[32 * index..32 * index + 32]);
                let span = frame.spans[index];
                bytes.extend_from_slice(&self.arena[span.start..][..span.length as usize]);
            }
            Child { hash, memory_usage: frame.usages[index], bytes }
        });
        OpenNode {
            prefix: unpack(frame.first_key, frame.depth),
            first_key: (!frame.left_open).then(|| frame.first_key.to_vec()),
            value: frame.value,
            bitmap: frame.bitmap,
            children: children.collect(),
        }
    }

    /// End the walk: the frames that are left are open to the right.
    pub(crate) fn finish(&mut self) {
        while self.height > 0 {
            self.height -= 1;
            let node = self.open_node(self.height);
            self.open.push(node);
        }
        self.open.sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix));
        self.first_path.reverse();
    }
}
