"""A seeder without BitTorrent, and which epochs it keeps."""

from __future__ import annotations

from pathlib import Path

from pipelines.seeding.data_folder import open_data_folder
from pipelines.seeding.seeder import Seeder, SeedSettings
from pipelines.stores.file_store import FileStore
from pipelines.trust.policy import TrustPolicy
from tests.support.stored_epochs import CHAIN_ID, publish_epoch


def kept(bucket: Path, data: Path) -> list[int]:
    """Let a seeder look once; return the heights of the epochs that are whole."""
    settings = SeedSettings(CHAIN_ID, 2, TrustPolicy(None, None, True), None, newest_alone_at_first=True)
    with open_data_folder(data) as folder:
        status = Seeder(FileStore(str(bucket)), folder, settings, lambda _: None).run(lambda _: None, once=True)
    assert status.is_complete and status.listen_port == 0
    return sorted(shard.key.epoch_height for shard in status.shards)


def test_older_epochs_than_the_first_newest_are_left_alone(tmp_path: Path) -> None:
    """A new node asks for the newest; from then on an epoch stays until the one after the next is here."""
    bucket, data = tmp_path / "bucket", tmp_path / "data"
    for published, expected in (((5, 6), [6]), ((7,), [6, 7]), ((8,), [7, 8])):
        for height in published:
            publish_epoch(f"file://{bucket}", height)
        assert kept(bucket, data) == expected
