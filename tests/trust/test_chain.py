"""From a trusted block hash to state roots, over blocks and state headers of a real node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.trust.chain import prove_blocks, prove_statement
from schemas.errors import ManifestError
from schemas.ids import CryptoHash
from schemas.nearcore.block import decode_block_header
from schemas.published.manifest import MissingKind, MissingObject
from schemas.published.shard_statement import ShardStatement
from tests.support.fetches import parts_layout, parts_manifest, published_parts
from tests.support.native_wheel import needs_headers
from tests.support.nodes import localnet


def parent_hash() -> CryptoHash:
    """The hash of the block before the sync block."""
    return decode_block_header(parts_manifest().block_headers[1], "test").hash


def statement_of(shard_id: int) -> ShardStatement:
    """The published statement of a shard."""
    from schemas.published.dsse import parse_envelope

    data = (published_parts() / parts_layout().shard_statement(shard_id)).read_bytes()
    return ShardStatement.from_payload(parse_envelope(data, "test").payload, "test")


def header_of(shard_id: int) -> bytes:
    """The published state header of a shard."""
    return (published_parts() / parts_layout().state_header(shard_id)).read_bytes()


@needs_headers
@pytest.mark.parametrize("trusted_block", ["sync block", "its parent"])
def test_both_trusted_blocks_prove_every_shard(trusted_block: str) -> None:
    """The sync block's hash, and its parent's."""
    trusted = parts_manifest().sync_hash if trusted_block == "sync block" else parent_hash()
    blocks = prove_blocks(trusted, parts_manifest(), "test")
    assert blocks.parent.hash == parent_hash()
    assert blocks.sync_hash_is_proven == (trusted == parts_manifest().sync_hash)
    for shard in parts_manifest().shards:
        proven = prove_statement(blocks, statement_of(shard.shard_id), header_of(shard.shard_id), "test")
        assert proven.state_root == shard.state_root


def test_another_block_proves_nothing() -> None:
    """However well all else hangs together."""
    for other in (parts_manifest().epoch_id, CryptoHash(b"\1" * 32)):
        with pytest.raises(ManifestError, match="do not lead to the trusted block"):
            prove_blocks(other, parts_manifest(), "test")


def test_headers_of_other_blocks_prove_nothing() -> None:
    """A sync block of the publisher's own making, a parent of another one, both swapped."""
    sync_block, parent = parts_manifest().block_headers
    forged = sync_block[:-1] + bytes([sync_block[-1] ^ 1])
    forged_inner = bytearray(sync_block)
    forged_inner[60] ^= 1
    for headers in ((parent, sync_block), (sync_block, sync_block), (bytes(forged_inner), parent), (sync_block[:100], parent)):
        with pytest.raises(ManifestError):
            prove_blocks(parts_manifest().sync_hash, replace(parts_manifest(), block_headers=headers), "test")
    # The signature is in no hash: it proves nothing, and nothing hangs on it.
    assert (
        prove_blocks(parts_manifest().sync_hash, replace(parts_manifest(), block_headers=(forged, parent)), "test").parent.hash
        == parent_hash()
    )


def test_a_forged_sync_block_over_a_trusted_parent_is_refused() -> None:
    """Its hash is not the manifest's sync hash."""
    forged = bytearray(parts_manifest().block_headers[0])
    forged[60] ^= 1
    with pytest.raises(ManifestError):
        prove_blocks(parent_hash(), replace(parts_manifest(), block_headers=(bytes(forged), parts_manifest().block_headers[1])), "test")


def test_a_manifest_without_block_headers_is_refused() -> None:
    """With the reason."""
    missing = (*parts_manifest().missing, MissingObject(MissingKind.BLOCK_HEADERS, "none"))
    with pytest.raises(ManifestError, match="no block headers"):
        prove_blocks(parts_manifest().sync_hash, replace(parts_manifest(), block_headers=(), missing=missing), "test")


def test_a_manifest_of_another_epoch_is_refused() -> None:
    """The block says which epoch it is of."""
    with pytest.raises(ManifestError, match="epoch"):
        prove_blocks(parts_manifest().sync_hash, replace(parts_manifest(), epoch_id=CryptoHash(b"\2" * 32)), "test")


@needs_headers
def test_a_statement_of_another_state_root_shard_or_size_is_refused() -> None:
    """All three are in what the chain proves."""
    blocks = prove_blocks(parts_manifest().sync_hash, parts_manifest(), "test")
    statement, header = statement_of(2), header_of(2)
    false_ones = [
        replace(statement, state_root=CryptoHash(b"\3" * 32)),
        replace(statement, memory_usage=statement.memory_usage + 1),
        replace(statement, shard_uid=replace(statement.shard_uid, shard_id=1)),
    ]
    for false in false_ones:
        with pytest.raises(ManifestError, match="the chain has shard 2"):
            prove_statement(blocks, false, header, "test")


@needs_headers
def test_a_state_header_of_another_shard_or_epoch_is_refused() -> None:
    """Real ones, only not of this shard and block."""
    blocks = prove_blocks(parts_manifest().sync_hash, parts_manifest(), "test")
    with pytest.raises(ManifestError, match="the chain has shard 1"):
        prove_statement(blocks, statement_of(2), header_of(1), "test")
    (older,) = (localnet() / "dump").glob("*/epoch_height=5/*/headers/shard_id=2/header")
    with pytest.raises(ManifestError, match="no proof"):
        prove_statement(blocks, statement_of(2), older.read_bytes(), "test")
