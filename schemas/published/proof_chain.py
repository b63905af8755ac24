"""What ties a state root to a block hash: a chunk header that names the root, and its Merkle path in a block's header.

A chunk header has ``prev_state_root``, the state after the block ``prev_block_hash``; it hashes to the chunk's hash, and a path leads
from (chunk hash, height included) to the ``chunk_headers_root`` of the block that includes the chunk. That block's hash, or the hash of
its child, is what a reader may know from elsewhere. Chunk headers are kept as nearcore writes a ShardChunkHeader; one of the first
version, which stands without a tag in places where nothing else can stand, gets its tag.

Source: nearcore core/primitives/src/{sharding,block,merkle}.rs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from schemas.errors import IntegrityError
from schemas.ids import CryptoHash
from schemas.json_document import FieldReader, decode_base64, encode_base64
from schemas.nearcore.block import (
    BLOCK_HEADER_BYTES_MAX,
    CHUNK_HEADERS_MAX,
    BlockHeader,
    ChunkHeader,
    chunk_leaf,
    decode_block_header,
    read_chunk_header,
    read_chunk_header_v1,
)
from schemas.nearcore.borsh import BorshReader
from schemas.nearcore.merkle import PATH_ITEMS_MAX, MerklePathItem, combine_hash, path_root
from schemas.nearcore.state_header import prove_chunk

CHUNK_HEADER_BYTES_MAX: Final = 1 << 20
"""Longest chunk header that is taken."""

_FIRST_VERSION_TAG: Final = b"\0"
_DIRECTIONS: Final = {"Left": True, "Right": False}


@dataclass(frozen=True, slots=True)
class ChainEvidence:
    """The headers between a state root and a block hash, as they were found; `prove` judges them."""

    chunk_header: bytes
    chunk_path: tuple[MerklePathItem, ...]
    block_header: bytes
    """Of the block that includes the chunk."""
    child_header: bytes | None
    """Of a block whose parent that one is: in an epoch that is published, of the sync block."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; directions as nearcore's RPC has them."""
        return {
            "chunk_header": encode_base64(self.chunk_header),
            "chunk_path": [{"direction": "Left" if item.is_left else "Right", "hash": str(item.hash)} for item in self.chunk_path],
            "block_header": encode_base64(self.block_header),
            "child_header": None if self.child_header is None else encode_base64(self.child_header),
        }

    @classmethod
    def from_json(cls, reader: FieldReader) -> ChainEvidence:
        """Take the evidence out of JSON values.

        Raises:
            ManifestError: a field is missing or of another form.
        """
        return cls(
            chunk_header=decode_base64(reader.value("chunk_header"), CHUNK_HEADER_BYTES_MAX, f"{reader.where}: chunk_header"),
            chunk_path=tuple(
                MerklePathItem(item.hash("hash"), is_left=_DIRECTIONS[item.text("direction", 5, "Left|Right")])
                for item in reader.inners("chunk_path", PATH_ITEMS_MAX)
            ),
            block_header=decode_base64(reader.value("block_header"), BLOCK_HEADER_BYTES_MAX, f"{reader.where}: block_header"),
            child_header=None
            if reader.is_null("child_header")
            else decode_base64(reader.value("child_header"), BLOCK_HEADER_BYTES_MAX, f"{reader.where}: child_header"),
        )

    def prove(self, trusted_block: CryptoHash | None, where: str) -> ProvenChunk:
        """Check that the headers hang together by hash.

        Args:
            trusted_block: what the block that includes the chunk, or its child, must hash to; None to check only that the headers fit.
        Raises:
            IntegrityError: they do not, or no header hashes to the trusted block.
        """
        block, child = self._blocks(trusted_block, where)
        reader = BorshReader(self.chunk_header, f"{where}, chunk header", IntegrityError)
        chunk = read_chunk_header(reader, self.chunk_header)
        reader.end()
        if path_root(chunk_leaf(chunk), self.chunk_path) != block.chunk_headers_root:
            raise IntegrityError(
                problem=f"no path leads from chunk {chunk.chunk_hash} to the chunk_headers_root of block {block.hash}", where=where
            )
        return ProvenChunk(chunk, block, child)

    def _blocks(self, trusted_block: CryptoHash | None, where: str) -> tuple[BlockHeader, BlockHeader | None]:
        block_where, child_where = f"{where}, block header", f"{where}, header of its child"
        child = None if self.child_header is None else decode_block_header(self.child_header, child_where)
        block = decode_block_header(self.block_header, block_where, None if child is None else child.prev_hash)
        if trusted_block is None or block.hash == trusted_block:
            return block, child
        try:
            if self.child_header is not None:
                return block, decode_block_header(self.child_header, child_where, trusted_block)
            return decode_block_header(self.block_header, block_where, trusted_block), None
        except IntegrityError:
            names = f"block {block.hash}" if child is None else f"block {block.hash} and its child {child.hash}"
            raise IntegrityError(
                problem=f"the headers are of {names}, neither of them the trusted {trusted_block}"
                if child
                else f"the header is of {names}, not of the trusted {trusted_block}",
                where=where,
                remedy="The state root is named in a block after the one that it is the state of; trust the hash of one of these.",
            ) from None


