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
from tests.support.fetches import layout_of, published_manifest, published_parts
from tests.support.native_wheel import needs_headers
from tests.support.nodes import localnet

MANIFEST = published_manifest(published_parts())
LAYOUT = layout_of(MANIFEST)
PARENT = decode_block_header(MANIFEST.block_headers[1], "test").hash


def statement_of(shard_id: int) -> ShardStatement:
    """The published statement of a shard."""
    from schemas.published.dsse import parse_envelope

    data = (published_parts() / LAYOUT.shard_statement(shard_id)).read_bytes()
    return ShardStatement.from_payload(parse_envelope(data, "test").payload, "test")


def header_of(shard_id: int) -> bytes:
    """The published state header of a shard."""
    return (published_parts() / LAYOUT.state_header(shard_id)).read_bytes()


@needs_headers
@pytest.mark.parametrize("trusted", [MANIFEST.sync_hash, PARENT])
def test_both_trusted_blocks_prove_every_shard(trusted: CryptoHash) -> None:
    """The sync block's hash, and its parent's."""
    blocks = prove_blocks(trusted, MANIFEST, "test")
    assert blocks.parent.hash == PARENT
    assert blocks.sync_hash_is_proven == (trusted == MANIFEST.sync_hash)
    for shard in MANIFEST.shards:
        proven = prove_statement(blocks, statement_of(shard.shard_id), header_of(shard.shard_id), "test")
        assert proven.state_root == shard.state_root


@pytest.mark.parametrize("trusted", [MANIFEST.epoch_id, CryptoHash(b"\1" * 32)])
def test_another_block_proves_nothing(trusted: CryptoHash) -> None:
    """However well all else hangs together."""
    with pytest.raises(ManifestError, match="do not lead to the trusted block"):
        prove_blocks(trusted, MANIFEST, "test")


def test_headers_of_other_blocks_prove_nothing() -> None:
    """A sync block of the publisher's own making, a parent of another one, both swapped."""
    sync_block, parent = MANIFEST.block_headers
    forged = sync_block[:-1] + bytes([sync_block[-1] ^ 1])
    forged_inner = bytearray(sync_block)
    forged_inner[60] ^= 1
    for headers in ((parent, sync_block), (sync_block, sync_block), (bytes(forged_inner), parent), (sync_block[:100], parent)):
        with pytest.raises(ManifestError):
            prove_blocks(MANIFEST.sync_hash, replace(MANIFEST, block_headers=headers), "test")
    # The signature is in no hash: it proves nothing, and nothing hangs on it.
    assert prove_blocks(MANIFEST.sync_hash, replace(MANIFEST, block_headers=(forged, parent)), "test").parent.hash == PARENT


def test_a_forged_sync_block_over_a_trusted_parent_is_refused() -> None:
    """Its hash is not the manifest's sync hash."""
    forged = bytearray(MANIFEST.block_headers[0])
    forged[60] ^= 1
    with pytest.raises(ManifestError):
        prove_blocks(PARENT, replace(MANIFEST, block_headers=(bytes(forged), MANIFEST.block_headers[1])), "test")


def test_a_manifest_without_block_headers_is_refused() -> None:
    """With the reason."""
    missing = (*MANIFEST.missing, MissingObject(MissingKind.BLOCK_HEADERS, "none"))
    with pytest.raises(ManifestError, match="no block headers"):
        prove_blocks(MANIFEST.sync_hash, replace(MANIFEST, block_headers=(), missing=missing), "test")


def test_a_manifest_of_another_epoch_is_refused() -> None:
    """The block says which epoch it is of."""
    with pytest.raises(ManifestError, match="epoch"):
        prove_blocks(MANIFEST.sync_hash, replace(MANIFEST, epoch_id=CryptoHash(b"\2" * 32)), "test")


@needs_headers
def test_a_statement_of_another_state_root_shard_or_size_is_refused() -> None:
    """All three are in what the chain proves."""
    blocks = prove_blocks(MANIFEST.sync_hash, MANIFEST, "test")
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
    blocks = prove_blocks(MANIFEST.sync_hash, MANIFEST, "test")
    with pytest.raises(ManifestError, match="the chain has shard 1"):
        prove_statement(blocks, statement_of(2), header_of(1), "test")
    (older,) = (localnet() / "dump").glob("*/epoch_height=5/*/headers/shard_id=2/header")
    with pytest.raises(ManifestError, match="no proof"):
        prove_statement(blocks, statement_of(2), older.read_bytes(), "test")
