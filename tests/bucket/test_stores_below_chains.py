"""Stores and datasets that lie below a folder that is named like a chain's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.bucket.locate_epoch import locate_epoch
from pipelines.dataset.arrow_dataset import list_shards
from pipelines.fetching.epoch_location import parse_epoch_url
from pipelines.restoring.part_folder import find_epoch
from pipelines.stores.read_only import check_readable_again
from schemas.errors import InvalidInputError
from tests.support.commands import statecast
from tests.support.exported import exported_localnet
from tests.support.stored_epochs import CHAIN_ID, epoch_layout, publish_epoch


def test_an_epoch_below_another_chains_folder_is_found(tmp_path: Path) -> None:
    """By the bucket, by its chain and by its own folder, by all that read."""
    root, layout = tmp_path / "chain_id=mainnet" / "copies", epoch_layout(3)
    publish_epoch(str(root), 3)
    for url in (f"{root}", f"{root}/chain_id={CHAIN_ID}", f"{root}/{layout.folder}"):
        assert locate_epoch(url) == (str(root), layout)
        assert find_epoch(url) == (str(root), layout)
        assert parse_epoch_url(url).root == str(root)
    assert parse_epoch_url(f"{root}/{layout.folder}").layout == layout
    outcome = statecast("inspect", f"{root}/{layout.manifest}", "--json")
    assert outcome.code == 0, outcome.stderr


def test_a_dataset_below_a_chains_folder_is_read(tmp_path: Path) -> None:
    """Whole, and by its own chain."""
    root = tmp_path / "chain_id=mainnet" / "state"
    shutil.copytree(exported_localnet(), root)
    assert {shard.url for shard in list_shards(str(root))} == {str(root)}


@pytest.mark.parametrize("name", ["chain_id=mainnet", "chain_id=mainnet/epoch_height=3", "chain_id=mainnet/epoch_height=3/epoch_id=x/"])
def test_what_would_be_read_as_a_chain_is_not_written_as_a_store(name: str, tmp_path: Path) -> None:
    """The URL of a store is refused before anything is written there."""
    with pytest.raises(InvalidInputError, match="would be read as one"):
        check_readable_again(f"gs://bucket/{name}", "--to")
    outcome = statecast("fetch", "file:///nowhere", "--chain-id", "c", "--insecure", "--into", tmp_path / name)
    assert outcome.code == 2 and "--into" in outcome.stderr
    assert not any(tmp_path.iterdir())
