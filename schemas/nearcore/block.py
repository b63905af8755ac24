"""Blocks and their chunk headers, as the Block and BlockHeader columns have them.

A header is ``u8`` version (0 is V1), prev_hash, inner_lite, inner_rest, signature. Its hash is
``sha256(sha256(sha256(inner_lite) ++ sha256(inner_rest)) ++ prev_hash)``. inner_rest differs in each version, but it is only hashed
and its chunk_headers_root read: it ends where the signature begins, found by the signature's length. So versions
that do not exist yet can be read as well, as long as they keep the first fields.

A chunk header of V2 or V3 hashes to ``sha256(sha256(inner) ++ encoded_merkle_root)``, one of V1 to ``sha256(inner)``.

Source: nearcore core/primitives/src/{block,block_body,block_header,sharding}.rs and sharding/shard_chunk_header_inner.rs. Nothing
here reads a database, or checks a signature.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas.errors import IntegrityError
from schemas.ids import CryptoHash
from schemas.nearcore.borsh import BorshReader
from schemas.nearcore.merkle import combine_hash, merkle_root

BLOCK_HEADER_BYTES_MAX: Final = 16 << 20
"""Largest header that is taken."""

CHUNK_HEADERS_MAX: Final = 4096
"""Most chunk headers of a block: one a shard."""

_INNER_LITE_BYTES: Final = 8 + 4 * 32 + 8 + 2 * 32
_SIGNATURE_BYTES: Final = {0: 64, 1: 65}
_PUBLIC_KEY_BYTES: Final = {0: 32, 1: 64}
# Headers of V4 and later have block_body_hash before the other roots.
_FIRST_VERSION_WITH_BODY_HASH: Final = 4
_FIRST_VERSION_WITH_PREV_HEIGHT: Final = 3
# By version, how many: those after V5 have no challenges any more.
_CHALLENGES_ROOT: Final = {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 0, 7: 0, 8: 0}


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """What is used of a block header."""

    version: int
    """1 for BlockHeaderV1."""
    hash: CryptoHash
    prev_hash: CryptoHash
    height: int
    epoch_id: CryptoHash
    next_epoch_id: CryptoHash
    prev_state_root: CryptoHash
    timestamp_ns: int
    chunk_headers_root: CryptoHash
    encoded: bytes
    """The borsh bytes that it was decoded from."""


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """What is used of a chunk header."""

    chunk_hash: CryptoHash
    prev_block_hash: CryptoHash
    """The block whose post-state ``prev_state_root`` is."""
    prev_state_root: CryptoHash
    height_created: int
    height_included: int
    shard_id: int
    encoded_length: int
    """Bytes of the chunk's transactions and outgoing receipts, as borsh: what is cut into the parts under encoded_merkle_root."""


def decode_block_header(data: bytes, where: str, expected_hash: CryptoHash | None = None) -> BlockHeader:
    """Decode a block header and compute its hash.

    Args:
        data: exactly one header.
        where: the row or file, for errors.
        expected_hash: what it must hash to, where that is known.
    Raises:
        IntegrityError: malformed, or another hash.
    """
    if len(data) > BLOCK_HEADER_BYTES_MAX:
        raise IntegrityError(problem=f"a block header has at most {BLOCK_HEADER_BYTES_MAX} bytes, this has {len(data)}", where=where)
    reader = BorshReader(data, where, IntegrityError)
    version = reader.u8() + 1
    prev_hash = CryptoHash(reader.fixed(32))
    inner_lite = reader.fixed(_INNER_LITE_BYTES)
    rest_and_signature = reader.fixed(reader.remaining)
    # The key type stands before the signature; where both lengths are possible the expected hash decides.
    candidates = [
        combine_hash(
            combine_hash(hashlib.sha256(inner_lite).digest(), hashlib.sha256(rest_and_signature[: -length - 1]).digest()), prev_hash
        )
        for key_type, length in _SIGNATURE_BYTES.items()
        if len(rest_and_signature) > length and rest_and_signature[-length - 1] == key_type
    ]
    if not candidates or (expected_hash is not None and expected_hash not in candidates):
        raise IntegrityError(
            problem="a block header does not hash to its block hash" if candidates else "a block header ends in no signature",
            where=where,
            remedy=f"Expected {expected_hash}." if candidates else "",
        )
    rest = BorshReader(rest_and_signature, where, IntegrityError)
    if version >= _FIRST_VERSION_WITH_BODY_HASH:
        rest.fixed(32)
    # prev_chunk_outgoing_receipts_root
    rest.fixed(32)
    chunk_headers_root = CryptoHash(rest.fixed(32))
    lite = BorshReader(inner_lite, where, IntegrityError)
    height, epoch_id, next_epoch_id, prev_state_root = lite.u64(), *(CryptoHash(lite.fixed(32)) for _ in range(3))
    # prev_outcome_root
    lite.fixed(32)
    return BlockHeader(
        version=version,
        hash=candidates[0] if expected_hash is None else expected_hash,
        prev_hash=prev_hash,
        height=height,
        epoch_id=epoch_id,
        next_epoch_id=next_epoch_id,
        prev_state_root=prev_state_root,
        timestamp_ns=lite.u64(),
        chunk_headers_root=chunk_headers_root,
        encoded=data,
    )


