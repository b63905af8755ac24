"""Bringing a shard's parts: the rate from the bucket is kept, and a stop does not wait for it."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.seeding.data_folder import DataFolder
from pipelines.seeding.shard_parts import ShardFiles
from pipelines.seeding.status import ShardKey
from pipelines.stores.memory_store import MemoryStore
from pipelines.stores.pace import Pace
from schemas.errors import TransientStoreError
from schemas.ids import PartId
from schemas.published.manifest_shard import ManifestPart
from schemas.published.object_layout import EpochLayout
from tests.support.published_values import EPOCH_ID, make_manifest_shard, make_statement

LAYOUT = EpochLayout("testnet", 7, EPOCH_ID)
PARTS = (b"a" * 1000, b"b" * 500, b"c" * 200)


class Stop(threading.Event):
    """A stop that lets no time pass, remembers how long was to be waited, and comes after so many waits."""

    def __init__(self, comes_after: int = 1 << 30) -> None:
        super().__init__()
        self.waits_s: list[float] = []
        self.comes_after = comes_after

    def wait(self, timeout: float | None = None) -> bool:
        """Remember the wait."""
        assert timeout is not None
        self.waits_s.append(timeout)
        if len(self.waits_s) > self.comes_after:
            self.set()
        return self.is_set()


def shard_parts(tmp_path: Path, stop: Stop) -> tuple[MemoryStore, ShardFiles]:
    """Three parts in a bucket, and an empty folder for them."""
    shard = make_manifest_shard(make_statement())
    shard = replace(
        shard,
        num_parts=len(PARTS),
        parts=tuple(ManifestPart(part_id, len(data), hashlib.sha256(data).hexdigest()) for part_id, data in enumerate(PARTS)),
    )
    store = MemoryStore(str(tmp_path))
    for part_id, data in enumerate(PARTS):
        store.put(LAYOUT.state_part(shard.shard_id, PartId(part_id, len(PARTS))), data)
    (tmp_path / "data/.seed/tmp").mkdir(parents=True)
    return store, ShardFiles(ShardKey(LAYOUT, shard.shard_id), shard, DataFolder(tmp_path / "data"), None, stop)


def test_the_rate_is_kept_over_all_parts(tmp_path: Path) -> None:
    """Each part waits until those before it are paid for."""
    stop = Stop()
    store, parts = shard_parts(tmp_path, stop)
    brought: list[int] = []
    with ThreadPoolExecutor(1) as executor:
        folder = parts.bring(store, executor, lambda size, _: brought.append(size), Pace(100, clock=lambda: 0.0))
    assert brought == [1000, 500, 200]
    assert stop.waits_s == pytest.approx([0, 10, 15])
    assert sorted(path.stat().st_size for path in folder.rglob("state_part_*")) == [200, 500, 1000]


def test_a_stop_ends_the_wait_for_the_rate(tmp_path: Path) -> None:
    """A part whose turn had not come is not read."""
    store, parts = shard_parts(tmp_path, Stop(comes_after=1))
    brought: list[int] = []
    with ThreadPoolExecutor(1) as executor, pytest.raises(TransientStoreError, match="stopped"):
        parts.bring(store, executor, lambda size, _: brought.append(size), Pace(100, clock=lambda: 0.0))
    assert brought == [1000]
