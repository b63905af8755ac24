//! Structure and hashing of a key range.

use crate::edge::Edge;
use crate::error::hex;
use crate::limits::KEY_BYTES_MAX;
use crate::nibbles::lcp_ascending;
use crate::node::ValueRef;
use crate::part_entries::{self, Entries, Keyed, head_at};
use crate::walk::{Keep, Span, Walk};
use crate::{ErrorKind, Hash, Result, TrieError};
use statecast_digests::sha256;

/// What is known of a key range without hashing.
pub struct Structure {
    /// What straddles the range's ends, without hashes.
    pub edge: Vec<u8>,
    /// One a record: own memory usage of the closed nodes whose first key it is.
    pub charges: Vec<u64>,
}

/// What becomes of a key range.
pub struct Build {
    /// What straddles the range's ends, with hashes.
    pub edge: Vec<u8>,
    /// PartialState bytes of the closed nodes and the values of the range; None when not asked for.
    pub interior: Option<Vec<u8>>,
    /// Closed nodes, counted as a tree.
    pub node_count: u64,
    /// Bytes of all nodes and values that were hashed.
    pub hashed_bytes: u64,
}

/// Where a record's value is.
#[derive(Clone, Copy)]
pub enum ValueSource<'a> {
    /// In the record itself.
    Inlined(&'a [u8]),
    /// Among the referenced values, by its hash.
    Referenced(&'a Hash),
    /// Neither value nor hash, or both: refused.
    Unclear,
}

/// The neighbours of a range: the last key before it and the first key after it.
#[derive(Clone, Copy)]
struct Neighbours<'a> {
    left: Option<&'a [u8]>,
    right: Option<&'a [u8]>,
}

/// Compute shape and memory usage of a range of `count` records from their keys and value lengths.
pub fn structure<'a>(
    records: impl Iterator<Item = (&'a [u8], u32)>,
    count: usize,
    left: Option<&'a [u8]>,
    right: Option<&'a [u8]>,
) -> Result<Structure> {
    let records = records.map(|(key, length)| Ok((key, ValueRef { length, hash: [0; 32] })));
    let (walk, mut edge) = pass::<false>(records, count, Neighbours { left, right }, Keep::Nothing)?;
    edge.hashed = false;
    Ok(Structure { edge: edge.encode(), charges: walk.charges })
}

/// Hash a range of `count` records; `values` are the values that they may refer to, in any order.
///
/// `boundary_nodes` are united with the interior, if that is asked for; those of both ends make a state part of it.
pub fn build<'a>(
    records: impl Iterator<Item = (&'a [u8], u32, ValueSource<'a>)>,
    count: usize,
    values: impl Iterator<Item = (&'a Hash, &'a [u8])>,
    left: Option<&'a [u8]>,
    right: Option<&'a [u8]>,
    keep_interior: bool,
    boundary_nodes: &[&'a [u8]],
) -> Result<Build> {
    let mut value_bytes = 0;
    let mut inlined: Vec<&[u8]> = Vec::with_capacity(if keep_interior { count } else { 0 });
    let mut referenced: Vec<(&Hash, u32)> = Vec::new();
    let records = records.map(|(key, length, source)| {
        let hash = match source {
            ValueSource::Inlined(value) if value.len() == length as usize => {
                value_bytes += value.len() as u64;
                if keep_interior {
                    inlined.push(value);
                }
                sha256(value)
            }
            ValueSource::Inlined(_) => return Err(mismatch("value_length is not the length of the inlined value", key)),
            ValueSource::Referenced(hash) => {
                if keep_interior {
                    referenced.push((hash, length));
                }
                *hash
            }
            ValueSource::Unclear => return Err(mismatch("a record needs either its value or a value_hash", key)),
        };
        Ok((key, ValueRef { length, hash }))
    });
    let keep = if keep_interior { Keep::Nodes } else { Keep::Nothing };
    let (walk, edge) = pass::<true>(records, count, Neighbours { left, right }, keep)?;
    let interior = if keep_interior {
        value_bytes += collect_referenced(referenced, values, &mut inlined)?;
        // Like values they may be any bytes, and may be among the nodes.
        inlined.extend(boundary_nodes);
        Some(encode_interior(walk.kept, &walk.arena, &inlined)?)
    } else {
        None
    };
    Ok(Build { edge: edge.encode(), interior, node_count: walk.node_count, hashed_bytes: walk.hashed_bytes + value_bytes })
}

