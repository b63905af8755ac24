//! Closing open nodes: what merging two edges and sealing all of them share.

use crate::edge::{Charge, Child, OpenNode};
use crate::nibbles;
use crate::node::{self, ValueRef};
use crate::{ErrorKind, Result, TrieError};
use statecast_digests::sha256;

/// Bytes of a node that was closed, and of the extension above it.
#[derive(Default)]
pub(crate) struct ClosedBytes {
    pub(crate) extension: Option<Vec<u8>>,
    pub(crate) branch: Vec<u8>,
}

/// The open nodes of adjacent ranges, united, sorted by prefix, each with its parent: the longest listed proper prefix.
pub(crate) struct OpenNodes {
    pub(crate) nodes: Vec<OpenNode>,
    pub(crate) parents: Vec<Option<usize>>,
    hashed: bool,
    pub(crate) charges: Vec<Charge>,
    pub(crate) top: Option<Child>,
}

pub(crate) fn malformed(problem: &str, prefix: &[u8]) -> TrieError {
    let digits: String = prefix.iter().take(64).map(|nibble| format!("{nibble:x}")).collect();
    TrieError::new(ErrorKind::MalformedNode, problem, format!("prefix {digits}"))
}

impl OpenNodes {
    /// Unite the lists of adjacent ranges, left to right.
    pub(crate) fn unite(lists: impl Iterator<Item = Vec<OpenNode>>, hashed: bool) -> Result<Self> {
        let mut sorted: Vec<OpenNode> = lists.flatten().collect();
        // The sort is stable: of equal prefixes the one from the left comes first.
        sorted.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        let mut nodes: Vec<OpenNode> = Vec::with_capacity(sorted.len());
        for node in sorted {
            match nodes.last_mut() {
                Some(last) if last.prefix == node.prefix => unite_two(last, node)?,
                _ => nodes.push(node),
            }
        }
        let parents = find_parents(&nodes);
        Ok(Self { nodes, parents, hashed, charges: Vec::new(), top: None })
    }

    /// Give each prefix the first key of the united ranges under it, None where the key left of them is under it too. A range need
    /// not list a prefix that the next one lists, so the key can be known from a longer prefix alone.
    pub(crate) fn settle_first_keys(&mut self, left_key: Option<&[u8]>) {
        for at in (0..self.nodes.len()).rev() {
            if left_key.is_some_and(|key| nibbles::starts_with(key, &self.nodes[at].prefix)) {
                self.nodes[at].first_key = None;
            } else if let (Some(parent), Some(key)) = (self.parents[at], self.nodes[at].first_key.clone()) {
                let known = &mut self.nodes[parent].first_key;
                if known.as_ref().is_none_or(|known| key < *known) {
                    *known = Some(key);
                }
            }
        }
    }

    /// Take a node that stays open out of the list.
    pub(crate) fn take(&mut self, at: usize) -> OpenNode {
        let empty = OpenNode { prefix: Vec::new(), first_key: None, value: None, bitmap: 0, children: Vec::new() };
        std::mem::replace(&mut self.nodes[at], empty)
    }

