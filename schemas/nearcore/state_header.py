"""State headers: what neard dumps beside a shard's parts, and how it ties their state root to a block hash.

Borsh ShardStateSyncResponseHeader::

    u8 version                          0 is V1
    chunk                               in V2 with a tag of its own: chunk hash, chunk header, transactions, outgoing receipts
    path                                of the chunk in the block before the sync block
    option<chunk header>, option<path>  of the shard's previous chunk
    vec<(block hash, vec<(vec<receipt>, u64 from_shard, u64 to_shard, path)>)>    incoming receipts
    vec<vec<(hash, path)>>              roots of these receipts
    vec<u8> node, u64 memory_usage      of the state root

Every byte has its place, and none is left over. The chunk header says how long the chunk's transactions and receipts are
(encoded_length, which its hash covers), so these need not be understood to find the path behind them; incoming receipts, whose
length nothing says, are skipped one by one. Nothing is taken at its word: the chunk header is hashed, the path must lead to its
block, the root node is hashed. What is left unproved is what no reader uses: receipts, and the previous chunk.

Source: nearcore core/primitives/src/state_sync.rs; chain/chain/src/state_sync/adapter.rs, ChainStateSyncAdapter::set_state_header;
core/primitives/src/sharding.rs, EncodedShardChunk::new (encoded_length).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.errors import IntegrityError
from schemas.ids import ZERO_HASH, CryptoHash
from schemas.nearcore.block import BlockHeader, ChunkHeader, chunk_leaf, decode_block_header, read_chunk_header, read_chunk_header_v1
from schemas.nearcore.borsh import BorshReader
from schemas.nearcore.merkle import MerklePathItem, path_root, read_merkle_path
from schemas.nearcore.receipt import RECEIPT_BYTES_MIN, skip_receipt

STATE_HEADER_BYTES_MAX: Final = 256 << 20
"""Largest header that is read; real ones have some megabytes."""

STORED_HEADER_FORM: Final = b"\x01"
"""First byte of a header of V2 where it is stored; peers send it without."""

ROOT_NODE_BYTES_MAX: Final = 8192
"""Longest root node: a leaf holds one key."""

_MEMORY_USAGE_BYTES: Final = 8
# A hash and an empty path, and a proof of no receipts.
_ROOT_PROOF_BYTES_MIN: Final = 32 + 4
_RECEIPT_PROOF_BYTES_MIN: Final = 4 + 8 + 8 + 4


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
    chunk_path: tuple[MerklePathItem, ...]
    """From the chunk to the chunk_headers_root of the block before the sync block; whether it leads there is not checked yet."""
    memory_usage: int
    """Of the whole trie: from the state root's node, which hashes to the chunk's prev_state_root."""
    root_node: bytes
    """That node's bytes; empty for an empty trie."""

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
    # transactions and outgoing receipts
    reader.fixed_view(chunk.encoded_length)
    chunk_path = read_merkle_path(reader)
    if reader.flag():
        read_chunk_header(reader, data) if version == 2 else read_chunk_header_v1(reader, data)
    if reader.flag():
        read_merkle_path(reader)
    for _ in range(reader.count(32 + 4)):
        # block hash
        reader.fixed_view(32)
        for _ in range(reader.count(_RECEIPT_PROOF_BYTES_MIN)):
            for _ in range(reader.count(RECEIPT_BYTES_MIN)):
                skip_receipt(reader)
            # from shard, to shard
            reader.fixed_view(8 + 8)
            read_merkle_path(reader)
    for _ in range(reader.count(4)):
        for _ in range(reader.count(_ROOT_PROOF_BYTES_MIN)):
            reader.fixed_view(32)
            read_merkle_path(reader)
    memory_usage, root_node = _read_root_node(reader, chunk.prev_state_root)
    reader.end()
    return StateHeader(chunk=chunk, chunk_path=chunk_path, memory_usage=memory_usage, root_node=root_node)


def prove_state_root(data: bytes, sync_hash: CryptoHash, block_headers: Sequence[bytes], where: str) -> StateHeader:
    """Check a state header against the hash of the sync block.

    The sync block's header must hash to ``sync_hash``, the second header to its prev_hash, and the path in the state header must lead
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
        IntegrityError: malformed, or its path does not lead from its chunk to the block's chunk_headers_root.
    """
    header = decode_state_header(data, where)
    if path_root(chunk_leaf(header.chunk), header.chunk_path) != parent.chunk_headers_root:
        raise IntegrityError(
            problem=f"no proof in the state header leads from chunk {header.chunk.chunk_hash} to block {parent.hash}",
            where=where,
            remedy="The header is of another block, or was changed.",
        )
    return header


def _read_root_node(reader: BorshReader, state_root: CryptoHash) -> tuple[int, bytes]:
    """Take the state root's node and its memory usage, which also ends the node; return the memory usage and the node."""
    node = reader.byte_vec_view(ROOT_NODE_BYTES_MAX)
    memory_usage = reader.u64()
    if state_root == ZERO_HASH and memory_usage == 0 and not node:
        return 0, b""
    ends_so = node[-_MEMORY_USAGE_BYTES:] == memory_usage.to_bytes(_MEMORY_USAGE_BYTES, "little")
    if not ends_so or hashlib.sha256(node).digest() != state_root:
        reader.fail(f"the state header does not end in the node of state root {state_root}")
    return memory_usage, bytes(node)
