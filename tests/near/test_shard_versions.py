"""Shard uids of a node's epochs where the node tracks few shards, or its chain has another shard layout than its genesis file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node.node_columns import CHUNK_EXTRA, FLAT_STORAGE_STATUS
from pipelines.near.node.rocksdb_reader import RocksDbReader
from schemas.errors import EpochNotReadyError
from schemas.ids import ShardUId
from tests.support.nodes import LOCALNET_EPOCH_ID, change_rows


def forget(home: Path, column: str, kept: bytes | None = None) -> None:
    """Remove the rows of a column but for those whose key ends in some bytes."""
    with RocksDbReader(home / "data", (column,)) as reader:
        keys = [key for step in reader.scan(column, b"", None) for key, _ in step if kept is None or not key.endswith(kept)]
    change_rows(home / "data", column, dict.fromkeys(keys))


def name_layout(home: Path, layout: object) -> None:
    """Let the genesis file name another shard layout, or none."""
    file = home / "genesis.json"
    document = json.loads(file.read_text())
    file.write_text(
        json.dumps({**document, "shard_layout": layout} if layout else {k: v for k, v in document.items() if k != "shard_layout"})
    )


def test_one_tracked_shard_tells_the_version_of_all(home: Path) -> None:
    """A layout has one version, so a node that tracks a few shards of a chain that was resharded knows the uids of the others too."""
    expected = epoch_context_from_node(home)
    name_layout(home, {"V0": {"num_shards": 1, "version": 7}})
    forget(home, CHUNK_EXTRA, ShardUId(version=0, shard_id=2).to_bytes())
    forget(home, FLAT_STORAGE_STATUS)
    assert epoch_context_from_node(home, LOCALNET_EPOCH_ID).shards == expected.shards


def test_an_epoch_configuration_tells_shard_uids(home: Path) -> None:
    """The newest of a protocol version that is not above the epoch's; those of mainnet and testnet are built into nearcore."""
    genesis = json.loads((home / "genesis.json").read_text())
    name_layout(home, {"V0": {"num_shards": 1, "version": 7}})
    for column in (CHUNK_EXTRA, FLAT_STORAGE_STATUS):
        forget(home, column)
    (home / "epoch_configs").mkdir()
    for version, layout_version in ((70, 1), (74, 3), (75, 4)):
        layout = {"V2": {**genesis["shard_layout"]["V2"], "version": layout_version}}
        (home / "epoch_configs" / f"{version}.json").write_text(json.dumps({"epoch_length": 40, "shard_layout": layout}))
    context = epoch_context_from_node(home, LOCALNET_EPOCH_ID)
    assert [str(shard.shard_uid) for shard in context.shards] == ["s0.v3", "s1.v3", "s2.v3", "s3.v3"]
    (home / "genesis.json").write_text(json.dumps({**genesis, "chain_id": "testnet"}))
    assert {shard.shard_uid.version for shard in epoch_context_from_node(home, LOCALNET_EPOCH_ID).shards} == {0}


def test_nothing_that_tells_the_version_is_said(home: Path) -> None:
    """Without a layout in the genesis file nearcore has one shard, which does not fit the block's four."""
    name_layout(home, None)
    for column in (CHUNK_EXTRA, FLAT_STORAGE_STATUS):
        forget(home, column)
    with pytest.raises(EpochNotReadyError, match=r"version of shards \[0, 1, 2, 3\] can't be told"):
        epoch_context_from_node(home, LOCALNET_EPOCH_ID)
