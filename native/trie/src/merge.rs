//! Merging the edges of two adjacent key ranges.

use crate::edge::{Charge, Edge, OpenNode};
use crate::nibbles;
use crate::open_nodes::{OpenNodes, check_first_keys};
use crate::{ErrorKind, Result, TrieError};

/// Merge the edge of a range with that of its right neighbour.
pub fn merge(left: &[u8], right: &[u8]) -> Result<Vec<u8>> {
    let mut edges = decode_adjacent(&[left, right])?.into_iter();
    let (left, right) = (edges.next().expect("two edges"), edges.next().expect("two edges"));
    Ok(merge_two(left, right)?.encode())
}

/// Decode edges and check that each begins where the one before it ends.
pub(crate) fn decode_adjacent(encoded: &[&[u8]]) -> Result<Vec<Edge>> {
    let edges = encoded.iter().map(|bytes| Edge::decode(bytes)).collect::<Result<Vec<_>>>()?;
    for edge in &edges {
        check_first_keys(&edge.open)?;
    }
    for pair in edges.windows(2) {
        let [left, right] = pair else { unreachable!("windows of two") };
        let adjacent = left.right_key.as_ref() == Some(&right.first_key) && right.left_key.as_ref() == Some(&left.last_key);
        if !adjacent || left.hashed != right.hashed {
            let place = crate::error::hex(&right.first_key);
            return Err(TrieError::new(ErrorKind::Assertion, "edges are not those of adjacent ranges of one kind", place));
        }
    }
    Ok(edges)
}

fn merge_two(left: Edge, right: Edge) -> Result<Edge> {
    let mut charges = left.charges;
    charges.extend(right.charges);
    let mut open = OpenNodes::unite([left.open, right.open].into_iter(), left.hashed)?;
    open.settle_first_keys(left.left_key.as_deref());
    let mut first_path = left.first_path;
    let straddles = |prefix: &[u8]| {
        let left_end = left.left_key.as_ref().is_some_and(|key| nibbles::starts_with(key, prefix));
        let right_end = right.right_key.as_ref().is_some_and(|key| nibbles::starts_with(key, prefix));
        left_end && nibbles::starts_with(&left.first_key, prefix) || right_end && nibbles::starts_with(&right.last_key, prefix)
    };
    let mut still_open: Vec<OpenNode> = Vec::new();
    // The sorted prefixes from the last to the first: every extension comes before what it extends.
    for at in (0..open.nodes.len()).rev() {
        if straddles(&open.nodes[at].prefix) {
            still_open.push(open.take(at));
            continue;
        }
        let on_first_path = nibbles::starts_with(&left.first_key, &open.nodes[at].prefix);
        let closed = open.close(at)?;
        if left.hashed && on_first_path {
            first_path.splice(0..0, closed.extension.into_iter().chain([closed.branch]));
        }
    }
    still_open.reverse();
    charges.append(&mut open.charges);
    Ok(Edge {
        hashed: left.hashed,
        left_key: left.left_key,
        first_key: left.first_key,
        last_key: right.last_key,
        right_key: right.right_key,
        open: still_open,
        first_path,
        top: open.top,
        charges: sum_by_key(charges),
    })
}

/// Add up the charges of each key; ascending by key.
pub(crate) fn sum_by_key(mut charges: Vec<Charge>) -> Vec<Charge> {
    charges.sort_by(|a, b| a.key.cmp(&b.key));
    charges.dedup_by(|next, kept| {
        let same = next.key == kept.key;
        if same {
            kept.memory_usage = kept.memory_usage.saturating_add(next.memory_usage);
        }
        same
    });
    charges
}
