//! Merging all edges of a shard into its root, and what parts need for their proofs.

use std::collections::HashSet;

use crate::edge::{Charge, Edge};
use crate::error::hex;
use crate::merge::{decode_adjacent, sum_by_key};
use crate::nibbles::{nibble, starts_with, unpack};
use crate::open_nodes::{ClosedBytes, OpenNodes, malformed};
use crate::{ErrorKind, Hash, Result, TrieError};

/// Keys of one range and the memory usage to add to their charges, ascending by key.
pub type RangeCharges = Vec<(Vec<u8>, u64)>;

/// The merge of all edges of a shard.
pub struct Sealed {
    /// Zeros when not hashed.
    pub state_root: Hash,
    /// nearcore's measure of the whole trie.
    pub memory_usage: u64,
    /// Empty when not hashed.
    pub root_node: Vec<u8>,
    /// One list an edge, empty when not hashed: the nodes from the root to the node of its first key and the siblings to the left of them.
    pub boundary_nodes: Vec<Vec<Vec<u8>>>,
    /// One list an edge, empty when hashed.
    pub charges: Vec<RangeCharges>,
}

/// Merge the edges of all adjacent ranges of a shard, left to right.
pub fn seal(encoded: &[&[u8]]) -> Result<Sealed> {
    let mut edges = decode_adjacent(encoded)?;
    let whole = edges.first().is_some_and(|edge| edge.left_key.is_none()) && edges.last().is_some_and(|edge| edge.right_key.is_none());
    if !whole {
        return Err(TrieError::new(ErrorKind::Assertion, "edges to seal do not reach from end to end of a shard", ""));
    }
    let hashed = edges[0].hashed;
    let mut charges: Vec<Charge> = Vec::new();
    for edge in &mut edges {
        charges.append(&mut edge.charges);
    }
    let lists: Vec<_> = edges.iter_mut().map(|edge| std::mem::take(&mut edge.open)).collect();
    let mut open = OpenNodes::unite(lists.into_iter(), hashed)?;
    open.settle_first_keys(None);
    let mut closed: Vec<ClosedBytes> = Vec::with_capacity(open.nodes.len());
    for at in (0..open.nodes.len()).rev() {
        closed.push(open.close(at)?);
    }
    closed.reverse();
    charges.append(&mut open.charges);
    let top = open.top.take().or_else(|| edges[0].top.take());
    let top = top.ok_or_else(|| malformed("edges have no root", &[]))?;
    let boundary_nodes = edges.iter().map(|edge| if hashed { boundary(edge, &open, &closed) } else { Vec::new() }).collect();
    Ok(Sealed {
        state_root: top.hash,
        memory_usage: top.memory_usage,
        root_node: top.bytes,
        boundary_nodes,
        charges: split_charges(&edges, sum_by_key(charges))?,
    })
}

/// What nearcore's find_state_part_boundary reads on its way to the first key of a range.
fn boundary(edge: &Edge, open: &OpenNodes, closed: &[ClosedBytes]) -> Vec<Vec<u8>> {
    let key = unpack(&edge.first_key, 2 * edge.first_key.len());
    let mut found: HashSet<&[u8]> = edge.first_path.iter().map(Vec::as_slice).collect();
    // Of all prefixes up to the key in order, the longest one that it extends is the last one or an ancestor of it.
    let mut at = open.nodes.partition_point(|node| node.prefix <= key).checked_sub(1);
    while let Some(position) = at {
        at = open.parents[position];
        let node = &open.nodes[position];
        if !starts_with(&edge.first_key, &node.prefix) {
            continue;
        }
        found.insert(&closed[position].branch);
        found.extend(closed[position].extension.as_deref());
        let depth = node.prefix.len();
        if depth < key.len() {
            let left = u32::from(node.bitmap) & ((1 << nibble(&edge.first_key, depth)) - 1);
            found.extend(node.children.iter().take(left.count_ones() as usize).map(|child| child.bytes.as_slice()));
        }
    }
    let mut nodes: Vec<Vec<u8>> = found.into_iter().map(<[u8]>::to_vec).collect();
    nodes.sort_unstable();
    nodes
}

fn split_charges(edges: &[Edge], charges: Vec<Charge>) -> Result<Vec<RangeCharges>> {
    let mut lists: Vec<RangeCharges> = vec![Vec::new(); edges.len()];
    for charge in charges {
        let at = edges.partition_point(|edge| edge.last_key < charge.key);
        match edges.get(at) {
            Some(edge) if edge.first_key <= charge.key => lists[at].push((charge.key, charge.memory_usage)),
            _ => return Err(TrieError::new(ErrorKind::MalformedNode, "an edge charges a key of no range", hex(&charge.key))),
        }
    }
    Ok(lists)
}