/// Sort nodes and values into one part.
fn encode_interior(kept: Vec<Keyed>, arena: &[u8], values: &[&[u8]]) -> Result<Vec<u8>> {
    let mut nodes = Entries { keyed: kept, bytes_of: |place| Span::bytes_at(arena, place) };
    nodes.sort_unique();
    let keyed = values.iter().enumerate().map(|(at, value)| Keyed { head: head_at(value, 0), next: head_at(value, 8), place: at as u64 });
    let mut values = Entries { keyed: keyed.collect(), bytes_of: |place| values[place as usize] };
    values.sort_unique();
    let value_bytes: usize = values.keyed.iter().map(|entry| (values.bytes_of)(entry.place).len()).sum();
    part_entries::encode(&nodes, &values, arena.len() + value_bytes)
}

fn mismatch(problem: &str, place: &[u8]) -> TrieError {
    TrieError::new(ErrorKind::ValueMismatch, problem, hex(place))
}

/// Walk all records, checking their order, and take down what is open.
fn pass<'a, const HASHED: bool>(
    mut records: impl Iterator<Item = Result<(&'a [u8], ValueRef)>>,
    count: usize,
    neighbours: Neighbours<'a>,
    keep: Keep,
) -> Result<(Walk<'a, HASHED>, Edge)> {
    let Some(first) = records.next() else {
        return Err(TrieError::new(ErrorKind::Assertion, "a key range has no records", ""));
    };
    let (first_key, mut value) = first?;
    for key in [neighbours.left, neighbours.right, Some(first_key)].into_iter().flatten() {
        check_length(key)?;
    }
    let mut before = neighbours.left.map(|left| shared(left, first_key)).transpose()?;
    let mut walk = Walk::<HASHED>::new(first_key, before, count, keep);
    let mut key = first_key;
    let mut at = 0;
    for next in records {
        let (next_key, next_value) = next?;
        check_length(next_key)?;
        let after = Some(shared(key, next_key)?);
        walk.step(at, key, value, before, after);
        (key, value, before) = (next_key, next_value, after);
        at += 1;
    }
    let after = neighbours.right.map(|right| shared(key, right)).transpose()?;
    walk.step(at, key, value, before, after);
    walk.finish();
    let edge = Edge {
        hashed: HASHED,
        left_key: neighbours.left.map(<[u8]>::to_vec),
        first_key: first_key.to_vec(),
        last_key: key.to_vec(),
        right_key: neighbours.right.map(<[u8]>::to_vec),
        open: std::mem::take(&mut walk.open),
        first_path: std::mem::take(&mut walk.first_path),
        top: walk.top.take(),
        charges: Vec::new(),
    };
    Ok((walk, edge))
}

#[inline]
fn check_length(key: &[u8]) -> Result<()> {
    if key.len() > KEY_BYTES_MAX {
        let problem = format!("a key has {} bytes, more than {KEY_BYTES_MAX}", key.len());
        return Err(TrieError::new(ErrorKind::PartLimit, problem, hex(key)));
    }
    Ok(())
}

/// Nibbles that a key shares with the one after it.
#[inline]
fn shared(key: &[u8], next: &[u8]) -> Result<usize> {
    let (nibbles, ascending) = lcp_ascending(key, next);
    if !ascending {
        return Err(TrieError::new(ErrorKind::RecordOrder, "keys are not strictly ascending", hex(next)));
    }
    Ok(nibbles)
}

/// Find, verify and append the values that records refer to; returns how many bytes were hashed.
fn collect_referenced<'a>(
    mut referenced: Vec<(&'a Hash, u32)>,
    values: impl Iterator<Item = (&'a Hash, &'a [u8])>,
    found: &mut Vec<&'a [u8]>,
) -> Result<u64> {
    referenced.sort_unstable();
    referenced.dedup();
    if let Some(pair) = referenced.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(mismatch("two records give one value different lengths", pair[0].0));
    }
    let mut seen = vec![false; referenced.len()];
    let mut hashed_bytes = 0;
    for (hash, value) in values {
        let Ok(at) = referenced.binary_search_by_key(&hash, |(hash, _)| hash) else { continue };
        if std::mem::replace(&mut seen[at], true) {
            continue;
        }
        if value.len() != referenced[at].1 as usize {
            return Err(mismatch("a referenced value does not have the length of its reference", hash));
        }
        if sha256(value) != *hash {
            return Err(mismatch("a referenced value does not have the hash of its reference", hash));
        }
        hashed_bytes += value.len() as u64;
        found.push(value);
    }
    match seen.iter().position(|seen| !seen) {
        Some(at) => Err(mismatch("a referenced value is missing", referenced[at].0)),
        None => Ok(hashed_bytes),
    }
}
