//! Costs and limits, the same as in `pipelines/kernel/trie_kernel.py` and `schemas/dataset/flat_state.py`.

/// Cost of a node, and again of a value (nearcore TRIE_COSTS.node_cost).
pub const NODE_MEMORY_USAGE: u64 = 50;

/// Cost of a byte of a node's encoded key (nearcore TRIE_COSTS.byte_of_key).
pub const KEY_BYTE_MEMORY_USAGE: u64 = 2;

/// Longest trie key taken.
pub const KEY_BYTES_MAX: usize = 2048 + 256;

/// A value of at most this many bytes is inlined in flat state.
pub const INLINED_VALUE_BYTES_MAX: usize = 4000;

/// Largest decoded part that is read or written.
pub const PARTIAL_STATE_BYTES_MAX: usize = 512 << 20;

/// Most entries of a part.
pub const PARTIAL_STATE_ENTRIES_MAX: usize = 16 << 20;

/// Deepest path in nibbles.
pub const TRIE_DEPTH_MAX: usize = 2 * KEY_BYTES_MAX;

/// Most nodes that one validation or application visits.
pub const WALK_STEPS_MAX: u64 = 64 << 20;

/// Memory usage that a part is meant to have (nearcore STATE_PART_MEMORY_LIMIT).
pub const STATE_PART_MEMORY_USAGE: u64 = 30 << 20;

/// Most bytes of keys and inlined values of a part that has more than that: equal values stand once in a part, but at every key in
/// its records.
pub const APPLIED_BYTES_MAX: u64 = 1 << 30;

/// The same for a byte of the part. A record that shares no node with another has at most 2304 bytes of key over 89 bytes of nodes.
pub const APPLIED_RATIO_MAX: u64 = 32;