    /// Close the node at a position whose listed extensions are all closed already or stay open.
    pub(crate) fn close(&mut self, at: usize) -> Result<ClosedBytes> {
        let parent = self.parents[at];
        let node = &self.nodes[at];
        if node.children.len() + usize::from(node.value.is_some()) < 2 {
            return Err(malformed("an edge has a branch with fewer than two of value and child", &node.prefix));
        }
        let Some(first_key) = node.first_key.clone() else {
            return Err(malformed("an edge has a closed branch whose first key is not known", &node.prefix));
        };
        let depth = node.prefix.len();
        let from = parent.map_or(0, |parent| self.nodes[parent].prefix.len() + 1);
        let mut own = ValueRef::branch_memory_usage(node.value.as_ref());
        let total = node.children.iter().try_fold(own, |sum, child| sum.checked_add(child.memory_usage));
        let mut memory_usage = total.ok_or_else(|| malformed("memory usage overflows", &node.prefix))?;
        let mut closed = ClosedBytes::default();
        let mut hash = [0; 32];
        if self.hashed {
            let hashes: Vec<u8> = node.children.iter().flat_map(|child| child.hash).collect();
            node::push_branch(&mut closed.branch, node.value.as_ref(), node.bitmap, &hashes, memory_usage);
            hash = sha256(&closed.branch);
        }
        if depth > from {
            let extension_own = node::extension_memory_usage(depth - from);
            own += extension_own;
            memory_usage = memory_usage.checked_add(extension_own).ok_or_else(|| malformed("memory usage overflows", &node.prefix))?;
            if self.hashed {
                let mut bytes = Vec::new();
                node::push_extension(&mut bytes, &first_key, from, depth, &hash, memory_usage);
                hash = sha256(&bytes);
                closed.extension = Some(bytes);
            }
        }
        let bytes = closed.extension.as_ref().unwrap_or(&closed.branch).clone();
        let index = parent.map(|parent| node.prefix[self.nodes[parent].prefix.len()]);
        self.attach(parent, index, Child { hash, memory_usage, bytes })?;
        if !self.hashed {
            self.charges.push(Charge { key: first_key, memory_usage: own });
        }
        Ok(closed)
    }

    fn attach(&mut self, parent: Option<usize>, index: Option<u8>, child: Child) -> Result<()> {
        let (Some(parent), Some(index)) = (parent, index) else {
            return match self.top.replace(child) {
                None => Ok(()),
                Some(_) => Err(malformed("edges have two roots", &[])),
            };
        };
        let parent = &mut self.nodes[parent];
        if parent.bitmap & (1 << index) != 0 {
            return Err(malformed("edges have one child twice", &parent.prefix));
        }
        let before = (u32::from(parent.bitmap) & ((1 << index) - 1)).count_ones() as usize;
        parent.bitmap |= 1 << index;
        parent.children.insert(before, child);
        Ok(())
    }
}

/// Put what the right one of two ranges knows of an open node to what the left one knows.
fn unite_two(left: &mut OpenNode, right: OpenNode) -> Result<()> {
    if left.value.is_some() && right.value.is_some() {
        return Err(malformed("edges have one value twice", &left.prefix));
    }
    left.value = left.value.or(right.value);
    if left.bitmap & right.bitmap != 0 {
        return Err(malformed("edges have one child twice", &left.prefix));
    }
    let mut children: [Option<Child>; 16] = Default::default();
    for (bitmap, list) in [(left.bitmap, std::mem::take(&mut left.children)), (right.bitmap, right.children)] {
        for (index, child) in (0..16).filter(|index| bitmap & (1 << index) != 0).zip(list) {
            children[index] = Some(child);
        }
    }
    left.children = children.into_iter().flatten().collect();
    left.bitmap |= right.bitmap;
    left.first_key = [left.first_key.take(), right.first_key].into_iter().flatten().min();
    Ok(())
}

/// For each of the sorted prefixes the position of the longest other one that it extends.
fn find_parents(nodes: &[OpenNode]) -> Vec<Option<usize>> {
    let mut path: Vec<usize> = Vec::new();
    let mut parents = Vec::with_capacity(nodes.len());
    for (at, node) in nodes.iter().enumerate() {
        while path.last().is_some_and(|&last| !node.prefix.starts_with(&nodes[last].prefix)) {
            path.pop();
        }
        parents.push(path.last().copied());
        path.push(at);
    }
    parents
}

/// Check that an edge's first keys really lie under their prefixes, as encoding an extension takes nibbles out of them.
pub(crate) fn check_first_keys(open: &[OpenNode]) -> Result<()> {
    for node in open {
        if !node.first_key.as_ref().is_none_or(|key| nibbles::starts_with(key, &node.prefix)) {
            return Err(malformed("an edge's first key is not under its prefix", &node.prefix));
        }
    }
    Ok(())
}
