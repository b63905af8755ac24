"""A block as JSON-RPC shows it, turned back into nearcore's bytes and hashed.

JSON does not say of which version a header is; the versions that its fields allow are tried, and the one that hashes to the block's
hash is right. What comes out of `read_rpc_block` is therefore proved by the block's hash: all fields of its header, and through
chunk_headers_root the chunk hash and height_included of each chunk, and by the chunk hash the chunk header's own fields.

Recomputed are block headers of V1 to V6 and chunk headers of V1, V2 and V3.1 to V3.5. A header of a version that is not known here
can't be told from a forged one and is refused: a node's database serves there.

Source: nearcore core/primitives/src/views.rs, BlockHeaderView and ChunkHeaderView; block_header.rs, BlockHeaderInnerRest and V2 to V6;
sharding.rs, ShardChunkHeader; sharding/shard_chunk_header_inner.rs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeGuard

from schemas.errors import IntegrityError
from schemas.nearcore.block import CHUNK_HEADERS_MAX, BlockHeader, ChunkHeader, chunk_headers_root, decode_block_header, read_chunk_header
from schemas.nearcore.borsh import BorshReader, BorshWriter
from schemas.nearcore.rpc_reader import ACCOUNT_ID_BYTES_MAX, RpcReader

APPROVALS_MAX: Final = 4096
"""Most approvals, proposals or endorsements of a block."""

_BITMAP_BYTES: Final = 5


@dataclass(frozen=True, slots=True)
class RpcBlock:
    """A block whose hashes were recomputed."""

    header: BlockHeader
    prev_height: int | None
    """Height of the block before; None where its header does not say."""
    latest_protocol_version: int
    """The newest that its producer's software knows; not below that of the block's epoch."""
    chunk_headers: tuple[ChunkHeader, ...]
    """In shard index order."""

    def chunks(self) -> tuple[ChunkHeader, ...]:
        """Return the chunk headers."""
        return self.chunk_headers


def read_rpc_block(answer: object, where: str) -> RpcBlock:
    """Read the answer to ``block``.

    Args:
        where: endpoint and method, for errors.
    Raises:
        SourceError: the answer has another form.
        IntegrityError: the header does not hash to the hash that it names, a chunk header to its own, or the chunks to the header's root.
    """
    reader = RpcReader(answer, where)
    shown = reader.object("header")
    header = read_rpc_header(shown)
    chunks = tuple(_read_chunk(chunk) for chunk in reader.objects("chunks", CHUNK_HEADERS_MAX))
    actual = chunk_headers_root(chunks)
    if actual != header.chunk_headers_root:
        raise IntegrityError(
            problem=f"the chunk headers of block {header.hash} have Merkle root {actual}, its header says {header.chunk_headers_root}",
            where=where,
        )
    return RpcBlock(
        header=header,
        prev_height=shown.u64("prev_height") if shown.has("prev_height") else None,
        latest_protocol_version=_latest_protocol_version(shown),
        chunk_headers=chunks,
    )


def read_rpc_header(shown: RpcReader) -> BlockHeader:
    """Read a block header.

    Raises:
        SourceError: it has another form.
        IntegrityError: it does not hash to the hash that it names.
    """
    expected = shown.hash("hash")
    for version in _header_versions(shown):
        inner = _inner_lite(shown) + _inner_rest(shown, version)
        encoded = bytes([version - 1]) + shown.hash("prev_hash") + inner + shown.key("signature")
        try:
            return decode_block_header(encoded, shown.where, expected)
        except IntegrityError:
            continue
    raise IntegrityError(
        problem=f"a block header does not hash to {expected}, the hash that the answer names",
        where=shown.where,
        remedy="The endpoint changed it, or it is of a version that is not known here: take the epoch from a node's database.",
    )


def _header_versions(shown: RpcReader) -> tuple[int, ...]:
    if not shown.has("block_body_hash"):
        return (3,) if shown.has("prev_height") else (2, 1)
    return (5, 6) if shown.has("chunk_endorsements") else (4,)


def _inner_lite(shown: RpcReader) -> bytes:
    writer = BorshWriter().u64(shown.u64("height"))
    for name in ("epoch_id", "next_epoch_id", "prev_state_root", "outcome_root"):
        writer.fixed(shown.hash(name))
    # The field timestamp is the same as a JSON number, which some programs on the way round.
    writer.u64(int(shown.text("timestamp_nanosec", 20, r"\d{1,19}")))
    return writer.fixed(shown.hash("next_bp_hash")).fixed(shown.hash("block_merkle_root")).to_bytes()


def _inner_rest(shown: RpcReader, version: int) -> bytes:
    has_challenges = version < 6
    writer = BorshWriter()
    if version >= 4:
        writer.fixed(shown.hash("block_body_hash"))
    for name in ("chunk_receipts_root", "chunk_headers_root", "chunk_tx_root"):
        writer.fixed(shown.hash(name))
    if version == 1:
        writer.u64(shown.u64("chunks_included"))
    if has_challenges:
        writer.fixed(shown.hash("challenges_root"))
    writer.fixed(shown.hash("random_value"))
    _write_proposals(writer, shown.objects("validator_proposals", APPROVALS_MAX), tagged=version >= 3)
    writer.byte_vec(bytes(bool(bit) for bit in shown.listed("chunk_mask", CHUNK_HEADERS_MAX)))
    writer.u128(shown.decimal("gas_price")).u128(shown.decimal("total_supply"))
    if has_challenges:
        challenges = shown.objects("challenges_result", APPROVALS_MAX)
        writer.u32(len(challenges))
        for challenge in challenges:
            writer.byte_vec(challenge.account_id("account_id")).u8(challenge.flag("is_double_sign"))
    writer.fixed(shown.hash("last_final_block")).fixed(shown.hash("last_ds_final_block"))
    if version >= 3:
        writer.u64(shown.u64("block_ordinal")).u64(shown.u64("prev_height"))
        writer.option(shown.hash("epoch_sync_data_hash") if shown.has("epoch_sync_data_hash") else None, writer.fixed)
    approvals = shown.listed("approvals", APPROVALS_MAX)
    writer.u32(len(approvals))
    for approval in approvals:
        writer.option(None if approval is None else shown.key_bytes(approval), writer.fixed)
    writer.u32(_latest_protocol_version(shown))
    if version >= 5:
        endorsements = shown.listed("chunk_endorsements", CHUNK_HEADERS_MAX)
        writer.u32(len(endorsements))
        for bitmap in endorsements:
            writer.byte_vec(shown.as_bytes(bitmap))
    if version >= 6:
        _write_shard_split(writer, shown)
    return writer.to_bytes()


def _latest_protocol_version(shown: RpcReader) -> int:
    return shown.number("latest_protocol_version", 0, 2**32 - 1)


def _write_shard_split(writer: BorshWriter, shown: RpcReader) -> None:
    if not shown.has("shard_split"):
        writer.u8(0)
        return
    split = shown.listed("shard_split", 2)
    if len(split) != 2 or type(split[0]) is not int or not 0 <= split[0] < 2**64 or not _is_account_id(split[1]):
        shown.fail("shard_split is a shard id and an account id")
    writer.u8(1).u64(split[0]).byte_vec(split[1].encode())


def _is_account_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.isascii() and len(value) <= ACCOUNT_ID_BYTES_MAX


def _read_chunk(shown: RpcReader) -> ChunkHeader:
    expected = shown.hash("chunk_hash")
    for outer, inner in _chunk_versions(shown):
        encoded = _chunk_header(shown, outer, inner)
        chunk = read_chunk_header(BorshReader(encoded, shown.where, IntegrityError), encoded)
        if chunk.chunk_hash == expected:
            return chunk
    raise IntegrityError(
        problem=f"a chunk header does not hash to {expected}, the hash that the answer names",
        where=shown.where,
        remedy="The endpoint changed it, or it is of a version that is not known here: take the epoch from a node's database.",
    )


def _chunk_versions(shown: RpcReader) -> Iterable[tuple[int, int]]:
    """Return the versions of header and inner part that the fields allow."""
    if shown.has("bandwidth_requests"):
        return ((3, 4), (3, 5))
    if shown.has("congestion_info"):
        return ((3, 3),)
    return ((3, 2), (3, 1), (2, 1), (1, 1))


def _chunk_header(shown: RpcReader, outer: int, inner: int) -> bytes:
    writer = BorshWriter().u8(outer - 1)
    if outer == 3:
        writer.u8(inner - 1)
    for name in ("prev_block_hash", "prev_state_root", "outcome_root", "encoded_merkle_root"):
        writer.fixed(shown.hash(name))
    for name in ("encoded_length", "height_created", "shard_id", "gas_used", "gas_limit"):
        writer.u64(shown.u64(name))
    writer.u128(shown.decimal("balance_burnt")).fixed(shown.hash("outgoing_receipts_root")).fixed(shown.hash("tx_root"))
    _write_proposals(writer, shown.objects("validator_proposals", APPROVALS_MAX), tagged=inner >= 2)
    if inner >= 3:
        congestion = shown.object("congestion_info")
        writer.u8(0).u128(congestion.decimal("delayed_receipts_gas")).u128(congestion.decimal("buffered_receipts_gas"))
        writer.u64(congestion.u64("receipt_bytes")).u16(congestion.number("allowed_shard", 0, 2**16 - 1))
    if inner >= 4:
        _write_bandwidth_requests(writer, shown.object("bandwidth_requests"))
    if inner >= 5:
        _write_proposed_split(writer, shown)
    return writer.u64(shown.u64("height_included")).fixed(shown.key("signature")).to_bytes()


def _write_proposals(writer: BorshWriter, proposals: list[RpcReader], *, tagged: bool) -> None:
    writer.u32(len(proposals))
    for proposal in proposals:
        if tagged:
            writer.u8(0)
        writer.byte_vec(proposal.account_id("account_id")).fixed(proposal.key("public_key")).u128(proposal.decimal("stake"))


def _write_bandwidth_requests(writer: BorshWriter, shown: RpcReader) -> None:
    requests = shown.object("V1").objects("requests", CHUNK_HEADERS_MAX)
    writer.u8(0).u32(len(requests))
    for request in requests:
        bitmap = request.object("requested_values_bitmap").byte_list("data", _BITMAP_BYTES)
        writer.u16(request.number("to_shard", 0, 2**16 - 1)).fixed(bitmap.ljust(_BITMAP_BYTES, b"\0"))


def _write_proposed_split(writer: BorshWriter, shown: RpcReader) -> None:
    split = shown.object("proposed_split") if shown.has("proposed_split") else None
    writer.u8(0 if split is None else 1)
    if split is not None:
        writer.byte_vec(split.account_id("boundary_account")).u64(split.u64("left_memory")).u64(split.u64("right_memory"))
