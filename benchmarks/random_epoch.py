"""An unsigned epoch of random bytes, as far as transfers look: parts, torrent, manifest and pointer. Its parts are no state parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from pipelines.bittorrent.torrents import build_torrent
from pipelines.producing.publish.signing import sign_payload
from pipelines.stores.file_store import FileStore
from schemas.ids import CryptoHash, PartId, ShardUId
from schemas.nearcore.state_part import Encoding
from schemas.published.latest_pointer import LatestPointer
from schemas.published.manifest import Manifest, MissingKind, MissingObject
from schemas.published.manifest_shard import ManifestPart, ManifestShard, ManifestTorrent
from schemas.published.object_layout import EpochLayout, latest_name, part_file_name, shard_folder_name
from schemas.published.torrent import PIECE_BYTES_MAX, piece_hashes


def publish_random_epoch(bucket: Path, sizes: Sequence[int]) -> tuple[EpochLayout, Manifest]:
    """Publish shard 0 with parts of these sizes, in bytes."""
    store = FileStore(str(bucket))
    layout = EpochLayout("benchmark", 1, CryptoHash(b"\x11" * 32))
    random = Random(1)
    parts, files = [], []
    for idx, size in enumerate(sizes):
        data = random.randbytes(size)
        part_id = PartId(idx, len(sizes))
        store.put(layout.state_part(0, part_id), data)
        pieces = piece_hashes(data, PIECE_BYTES_MAX)
        files.append((part_file_name(part_id), size, pieces))
        parts.append(ManifestPart(idx, size, hashlib.sha256(data).hexdigest(), pieces.v2_root.hex()))
    torrent = build_torrent(shard_folder_name(0), files, PIECE_BYTES_MAX)
    store.put(layout.torrent(0), torrent.data)
    named = ManifestTorrent(torrent.info_hash_v1.hex(), torrent.info_hash_v2.hex(), PIECE_BYTES_MAX)
    shard = ManifestShard(ShardUId(1, 0), CryptoHash(b"\x33" * 32), len(sizes), "00" * 32, tuple(parts), None, named)
    manifest = Manifest(
        chain_id=layout.chain_id,
        epoch_height=layout.epoch_height,
        epoch_id=layout.epoch_id,
        sync_hash=CryptoHash(b"\x22" * 32),
        protocol_version=81,
        revision=1,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        expires=None,
        producer_version="benchmark",
        encoding=Encoding.V0,
        zstd=None,
        shards=(shard,),
        missing=(MissingObject(MissingKind.STATE_HEADER, "none", 0), MissingObject(MissingKind.BLOCK_HEADERS, "none")),
    )
    envelope = sign_payload(manifest.to_payload(), [])
    store.put(layout.manifest, envelope.to_bytes())
    pointer = LatestPointer(layout.chain_id, layout.epoch_height, layout.epoch_id, 1, envelope.payload_sha256)
    store.put(latest_name(layout.chain_id), pointer.to_bytes())
    return layout, manifest
