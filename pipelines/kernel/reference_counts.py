"""How often each node and value of a trie is referred to, counted as a tree: what nearcore's State column keeps beside each row.

A node written by nearcore as it applies blocks has one reference a parent, the root one for being the root, a value one a key; equal
subtrees count each time they occur, with everything under them. (A node that took its state from parts counts a node at the part
boundaries once for every part that visits it. Its counts depend on the number of parts, so they are not reproduced.)

The counting is cut by key ranges: a node belongs to the range that holds the first key under it. So the counts of adjacent ranges
add up to the trie's. Nothing here knows where nodes are kept: a function reads them by hash.

Source: nearcore core/store/src/trie/state_parts.rs, Trie::apply_state_part_impl; core/store/src/db/refcount.rs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

from pipelines.kernel.trie_kernel import WALK_STEPS_MAX
from schemas.errors import MalformedNodeError, PartLimitError
from schemas.ids import HASH_BYTES, CryptoHash
from schemas.nearcore.trie_node import BranchNode, ExtensionNode, LeafNode, decode_nibbles, decode_trie_node, key_to_nibbles

ReadNodes = Callable[[Sequence[bytes]], Sequence[bytes]]
"""Returns the bytes of nodes by their hashes, in their order; raises an IntegrityError when one is not there."""

NODES_READ_TOGETHER: Final = 8192
"""Most nodes that are asked for at once: a database finds adjacent hashes with less work."""

_LEAF: Final = 0
_BRANCH: Final = 1
_BRANCH_WITH_VALUE: Final = 2
_EXTENSION: Final = 3
_VALUE_REF_BYTES: Final = 4 + HASH_BYTES


def count_references(read: ReadNodes, state_root: CryptoHash, first_key: bytes, last_key: bytes) -> dict[bytes, int]:
    """Count the references to the nodes and values of a key range.

    Args:
        first_key: first key of the range; it is in the trie.
        last_key: last key of the range; it is in the trie.
    Returns:
        By hash, the references from the range's keys to their values and to the nodes whose first key is in the range.
    Raises:
        MalformedNodeError: a node can't be decoded.
        PartLimitError: more than ``WALK_STEPS_MAX`` nodes.
        IntegrityError: as ``read`` raises.
    """
    first, last = key_to_nibbles(first_key), key_to_nibbles(last_key)
    own_depth = _own_depth(read, state_root, first)
    counts: dict[bytes, int] = {}
    inner: list[bytes] = []
    to_visit = [(b"", bytes(state_root))]
    while to_visit:
        position, node_hash = to_visit.pop()
        if position > last:
            break
        if position < first[: len(position)]:
            continue
        before_first = first.startswith(position)
        if not before_first and not last.startswith(position):
            inner.append(node_hash)
            continue
        if not before_first or len(position) >= own_depth:
            counts[node_hash] = counts.get(node_hash, 0) + 1
        match decode_trie_node(read([node_hash])[0]).node:
            case LeafNode(_, value):
                counts[value.hash] = counts.get(value.hash, 0) + 1
            case ExtensionNode(encoded, child):
                to_visit.append((position + decode_nibbles(encoded), child))
            case BranchNode(children, branch_value):
                if branch_value is None and not children:
                    raise _bare_branch(node_hash)
                if branch_value is not None and first <= position <= last:
                    counts[branch_value.hash] = counts.get(branch_value.hash, 0) + 1
                to_visit += [(position + bytes([index]), children[index]) for index in sorted(children, reverse=True)]
    _count_subtrees(read, inner, counts)
    return counts


def bucket_of(value_hash: bytes, bucket_count: int) -> int:
    """Return which of some buckets, which ascend with the hashes and are about alike, a hash belongs to."""
    return int.from_bytes(value_hash[:2], "big") * bucket_count >> 16


def _own_depth(read: ReadNodes, state_root: CryptoHash, first: bytes) -> int:
    """Return from which depth on the nodes on the way to the first key have no earlier key under them."""
    position, node_hash, own_depth = b"", bytes(state_root), 0
    while True:
        match decode_trie_node(read([node_hash])[0]).node:
            case LeafNode():
                return own_depth
            case ExtensionNode(encoded, child):
                position, node_hash = position + decode_nibbles(encoded), child
            case BranchNode(children, value):
                if position == first:
                    return own_depth
                index = first[len(position)]
                if index not in children:
                    raise MalformedNodeError(problem="the first key of the range is not in the trie", where=first.hex()[1:80:2])
                if value is not None or index != min(children):
                    own_depth = len(position) + 1
                position, node_hash = position + bytes([index]), children[index]


def _count_subtrees(read: ReadNodes, to_visit: list[bytes], counts: dict[bytes, int]) -> None:
    """Count whole subtrees, where no key need be looked at: nearly all of a range, so this is the loop that must be quick."""
    steps = 0
    while to_visit:
        hashes = sorted(to_visit[-NODES_READ_TOGETHER:])
        del to_visit[-NODES_READ_TOGETHER:]
        for node_hash, node in zip(hashes, read(hashes), strict=True):
            counts[node_hash] = counts.get(node_hash, 0) + 1
            value_hash, children = node_references(node)
            if value_hash is None and not children:
                raise _bare_branch(node_hash)
            if value_hash is not None:
                counts[value_hash] = counts.get(value_hash, 0) + 1
            to_visit += children
        steps += len(hashes)
        if steps > WALK_STEPS_MAX:
            raise PartLimitError(problem=f"a key range has more than {WALK_STEPS_MAX} nodes")


def _bare_branch(node_hash: bytes) -> MalformedNodeError:
    # No trie has such a node, and it would belong to no range of keys.
    return MalformedNodeError(problem="a branch has neither value nor child", where=node_hash.hex())


def node_references(node: bytes) -> tuple[bytes | None, list[bytes]]:
    """Return the hashes that a node refers to, of its value and of its children, without decoding the rest.

    Raises:
        MalformedNodeError: the bytes are no node.
    Source: as `schemas.nearcore.trie_node.decode_trie_node`.
    """
    try:
        tag = node[0]
        if tag in (_LEAF, _EXTENSION):
            key_end = 5 + struct.unpack_from("<I", node, 1)[0]
            hash_start = key_end + 4 if tag == _LEAF else key_end
            found = node[hash_start : hash_start + HASH_BYTES]
            if len(node) != hash_start + HASH_BYTES + 8:
                raise ValueError
            return (found, []) if tag == _LEAF else (None, [found])
        if tag not in (_BRANCH, _BRANCH_WITH_VALUE):
            raise ValueError
        start = 1 if tag == _BRANCH else 1 + _VALUE_REF_BYTES
        count = struct.unpack_from("<H", node, start)[0].bit_count()
        if len(node) != start + 2 + count * HASH_BYTES + 8:
            raise ValueError
        children = [node[begin : begin + HASH_BYTES] for begin in range(start + 2, start + 2 + count * HASH_BYTES, HASH_BYTES)]
        return (node[5:37] if tag == _BRANCH_WITH_VALUE else None), children
    except (ValueError, IndexError, struct.error):
        raise MalformedNodeError(problem=f"{len(node)} bytes that should be a trie node are none", where=bytes(node[:8]).hex()) from None
