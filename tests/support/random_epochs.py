"""Epochs of random bytes, published as far as seeding and fetching by torrent look: parts, torrents, signed manifest, pointer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from pipelines.bittorrent.torrents import build_torrent
from pipelines.producing.publish.key_file import load_signer
from pipelines.producing.publish.signing import sign_payload
from schemas.ids import CryptoHash, PartId, ShardUId
from schemas.nearcore.state_part import Encoding
from schemas.published.latest_pointer import LatestPointer
from schemas.published.manifest import Manifest, MissingKind, MissingObject
from schemas.published.manifest_shard import ManifestPart, ManifestShard, ManifestTorrent
from schemas.published.object_layout import EpochLayout, latest_name, part_file_name, shard_folder_name
from schemas.published.torrent import LEAF_BYTES, piece_hashes
from tests.support.published import signing_key

CHAIN_ID = "testnet"
PIECE_BYTES = 2 * LEAF_BYTES
PART_SIZES = (200_000, LEAF_BYTES - 1, 3 * PIECE_BYTES, PIECE_BYTES + 100, 7 * PIECE_BYTES - 16_383)
"""Around pieces and leaves."""


@dataclass(frozen=True, slots=True)
class RandomEpoch:
    """What was published."""

    bucket: Path
    layout: EpochLayout
    manifest: Manifest

    @property
    def folder(self) -> Path:
        """The epoch's folder in the bucket."""
        return self.bucket / self.layout.folder

    def torrent(self, shard_id: int = 0) -> bytes:
        """Return a shard's torrent file."""
        return (self.bucket / self.layout.torrent(shard_id)).read_bytes()

    def parts(self, shard_id: int = 0) -> dict[str, bytes]:
        """Return a shard's parts by the last level of their names."""
        return parts_in(self.bucket / self.layout.shard_folder(shard_id))


def parts_in(folder: Path) -> dict[str, bytes]:
    """Return the parts in a shard's folder by the last level of their names."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("state_part_*"))}


def publish_random_epoch(
    bucket: Path,
    height: int = 1,
    shards: Mapping[int, Sequence[int]] | None = None,
    *,
    seed: int | None = None,
    revision: int = 1,
    piece_bytes: int = PIECE_BYTES,
    key: str = "first",
) -> RandomEpoch:
    """Publish an epoch and move the pointer.

    Args:
        shards: the sizes of each shard's parts; shard 0 with `PART_SIZES` by default.
        seed: of the bytes; the height by default, so that epochs differ.
    """
    random = Random(height if seed is None else seed)
    layout = EpochLayout(CHAIN_ID, height, CryptoHash(hashlib.sha256(str(height).encode()).digest()))
    listed = tuple(
        _publish_shard(bucket, layout, shard_id, sizes, random, piece_bytes) for shard_id, sizes in (shards or {0: PART_SIZES}).items()
    )
    manifest = Manifest(
        chain_id=CHAIN_ID,
        epoch_height=height,
        epoch_id=layout.epoch_id,
        sync_hash=CryptoHash(b"\x22" * 32),
        protocol_version=81,
        revision=revision,
        created=datetime(2026, 11, 23, 8, 30, tzinfo=UTC),
        expires=None,
        producer_version="test",
        encoding=Encoding.V0,
        zstd=None,
        shards=listed,
        missing=(
            *(MissingObject(MissingKind.STATE_HEADER, "none", shard.shard_id) for shard in listed),
            MissingObject(MissingKind.BLOCK_HEADERS, "none"),
        ),
    )
    envelope = sign_payload(manifest.to_payload(), [load_signer(signing_key(key))])
    _write(bucket / layout.manifest, envelope.to_bytes())
    pointer = LatestPointer(CHAIN_ID, height, layout.epoch_id, revision, envelope.payload_sha256)
    _write(bucket / latest_name(CHAIN_ID), pointer.to_bytes())
    return RandomEpoch(bucket, layout, manifest)


def _publish_shard(
    bucket: Path, layout: EpochLayout, shard_id: int, sizes: Sequence[int], random: Random, piece_bytes: int
) -> ManifestShard:
    parts, files = [], []
    for idx, size in enumerate(sizes):
        data = random.randbytes(size)
        part_id = PartId(idx, len(sizes))
        _write(bucket / layout.state_part(shard_id, part_id), data)
        pieces = piece_hashes(data, piece_bytes)
        files.append((part_file_name(part_id), size, pieces))
        parts.append(ManifestPart(idx, size, hashlib.sha256(data).hexdigest(), pieces.v2_root.hex() or None))
    torrent = build_torrent(shard_folder_name(shard_id), files, piece_bytes)
    _write(bucket / layout.torrent(shard_id), torrent.data)
    return ManifestShard(
        ShardUId(1, shard_id),
        CryptoHash(b"\x33" * 32),
        len(sizes),
        "00" * 32,
        tuple(parts),
        None,
        ManifestTorrent(torrent.info_hash_v1.hex(), torrent.info_hash_v2.hex(), piece_bytes),
    )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