def header_total_supply(header: BlockHeader) -> int | None:
    """Return what a block header says of the supply: all yoctoNEAR after the chunks before it were applied, the new epoch's rewards included.

    It is the supply of the state that the block's chunk headers name, since what applying that burnt is taken off in this block.

    Source: nearcore core/primitives/src/block_header.rs, BlockHeader::new; chain/chain/src/block_processing_utils.rs.
    Returns:
        YoctoNEAR; None in a version that is not known here.
    Raises:
        IntegrityError: malformed.
    """
    return None if header.version not in _CHALLENGES_ROOT else _reader_at_supply(header).u128()


def header_prev_height(header: BlockHeader) -> int | None:
    """Return the height of the block before, by a block header.

    Source: nearcore core/primitives/src/block_header.rs, BlockHeaderInnerRestV3 … V6.
    Returns:
        None in versions 1 and 2, which do not say it, and in one that is not known here.
    Raises:
        IntegrityError: malformed.
    """
    if header.version not in _CHALLENGES_ROOT or header.version < _FIRST_VERSION_WITH_PREV_HEIGHT:
        return None
    reader = _reader_at_supply(header)
    reader.u128()
    if _CHALLENGES_ROOT[header.version]:
        # challenges' result: account id, whether it signed twice
        for _ in range(reader.count(4 + 1)):
            reader.byte_vec_view()
            reader.u8()
    # last final block, last one with doomslug finality, ordinal
    reader.fixed_view(32 + 32 + 8)
    return reader.u64()


def _reader_at_supply(header: BlockHeader) -> BorshReader:
    """Return a reader that stands before a header's total supply."""
    reader = BorshReader(header.encoded, f"header of block {header.hash}", IntegrityError)
    # version, previous hash, what light clients read
    reader.fixed_view(1 + 32 + _INNER_LITE_BYTES)
    if header.version >= _FIRST_VERSION_WITH_BODY_HASH:
        reader.fixed_view(32)
    # roots of outgoing receipts, chunk headers and transactions
    reader.fixed_view(3 * 32)
    if header.version == 1:
        # chunks included
        reader.fixed_view(8)
    # root of challenges, random value
    reader.fixed_view(32 * _CHALLENGES_ROOT[header.version] + 32)
    for _ in range(reader.count(4 + 33 + 16)):
        skip_validator_stake(reader, has_tag=header.version >= 3)
    # chunk mask, next gas price
    reader.fixed_view(reader.count(1) + 16)
    return reader


def committed_supply(block_headers: Sequence[bytes], where: str) -> int | None:
    """Return the total supply of an epoch's state.

    Args:
        block_headers: of the sync block and its parent, whose chunks commit to the state; or none.
    Returns:
        YoctoNEAR; None without headers.
    Raises:
        IntegrityError: a header is malformed.
    """
    return header_total_supply(decode_block_header(block_headers[1], where)) if len(block_headers) > 1 else None


def decode_block_chunks(row: bytes, header: BlockHeader, where: str) -> tuple[ChunkHeader, ...]:
    """Return the chunk headers of a Block row, in shard index order, checked against the header's chunk_headers_root.

    Args:
        row: borsh Block: u8 version (0 is V1), header, then the body, which begins with the chunk headers (after its own version
            in V4 and later).
        header: the block's header.
    Raises:
        IntegrityError: another header, malformed chunk headers, or another Merkle root.
    """
    reader = BorshReader(row, where, IntegrityError)
    version = reader.u8() + 1
    if reader.fixed_view(min(len(header.encoded), reader.remaining)) != header.encoded:
        reader.fail("the block begins with another header than the BlockHeader column has")
    if version >= 4:
        reader.u8()
    read = read_chunk_header_v1 if version == 1 else read_chunk_header
    chunks = tuple(reader.vec(lambda: read(reader, row), 200, CHUNK_HEADERS_MAX))
    actual = chunk_headers_root(chunks)
    if actual != header.chunk_headers_root:
        raise IntegrityError(
            problem=f"chunk headers have Merkle root {actual}, but the block header says {header.chunk_headers_root}", where=where
        )
    return chunks


