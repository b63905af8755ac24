"""Small, valid shard statements and manifests for tests."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from schemas.dataset.tables_selection import TablesSelection
from schemas.ids import ZERO_HASH, CryptoHash, ShardUId
from schemas.nearcore.state_part import Encoding
from schemas.published.delta_statement import WHOLE_BASE, DeltaEnd, DeltaObject, DeltaStatement
from schemas.published.manifest import Manifest, MissingKind, MissingObject, ZstdSettings
from schemas.published.manifest_shard import ManifestHeader, ManifestPart, ManifestShard, ManifestTorrent
from schemas.published.shard_statement import ShardStatement, StatementPart
from schemas.published.tables_statement import StatedFile, StatedShard, TablesStatement

CHAIN_ID = "testnet"
EPOCH_ID = CryptoHash(b"\x11" * 32)
SYNC_HASH = CryptoHash(b"\x22" * 32)
STATE_ROOT = CryptoHash(b"\x33" * 32)


def digest(text: str) -> str:
    """A SHA-256 in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def make_statement(shard_id: int = 0, num_parts: int = 3, header: bool = True) -> ShardStatement:
    """A statement of a shard whose parts begin at the keys 01, 02 and so on."""
    parts = tuple(
        StatementPart(
            idx, bytes([idx]) if idx else b"", bytes([idx + 1]) if idx + 1 < num_parts else None, 1000 + idx, digest(f"part {idx}")
        )
        for idx in range(num_parts)
    )
    header_sha256 = digest("header") if header else None
    return ShardStatement(CHAIN_ID, 7, EPOCH_ID, SYNC_HASH, ShardUId(1, shard_id), STATE_ROOT, 50_000, num_parts, header_sha256, parts)


def make_empty_statement(shard_id: int = 1) -> ShardStatement:
    """The statement of an empty shard."""
    return ShardStatement(CHAIN_ID, 7, EPOCH_ID, SYNC_HASH, ShardUId(1, shard_id), ZERO_HASH, 0, 0, None, ())


def make_delta_statement(shard_id: int = 0, objects: int = 2) -> DeltaStatement:
    """The statement of a delta from the epoch before, with its own shard for the base."""
    base = DeltaEnd(6, CryptoHash(b"\x66" * 32), ShardUId(1, shard_id), CryptoHash(b"\x67" * 32))
    target = DeltaEnd(7, EPOCH_ID, ShardUId(1, shard_id), STATE_ROOT)
    listed = tuple(
        DeltaObject(bytes([2 * index]), bytes([2 * index + 1]), 10 + index, index, 900 + index, digest(f"delta {index}"))
        for index in range(objects)
    )
    return DeltaStatement(CHAIN_ID, base, target, WHOLE_BASE, listed)


def make_manifest_shard(statement: ShardStatement) -> ManifestShard:
    """A shard with everything that there can be."""
    return ManifestShard(
        statement.shard_uid,
        statement.state_root,
        statement.num_parts,
        statement.payload_sha256,
        tuple(
            ManifestPart(part.part_id, 500 + part.part_id, digest(f"stored {part.part_id}"), digest(f"root {part.part_id}"))
            for part in statement.parts
        ),
        ManifestHeader(300, digest("header")),
        ManifestTorrent("ab" * 20, "cd" * 32, 16384) if statement.num_parts else None,
    )


def make_manifest() -> Manifest:
    """A manifest with two shards, the second empty, and nothing missing but one header."""
    shards = (make_manifest_shard(make_statement()), make_manifest_shard(make_empty_statement()))
    return Manifest(
        chain_id=CHAIN_ID,
        epoch_height=7,
        epoch_id=EPOCH_ID,
        sync_hash=SYNC_HASH,
        protocol_version=82,
        revision=1,
        created=datetime(2026, 11, 23, 8, 30, tzinfo=UTC),
        expires=datetime(2026, 12, 23, 8, 30, tzinfo=UTC),
        producer_version="statecast 0.1.0",
        encoding=Encoding.V1,
        zstd=ZstdSettings("1.5.7", 1),
        shards=shards,
        mirrors=("https://mirror.example/states", "gs://bucket/folder"),
        web_seeds=("https://mirror.example/states/chain_id=testnet/epoch_height=7/epoch_id=x/",),
        trackers=("udp://tracker.example:6969/announce",),
        block_headers=(b"sync block", b"its parent"),
        missing=(MissingObject(MissingKind.SHARD, "not tracked by the node", 5),),
    )


def make_tables_statement(raw: bool = True) -> TablesStatement:
    """A statement of the tables of two shards."""

    def shard(shard_id: int) -> StatedShard:
        folder = f"kind=account/chain_id={CHAIN_ID}/epoch_height=7/shard_id={shard_id}"
        files = tuple(StatedFile(f"{folder}/range-00000{idx}-0000.parquet", 500, 10, digest(f"table {shard_id} {idx}")) for idx in range(2))
        return StatedShard(ShardUId(1, shard_id), STATE_ROOT, raw, digest(f"summary {shard_id}"), files)

    return TablesStatement(CHAIN_ID, 7, EPOCH_ID, SYNC_HASH, TablesSelection(raw=raw), (shard(0), shard(1)))
