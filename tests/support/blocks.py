"""Borsh of block and chunk headers from the JSON that nodes show, so that real headers can be decoded in tests.

Source: nearcore core/primitives/src/block_header.rs and sharding/shard_chunk_header_inner.rs.
"""

from __future__ import annotations

from typing import Any

from schemas.ids import CryptoHash, base58_decode
from schemas.nearcore.borsh import BorshWriter

Json = dict[str, Any]
_KEY_TYPES = {"ed25519": 0, "secp256k1": 1}


def hash_of(text: str) -> CryptoHash:
    """Return a hash of its base58 form."""
    return CryptoHash.from_base58(text)


def encode_key(text: str) -> bytes:
    """Return a public key or signature in borsh."""
    kind, _, encoded = text.partition(":")
    return bytes([_KEY_TYPES[kind]]) + base58_decode(encoded)


def encode_validator_stakes(stakes: list[Json], tagged: bool) -> bytes:
    """Return a list of validator proposals."""
    writer = BorshWriter().u32(len(stakes))
    for stake in stakes:
        if tagged:
            writer.u8(0)
        writer.byte_vec(stake["account_id"].encode()).fixed(encode_key(stake["public_key"])).u128(int(stake["stake"]))
    return writer.to_bytes()


def encode_inner_lite(header: Json) -> bytes:
    """Return the first hashed part of a block header."""
    writer = BorshWriter().u64(header["height"])
    for name in ("epoch_id", "next_epoch_id", "prev_state_root", "outcome_root"):
        writer.fixed(hash_of(header[name]))
    writer.u64(int(header["timestamp_nanosec"]))
    return writer.fixed(hash_of(header["next_bp_hash"])).fixed(hash_of(header["block_merkle_root"])).to_bytes()


def encode_inner_rest(header: Json, version: int) -> bytes:
    """Return the second hashed part of a block header of V3, V4 or V5."""
    writer = BorshWriter()
    if version >= 4:
        writer.fixed(hash_of(header["block_body_hash"]))
    for name in ("chunk_receipts_root", "chunk_headers_root", "chunk_tx_root", "challenges_root", "random_value"):
        writer.fixed(hash_of(header[name]))
    writer.fixed(encode_validator_stakes(header["validator_proposals"], tagged=True))
    writer.byte_vec(bytes(header["chunk_mask"]))
    writer.u128(int(header["gas_price"])).u128(int(header["total_supply"])).u32(len(header["challenges_result"]))
    writer.fixed(hash_of(header["last_final_block"])).fixed(hash_of(header["last_ds_final_block"]))
    writer.u64(header["block_ordinal"]).u64(header["prev_height"])
    writer.option(header["epoch_sync_data_hash"], lambda text: writer.fixed(hash_of(text)))
    writer.u32(len(header["approvals"]))
    for approval in header["approvals"]:
        writer.option(approval, lambda text: writer.fixed(encode_key(text)))
    writer.u32(header["latest_protocol_version"])
    if version >= 5:
        writer.u32(len(header["chunk_endorsements"]))
        for bitmap in header["chunk_endorsements"]:
            writer.byte_vec(bytes(bitmap))
    return writer.to_bytes()


def encode_block_header(header: Json, version: int) -> bytes:
    """Return a block header of V3, V4 or V5."""
    inner = encode_inner_lite(header) + encode_inner_rest(header, version)
    return bytes([version - 1]) + hash_of(header["prev_hash"]) + inner + encode_key(header["signature"])


def encode_chunk_header(chunk: Json, version: str) -> bytes:
    """Return a ShardChunkHeader; ``version`` is V1, V2 or V3.k with the inner version k."""
    outer, _, inner = version.partition(".")
    inner_version = int(inner or 1)
    writer = BorshWriter().u8(int(outer[1:]) - 1)
    if inner:
        writer.u8(inner_version - 1)
    for name in ("prev_block_hash", "prev_state_root", "outcome_root", "encoded_merkle_root"):
        writer.fixed(hash_of(chunk[name]))
    for name in ("encoded_length", "height_created", "shard_id", "gas_used", "gas_limit"):
        writer.u64(chunk[name])
    writer.u128(int(chunk["balance_burnt"])).fixed(hash_of(chunk["outgoing_receipts_root"])).fixed(hash_of(chunk["tx_root"]))
    writer.fixed(encode_validator_stakes(chunk["validator_proposals"], tagged=inner_version >= 2))
    if inner_version >= 3:
        congestion = chunk["congestion_info"]
        writer.u8(0).u128(int(congestion["delayed_receipts_gas"])).u128(int(congestion["buffered_receipts_gas"]))
        writer.u64(congestion["receipt_bytes"]).u16(congestion["allowed_shard"])
    if inner_version >= 4:
        requests = chunk["bandwidth_requests"]["V1"]["requests"]
        writer.u8(0).u32(len(requests))
        for request in requests:
            writer.u16(request["to_shard"]).fixed(bytes(request["requested_values_bitmap"]["data"]))
    # A chunk header by itself does not say in which block it was included; no hash depends on it.
    return writer.u64(chunk.get("height_included", 0)).fixed(encode_key(chunk["signature"])).to_bytes()
