"""State headers: what neard dumps beside a shard's parts, and how it ties their state root to a block hash.

Borsh ShardStateSyncResponseHeader: ``u8`` version (0 is V1); the chunk (in V2 with a tag of its own): chunk hash, chunk header,
transactions, receipts; the Merkle path of the chunk in the block before the sync block; the previous chunk's header and path; proofs
of incoming receipts; and last the state root's node with its memory usage.

Only what a reader has to believe is taken out, and nothing is taken at its word: the chunk header is hashed, the path is found by
the root that it must lead to, the root node by the hash that it must have. So the transactions and receipts between them, whose
formats grow with the protocol, need not be understood. What is found by its hash is right wherever in the file it lies.

Source: nearcore core/primitives/src/state_sync.rs; chain/chain/src/state_sync/adapter.rs, ChainStateSyncAdapter::set_state_header.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.errors import IntegrityError
from schemas.ids import ZERO_HASH, CryptoHash
from schemas.nearcore.block import BlockHeader, ChunkHeader, chunk_leaf, decode_block_header, read_chunk_header, read_chunk_header_v1
from schemas.nearcore.borsh import BorshReader
from schemas.nearcore.merkle import PATH_ITEMS_MAX, MerklePathItem, path_root, read_merkle_path

STATE_HEADER_BYTES_MAX: Final = 256 << 20
"""Largest header that is read; real ones have some megabytes."""

ROOT_NODE_BYTES_MAX: Final = 8192
"""Longest node that is looked for: a leaf holds one key."""

_MEMORY_USAGE_BYTES: Final = 8
# The length of a path that is not empty, as a vec has it.
_PATH_LENGTH = re.compile(rb"(?=[\x01-\x%02x]\0\0\0)" % PATH_ITEMS_MAX)


class HeaderOrigin(StrEnum):
    """Where a published state header is from."""

    COPIED = "copied"
    """The source had it."""
    COMPUTED = "computed"
    """Computed from the source's blocks, chunks and receipts."""
    KEPT = "kept"
    """Another producer had published it."""


@dataclass(frozen=True, slots=True)
class StateHeader:
    """A state header's claims about its shard; `prove_state_root` verifies them."""

    chunk: ChunkHeader
    memory_usage: int
    """Of the whole trie: from the state root's node, which hashes to the chunk's prev_state_root."""

    @property
    def state_root(self) -> CryptoHash:
        """The state root that the parts are of."""
        return self.chunk.prev_state_root


def decode_state_header(data: bytes, where: str) -> StateHeader:
    """Decode a state header.

    Raises:
        IntegrityError: malformed, of an unknown version, or its chunk header or root node do not have their hashes.
    """
    if len(data) > STATE_HEADER_BYTES_MAX:
        raise IntegrityError(problem=f"a state header has at most {STATE_HEADER_BYTES_MAX} bytes, this has {len(data)}", where=where)
    reader = BorshReader(data, where, IntegrityError)
    version = reader.u8() + 1
    if version > 2:
        reader.fail(f"V{version} is no known version of a state header")
    chunk_version = reader.u8() + 1 if version == 2 else 1
    if chunk_version > 2:
        reader.fail(f"V{chunk_version} is no known version of a chunk")
    chunk_hash = reader.fixed(32)
    chunk = read_chunk_header(reader, data) if chunk_version == 2 else read_chunk_header_v1(reader, data)
    if chunk.chunk_hash != chunk_hash:
        reader.fail(f"the chunk header hashes to {chunk.chunk_hash}, not to {CryptoHash(chunk_hash)}")
    return StateHeader(chunk=chunk, memory_usage=_memory_usage(data, chunk.prev_state_root, where))


def prove_state_root(data: bytes, sync_hash: CryptoHash, block_headers: Sequence[bytes], where: str) -> StateHeader:
    """Check a state header against the hash of the sync block.

    The sync block's header must hash to ``sync_hash``, the second header to its prev_hash, and a path in the state header must lead
    from its chunk to the second one's chunk_headers_root.

    Args:
        data: the state header.
        block_headers: borsh headers of the sync block and its parent.
    Raises:
        IntegrityError: anything does not hash as it should.
    """
    if len(block_headers) != 2:
        raise IntegrityError(problem="the headers of the sync block and of its parent are needed", where=where)
    sync_block = decode_block_header(block_headers[0], f"{where}, sync block {sync_hash}", sync_hash)
    parent = decode_block_header(block_headers[1], f"{where}, parent of the sync block", sync_block.prev_hash)
    return prove_chunk(data, parent, where)


def prove_chunk(data: bytes, parent: BlockHeader, where: str) -> StateHeader:
    """Check a state header against the block before the sync block, whose hash the caller trusts.

    Args:
        data: the state header.
    Raises:
        IntegrityError: malformed, or no path in it leads from its chunk to the block's chunk_headers_root.
    """
    header = decode_state_header(data, where)
    if find_chunk_path(data, chunk_leaf(header.chunk), parent.chunk_headers_root) is None:
        raise IntegrityError(
            problem=f"no proof in the state header leads from chunk {header.chunk.chunk_hash} to block {parent.hash}",
            where=where,
            remedy="The header is of another block, or was changed.",
        )
    return header


def _memory_usage(data: bytes, state_root: CryptoHash, where: str) -> int:
    """Find the root node at the end of the header: ``u32`` length, node, u64 memory usage, which also ends the node."""
    node_end = len(data) - _MEMORY_USAGE_BYTES
    memory_usage = int.from_bytes(data[node_end:], "little")
    if state_root == ZERO_HASH and memory_usage == 0:
        return 0
    for length in range(_MEMORY_USAGE_BYTES, min(ROOT_NODE_BYTES_MAX, node_end) + 1):
        node_begin = node_end - length
        if int.from_bytes(data[max(node_begin - 4, 0) : node_begin], "little") == length:
            node = data[node_begin:node_end]
            if hashlib.sha256(node).digest() == state_root and node.endswith(data[node_end:]):
                return memory_usage
    raise IntegrityError(problem=f"the state header does not end in the node of state root {state_root}", where=where)


def find_chunk_path(data: bytes, leaf: bytes, root: CryptoHash) -> tuple[MerklePathItem, ...] | None:
    """Return a Merkle path in a state header that leads from a leaf to a root; None when there is none."""
    # In a chain of one shard the leaf is the root, and the path is empty.
    if path_root(leaf, ()) == root:
        return ()
    for found in _PATH_LENGTH.finditer(data):
        start = found.start()
        length = data[start]
        # The directions are 0 or 1; this leaves few places to hash at.
        if all(flag <= 1 for flag in data[start + 36 : start + 4 + 33 * length : 33]) and len(data) >= start + 4 + 33 * length:
            path = read_merkle_path(BorshReader(data[start : start + 4 + 33 * length], error_class=IntegrityError))
            if path_root(leaf, path) == root:
                return path
    return None