@dataclass(frozen=True, slots=True)
class ProvenChunk:
    """Headers that hang together."""

    chunk: ChunkHeader
    block: BlockHeader
    """Includes the chunk."""
    child: BlockHeader | None


def evidence_from_state_header(state_header: bytes, parent: BlockHeader, sync_block: bytes, where: str) -> ChainEvidence:
    """Take the chunk header and its path out of a state header.

    Args:
        parent: the header of the sync block's parent, which includes the chunk.
        sync_block: the sync block's header.
    Raises:
        IntegrityError: malformed, or its path does not lead to the block.
    """
    header = prove_chunk(state_header, parent, where)
    reader = BorshReader(state_header, where, IntegrityError)
    version = reader.u8() + 1
    chunk_version = reader.u8() + 1 if version > 1 else 1
    # chunk_hash
    reader.fixed(32)
    _, encoded = _read_with_bytes(reader, state_header, has_tag=chunk_version > 1)
    return ChainEvidence(encoded, header.chunk_path, parent.encoded, sync_block)


def evidence_from_block(row: bytes, header: BlockHeader, shard_id: int, child_header: bytes | None, where: str) -> ChainEvidence | None:
    """Make the evidence of a shard's chunk out of a Block row; None when the block has no chunk of the shard.

    Args:
        row: borsh Block, as `schemas.nearcore.block.decode_block_chunks` takes it and has checked it.
    Raises:
        IntegrityError: malformed.
    """
    reader = BorshReader(row, where, IntegrityError)
    version = reader.u8() + 1
    reader.fixed(len(header.encoded))
    if version >= 4:
        reader.u8()
    chunks = reader.vec(lambda: _read_with_bytes(reader, row, has_tag=version > 1), 200, CHUNK_HEADERS_MAX)
    leaves = [chunk_leaf(chunk) for chunk, _ in chunks]
    for index, (chunk, encoded) in enumerate(chunks):
        if chunk.shard_id == shard_id:
            return ChainEvidence(encoded, merkle_path(leaves, index), header.encoded, child_header)
    return None


def merkle_path(items: Sequence[bytes], index: int) -> tuple[MerklePathItem, ...]:
    """Return the path from an item, given as borsh bytes, to the root over all of them.

    Source: nearcore core/primitives/src/merkle.rs, merklize.
    """
    level = [path_root(item, ()) for item in items]
    path: list[MerklePathItem] = []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(MerklePathItem(level[sibling], is_left=sibling < index))
        pairs = [combine_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
        index //= 2
    return tuple(path)


def _read_with_bytes(reader: BorshReader, data: bytes, *, has_tag: bool) -> tuple[ChunkHeader, bytes]:
    begin = len(data) - reader.remaining
    chunk = read_chunk_header(reader, data) if has_tag else read_chunk_header_v1(reader, data)
    encoded = data[begin : len(data) - reader.remaining]
    return chunk, encoded if has_tag else _FIRST_VERSION_TAG + encoded
