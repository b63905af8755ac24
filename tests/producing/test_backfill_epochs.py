"""Which epochs a backfill finds, in a node's hot and cold store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.near.epoch.epoch_context_finder import EpochContextFinder
from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node.node_columns import (
    BLOCK,
    BLOCK_HEADER,
    BLOCK_HEIGHT,
    BLOCK_MISC,
    CHUNK_EXTRA,
    EPOCH_INFO,
    FLAT_STORAGE_STATUS,
    STATE_SNAPSHOT_KEY,
    STATE_SYNC_HASHES,
)
from pipelines.near.node.rocksdb_reader import RocksDbReader, Row
from pipelines.producing.backfill.backfill_epochs import EPOCHS_MAX, find_node_epochs, parse_epoch_range
from schemas.errors import EpochNotReadyError, InvalidInputError, SourceError
from schemas.ids import ShardUId
from tests.support.commands import statecast
from tests.support.nodes import change_rows, copied, localnet_home, new_database


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[RocksDbReader]:
    """The readers of all scans of EpochInfo that begin from now on."""
    begun: list[RocksDbReader] = []
    scan = RocksDbReader.scan

    def note(reader: RocksDbReader, column: str, begin: bytes, end: bytes | None) -> Iterator[list[Row]]:
        if column == EPOCH_INFO:
            begun.append(reader)
        return scan(reader, column, begin, end)

    monkeypatch.setattr(RocksDbReader, "scan", note)
    return begun


@pytest.mark.parametrize(("text", "heights"), [("7", range(7, 8)), ("2900..2950", range(2900, 2951)), (" 3..3 ", range(3, 4))])
def test_ranges_include_both_ends(text: str, heights: range) -> None:
    """Or are one height."""
    assert parse_epoch_range(text) == heights


@pytest.mark.parametrize("text", ["", "a..b", "5..4", "1..2..3", "-1..3", "..3", "3..", f"0..{EPOCHS_MAX}", "1...3"])
def test_what_is_no_range_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(InvalidInputError):
        parse_epoch_range(text)


def test_epochs_that_can_be_had_are_found() -> None:
    """The others are listed with what is wrong, without stopping the search."""
    found = find_node_epochs(localnet_home(), range(4, 9), (2, 0))
    assert [epoch.epoch_height for epoch in found] == [4, 5, 6, 7, 8]
    for epoch in found[:3]:
        assert epoch.context is not None
        assert [shard.shard_id for shard in epoch.context.shards] == [0, 2]
        assert sorted(epoch.epoch_shard_ids) == [0, 1, 2, 3]
    assert [type(epoch.failure) for epoch in found[3:]] == [EpochNotReadyError] * 2


@pytest.mark.parametrize("heights", [range(4, 5), range(2, 9)])
def test_a_range_lists_the_nodes_epochs_once(listings: list[RocksDbReader], heights: range) -> None:
    """However long it is: an archival node has thousands of rows, each to be decoded."""
    assert len(find_node_epochs(localnet_home(), heights, ())) == len(heights)
    assert len(listings) == 1


def test_a_range_with_endpoints_lists_the_nodes_epochs_once_too(listings: list[RocksDbReader]) -> None:
    """The node's own part in it is read from what is open."""
    left_out: list[SourceError] = []
    found = find_node_epochs(localnet_home(), range(4, 7), (), EpochContextFinder(None, (), left_out.append).find_in_open_node)
    assert found == find_node_epochs(localnet_home(), range(4, 7), ())
    assert len(listings) == 2


def test_an_inspection_lists_the_nodes_epochs_once(listings: list[RocksDbReader]) -> None:
    """Though it looks at the newest of them one by one."""
    assert statecast("inspect", localnet_home(), "--json").code == 0
    assert len(listings) == 1


def test_a_node_that_is_opened_again_is_seen_as_it_is_then(home: Path) -> None:
    """Nothing is remembered beyond the range that it was opened for."""
    context = epoch_context_from_node(home, "6")
    # Nothing settles the sync block then: it is not final yet.
    change_rows(home / "data", BLOCK_MISC, {STATE_SNAPSHOT_KEY: None})
    change_rows(home / "data", STATE_SYNC_HASHES, {context.epoch_id: None})
    (hidden,) = find_node_epochs(home, range(6, 7), ())
    change_rows(home / "data", STATE_SYNC_HASHES, {context.epoch_id: context.sync_hash})
    (seen,) = find_node_epochs(home, range(6, 7), ())
    assert (hidden.context, seen.context) == (None, context)


def test_an_epoch_without_a_wanted_shard_fails_alone() -> None:
    """As happens across a resharding."""
    (epoch,) = find_node_epochs(localnet_home(), range(4, 5), (17,))
    assert isinstance(epoch.failure, InvalidInputError)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy of the real node's home."""
    return copied(localnet_home(), tmp_path)


def test_blocks_of_a_cold_store_count(home: Path) -> None:
    """An archival node's hot store has no old blocks; its cold store has."""
    expected = epoch_context_from_node(localnet_home(), "4")
    columns = (BLOCK, BLOCK_HEADER, BLOCK_HEIGHT, CHUNK_EXTRA)
    with RocksDbReader(home / "data", columns) as reader:
        rows = {column: dict(row for step in reader.scan(column, b"", None) for row in step) for column in columns}
    new_database(home / "cold", rows)
    change_rows(home / "data", BLOCK, dict.fromkeys(rows[BLOCK]))
    change_rows(home / "data", BLOCK_HEADER, dict.fromkeys(rows[BLOCK_HEADER]))
    change_rows(home / "data", CHUNK_EXTRA, dict.fromkeys(rows[CHUNK_EXTRA]))
    with pytest.raises(EpochNotReadyError):
        epoch_context_from_node(home, "4")
    config = json.loads((home / "config.json").read_text())
    (home / "config.json").write_text(json.dumps({**config, "cold_store": {"path": "cold"}}))
    assert epoch_context_from_node(home, "4") == expected


def test_the_shard_uid_of_then_counts(home: Path) -> None:
    """After a new layout flat storage names another version; what the node kept of the old block names that of then."""
    expected = epoch_context_from_node(localnet_home(), "4")
    with RocksDbReader(home / "data", (FLAT_STORAGE_STATUS,)) as reader:
        rows = dict(row for step in reader.scan(FLAT_STORAGE_STATUS, b"", None) for row in step)
    renamed = {ShardUId(1, ShardUId.from_bytes(key).shard_id).to_bytes(): row for key, row in rows.items()}
    change_rows(home / "data", FLAT_STORAGE_STATUS, {**dict.fromkeys(rows), **renamed})
    assert epoch_context_from_node(home, "4") == expected
