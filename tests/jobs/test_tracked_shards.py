"""A node that tracks some of its chain's shards gives those to every command that names no shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.near.node.flat_state_location import has_flat_storage
from pipelines.near.node.node_columns import CHUNK_EXTRA, FLAT_STORAGE_STATUS, STATE
from pipelines.near.node.node_home import read_node_home
from pipelines.near.node.rocksdb_reader import RocksDbReader
from schemas.ids import ShardUId
from schemas.published.dsse import parse_envelope
from schemas.published.manifest import Manifest
from tests.support.commands import statecast
from tests.support.nodes import change_rows, copied, localnet_home, snapshot_folder
from tests.support.published import signing_key

TRACKED = ShardUId(version=0, shard_id=2)
OTHERS = tuple(ShardUId(version=0, shard_id=shard_id) for shard_id in (0, 1, 3))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the real node that tracks shard 2 alone."""
    found = copied(localnet_home(), tmp_path_factory.mktemp("tracking"))
    for data in (found / "data", snapshot_folder(found)):
        change_rows(data, FLAT_STORAGE_STATUS, {uid.to_bytes(): None for uid in OTHERS})
    others = tuple(uid.to_bytes() for uid in OTHERS)
    for column, is_other in ((STATE, bytes.startswith), (CHUNK_EXTRA, bytes.endswith)):
        with RocksDbReader(found / "data", (column,)) as reader:
            keys = [key for rows in reader.scan(column, b"", None) for key, _ in rows if is_other(key, others)]
        change_rows(found / "data", column, dict.fromkeys(keys))
    return found


def manifests(folder: Path) -> dict[int, Manifest]:
    """Return what is published, by epoch height."""
    found = [Manifest.from_payload(parse_envelope(file.read_bytes(), "test").payload, "test") for file in folder.rglob("manifest.json")]
    return {manifest.epoch_height: manifest for manifest in found}


def options(home: Path, folder: Path) -> list[object]:
    """Return the options of every run."""
    return ["--node-home", home, "--to", folder / "bucket", "--work", folder / "work", "--signing-key", signing_key(), "--in-process"]


def test_produce_takes_the_shards_that_the_node_tracks(home: Path, tmp_path: Path) -> None:
    """The manifest says which are not published."""
    assert statecast("produce", *options(home, tmp_path)).code == 0
    manifest = manifests(tmp_path)[6]
    assert [shard.shard_id for shard in manifest.shards] == [2]
    assert {found.shard_id for found in manifest.missing if found.kind == "shard"} == {0, 1, 3}
    again = statecast("produce", *options(home, tmp_path), "--if-missing")
    assert (again.code, "nothing to do" in again.stdout) == (0, True)


def test_a_shard_that_is_named_and_not_tracked_is_refused(home: Path, tmp_path: Path) -> None:
    """Nothing is left out silently that was asked for."""
    outcome = statecast("produce", *options(home, tmp_path), "--shard-id", "0")
    assert (outcome.code, "no flat state of shard s0.v0" in outcome.stderr) == (10, True)


def test_a_shard_that_the_node_has_of_another_block_alone_is_not_left_out(home: Path, tmp_path: Path) -> None:
    """As while a node begins or ends to track one: the error tells how to go on without it, and with both the manifest grows."""
    both = copied(home, tmp_path)
    shard = OTHERS[0].to_bytes()
    with RocksDbReader(localnet_home() / "data", (FLAT_STORAGE_STATUS,)) as reader:
        (row,) = [row for rows in reader.scan(FLAT_STORAGE_STATUS, shard, None) for key, row in rows if key == shard]
    change_rows(both / "data", FLAT_STORAGE_STATUS, {shard: row[:1] + b"\7" * 32 + row[33:]})
    refused = statecast("produce", *options(both, tmp_path))
    assert (refused.code, "can't be reached" in refused.stderr, "--shard-id" in refused.stderr) == (10, True, True)
    assert statecast("produce", *options(both, tmp_path), "--shard-id", "2").code == 0
    assert [shard.shard_id for shard in manifests(tmp_path)[6].shards] == [2]
    assert statecast("produce", *options(localnet_home(), tmp_path), "--shard-id", "0", "--shard-id", "2").code == 0
    manifest = manifests(tmp_path)[6]
    assert [shard.shard_id for shard in manifest.shards] == [0, 2]
    assert (manifest.revision, manifest.missing_shard_ids) == (2, frozenset({1, 3}))


def test_backfill_takes_the_shards_that_the_node_tracks(home: Path, tmp_path: Path) -> None:
    """By a walk, as for a node that tracks all."""
    assert statecast("backfill", *options(home, tmp_path), "--epochs", "5").code == 0
    assert [shard.shard_id for shard in manifests(tmp_path)[5].shards] == [2]


@pytest.mark.parametrize(("status", "expected"), [(b"\0", False), (b"\1", False), (b"\2\0", True)], ids=["disabled", "empty", "creation"])
def test_flat_storage_in_the_making_counts(tmp_path: Path, status: bytes, expected: bool) -> None:
    """A producer that waits for it does not publish an epoch without the shard."""
    home = copied(localnet_home(), tmp_path)
    for data in (home / "data", snapshot_folder(home)):
        change_rows(data, FLAT_STORAGE_STATUS, {TRACKED.to_bytes(): status})
    assert has_flat_storage(read_node_home(home), TRACKED) is expected
