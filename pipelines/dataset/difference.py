"""Says where records differ from the trusted state, when their root came out wrong and the trusted trie's nodes are at hand.

Edges name subtrees by prefix and index with their hashes; the trusted trie is asked for the same subtrees, top down from the trusted
state root, each node checked by its hash. A key range whose subtrees are all there differs nowhere. What differs is cut into finer
ranges and compared again. Only few nodes are read, and nothing is written.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.kernel.edge import Edge, decode_edge
from pipelines.kernel.trie_kernel import Kernel
from schemas.dataset.flat_state import RECORD_SCHEMA
from schemas.errors import IntegrityError, MalformedNodeError, MissingTrieValueError
from schemas.ids import CryptoHash
from schemas.nearcore.trie_node import (
    BranchNode,
    ExtensionNode,
    LeafNode,
    common_prefix_length,
    decode_nibbles,
    decode_trie_node,
    key_to_nibbles,
)

FINER_RANGES = 64
"""Into how many key ranges a differing one is cut."""

RANGES_NAMED_MAX = 3
"""Differing ranges that are cut finer and named."""


@dataclass(frozen=True, slots=True)
class TrustedTrie:
    """The trie below a trusted state root, read node by node."""

    state_root: CryptoHash
    read_node: Callable[[bytes], bytes | None]
    """Node bytes by hash; None where they are not at hand."""

    def branch(self, prefix: bytes) -> BranchNode | None:
        """Return the branch that stands at a prefix (one nibble a byte); None when no branch stands there.

        Raises:
            MissingTrieValueError: a node on the way is not at hand.
        """
        node_hash, rest = bytes(self.state_root), prefix
        while True:
            node = self._node(node_hash)
            if isinstance(node, LeafNode):
                return None
            if isinstance(node, ExtensionNode):
                nibbles = decode_nibbles(node.key)
                if common_prefix_length(nibbles, rest) != len(nibbles):
                    return None
                node_hash, rest = node.child, rest[len(nibbles) :]
            elif not rest:
                return node
            elif rest[0] in node.children:
                node_hash, rest = node.children[rest[0]], rest[1:]
            else:
                return None

    def _node(self, node_hash: bytes) -> LeafNode | BranchNode | ExtensionNode:
        data = self.read_node(node_hash)
        if data is None or hashlib.sha256(data).digest() != node_hash:
            raise MissingTrieValueError(problem=f"node {CryptoHash(node_hash)} of the trusted trie is not at hand")
        return decode_trie_node(data).node


def name_difference(
    kernel: Kernel,
    edges: Sequence[bytes],
    read_range: Callable[[int], Sequence[pa.RecordBatch]],
    trusted: TrustedTrie,
) -> str | None:
    """Name the key ranges that differ from the trusted trie, as narrow as they can be told.

    Args:
        edges: hashed, of all key ranges of the shard in order; at least one.
        read_range: reads the records of one of them.
    Returns:
        One line for people; None when it can't be told.
    """
    try:
        decoded = [decode_edge(edge) for edge in edges]
        named = []
        # One range alone has no open node to compare: it is cut finer at once.
        for index in (_differing(decoded, trusted) or [0])[:RANGES_NAMED_MAX]:
            finer = _cut_finer(kernel, decoded[index], read_range(index))
            named += [finer[position] for position in _differing(finer, trusted)[:RANGES_NAMED_MAX]] or [decoded[index]]
    except (MissingTrieValueError, MalformedNodeError, IntegrityError):
        return None
    return "; ".join(f"keys {edge.first_key.hex()} to {edge.last_key.hex()}" for edge in named[:RANGES_NAMED_MAX])


def _differing(edges: Sequence[Edge], trusted: TrustedTrie) -> list[int]:
    """Return the positions of edges with a subtree that the trusted trie does not have, or without one that it has."""
    starts = [key_to_nibbles(edge.first_key) for edge in edges]
    differing: set[int] = set()
    prefixes: dict[bytes, list[int]] = {}
    for position, edge in enumerate(edges):
        for node in edge.open_nodes:
            prefixes.setdefault(node.prefix, []).append(position)
    continued = {(prefix[:length], prefix[length]) for prefix in prefixes for length in range(len(prefix))}
    for prefix, positions in prefixes.items():
        branch = trusted.branch(prefix)
        if branch is None:
            differing.update(positions)
            continue
        known: set[int] = set()
        for position in positions:
            node = next(node for node in edges[position].open_nodes if node.prefix == prefix)
            known |= node.children.keys()
            if any(branch.children.get(index) != child.hash for index, child in node.children.items()):
                differing.add(position)
            if node.value is not None and (branch.value is None or branch.value.hash != node.value.hash):
                differing.add(position)
        for index in branch.children.keys() - known:
            below = prefix + bytes([index])
            if (prefix, index) not in continued and _lies_between(below, edges[0].left_key, edges[-1].right_key):
                differing.add(max(0, bisect_right(starts, below) - 1))
    return sorted(differing)


def _lies_between(prefix: bytes, left_key: bytes | None, right_key: bytes | None) -> bool:
    """Return whether all keys below a prefix lie between two keys: what hangs beyond them is not the compared ranges' affair."""
    length = len(prefix)
    after_left = left_key is None or key_to_nibbles(left_key)[:length] < prefix
    return after_left and (right_key is None or prefix < key_to_nibbles(right_key)[:length])


def _cut_finer(kernel: Kernel, edge: Edge, batches: Sequence[pa.RecordBatch]) -> list[Edge]:
    table = pa.Table.from_batches(batches, RECORD_SCHEMA).combine_chunks()
    keys = table.column("key")
    step = max(1, -(-table.num_rows // FINER_RANGES))
    finer = []
    for start in range(0, table.num_rows, step):
        stop = min(start + step, table.num_rows)
        left_key = keys[start - 1].as_py() if start else edge.left_key
        right_key = keys[stop].as_py() if stop < table.num_rows else edge.right_key
        records = table.slice(start, stop - start).to_batches()
        finer.append(decode_edge(kernel.build(records, (), left_key, right_key, keep_interior=False).edge))
    return finer