def chunk_leaf(chunk: ChunkHeader) -> bytes:
    """Return the bytes of a chunk header in the Merkle tree under chunk_headers_root.

    Source: nearcore core/primitives/src/sharding.rs, ChunkHashHeight.
    """
    return chunk.chunk_hash + struct.pack("<Q", chunk.height_included)


def chunk_headers_root(chunks: Sequence[ChunkHeader]) -> CryptoHash:
    """Return the Merkle root over chunk headers in shard index order.

    Source: nearcore core/primitives/src/block.rs, Block::compute_chunk_headers_root.
    """
    return merkle_root([chunk_leaf(chunk) for chunk in chunks])


def read_chunk_header(reader: BorshReader, data: bytes) -> ChunkHeader:
    """Take a ShardChunkHeader (a tag and V1, V2 or V3) and compute its hash.

    Args:
        data: all that the reader reads from.
    Raises:
        IntegrityError: the reader's class, on malformed bytes or an unknown version.
    """
    version = reader.u8() + 1
    if version == 1:
        return read_chunk_header_v1(reader, data)
    if version > 3:
        reader.fail(f"V{version} is no known version of a chunk header")
    return _read_chunk_header_body(reader, data, has_inner_tag=version == 3, hashes_merkle_root=True)


def read_chunk_header_v1(reader: BorshReader, data: bytes) -> ChunkHeader:
    """Take a ShardChunkHeaderV1, which has no tag where nothing else can stand.

    Raises:
        IntegrityError: the reader's class, on malformed bytes.
    """
    return _read_chunk_header_body(reader, data, has_inner_tag=False, hashes_merkle_root=False)


def _read_chunk_header_body(reader: BorshReader, data: bytes, has_inner_tag: bool, hashes_merkle_root: bool) -> ChunkHeader:
    inner_begin = len(data) - reader.remaining
    inner_version = reader.u8() + 1 if has_inner_tag else 1
    prev_block_hash = CryptoHash(reader.fixed(32))
    prev_state_root = CryptoHash(reader.fixed(32))
    # prev_outcome_root
    reader.fixed(32)
    encoded_merkle_root = reader.fixed(32)
    encoded_length = reader.u64()
    height_created = reader.u64()
    shard_id = reader.u64()
    _skip_inner_rest(reader, inner_version)
    inner_hash = hashlib.sha256(data[inner_begin : len(data) - reader.remaining]).digest()
    height_included = reader.u64()
    _skip_keyed(reader, _SIGNATURE_BYTES)
    return ChunkHeader(
        chunk_hash=combine_hash(inner_hash, encoded_merkle_root) if hashes_merkle_root else CryptoHash(inner_hash),
        prev_block_hash=prev_block_hash,
        prev_state_root=prev_state_root,
        height_created=height_created,
        height_included=height_included,
        shard_id=shard_id,
        encoded_length=encoded_length,
    )


def _skip_inner_rest(reader: BorshReader, inner_version: int) -> None:
    """Skip from prev_gas_used to the end of ShardChunkHeaderInnerV1 … V5."""
    if inner_version not in range(1, 6):
        reader.fail(f"V{inner_version} is no known version of a chunk header's inner part")
    # prev_gas_used, gas_limit, prev_balance_burnt, prev_outgoing_receipts_root, tx_root
    reader.fixed(8 + 8 + 16 + 32 + 32)
    for _ in range(reader.count(50)):
        skip_validator_stake(reader, has_tag=inner_version >= 2)
    if inner_version >= 3:
        # CongestionInfo V1: two u128 of gas, receipt bytes, allowed shard
        _expect_first_version(reader, "congestion info")
        reader.fixed(16 + 16 + 8 + 2)
    if inner_version >= 4:
        # BandwidthRequests V1: shard u16 and a bitmap of 5 bytes
        _expect_first_version(reader, "bandwidth requests")
        reader.fixed(7 * reader.count(7))
    if inner_version >= 5 and reader.flag():
        # TrieSplit: boundary account, memory usage on its left and right
        reader.byte_vec_view()
        reader.fixed(8 + 8)


def skip_validator_stake(reader: BorshReader, *, has_tag: bool) -> None:
    """Skip a ValidatorStakeV1, or with a tag a ValidatorStake.

    Source: nearcore core/primitives/src/types.rs.
    """
    if has_tag:
        _expect_first_version(reader, "validator stakes")
    reader.byte_vec_view()
    _skip_keyed(reader, _PUBLIC_KEY_BYTES)
    reader.u128()


def _expect_first_version(reader: BorshReader, name: str) -> None:
    tag = reader.u8()
    if tag != 0:
        reader.fail(f"{tag} is no known version of {name}")


def _skip_keyed(reader: BorshReader, byte_counts: dict[int, int]) -> None:
    key_type = reader.u8()
    if key_type not in byte_counts:
        reader.fail(f"{key_type} is no key type")
    reader.fixed_view(byte_counts[key_type])
