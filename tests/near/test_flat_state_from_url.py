"""Sources by URL, and where a node's home says that things are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.near.files.genesis_records import GenesisSource
from pipelines.near.files.records_file import RecordsFileSource
from pipelines.near.flat_state_from_url import source_from_url
from pipelines.near.node.node_home import read_node_home
from schemas.errors import InvalidInputError, SourceError
from tests.support.nodes import localnet_home


def test_a_records_url_opens_the_file_which_says_of_no_chain(tmp_path: Path) -> None:
    """Also with characters that a URL must escape."""
    path = tmp_path / "all my records.jsonl"
    path.write_text('{"key": "00", "value": ""}\n')
    source, context = source_from_url(path.as_uri().replace("file://", "records://"))
    assert source == RecordsFileSource(str(path))
    assert context is None


def test_a_genesis_url_takes_the_records_from_the_file_or_beside_it(tmp_path: Path) -> None:
    """An option names them, or the config.json of the same home."""
    source, context = source_from_url(f"genesis://{localnet_home()}/genesis.json")
    assert source == GenesisSource(f"{localnet_home()}/genesis.json")
    assert context is not None and len(context.shards) == 4
    genesis = tmp_path / "genesis.json"
    genesis.write_text(json.dumps({"chain_id": "test", "protocol_version": 74}))
    given, _ = source_from_url(f"genesis://{genesis}?records=/elsewhere/records.json")
    assert given == GenesisSource(str(genesis), "/elsewhere/records.json")
    (tmp_path / "data").mkdir()
    (tmp_path / "config.json").write_text('{"genesis_file": "genesis.json", "genesis_records_file": "records.json"}')
    beside, _ = source_from_url(f"genesis://{genesis}")
    assert beside == GenesisSource(str(genesis), str(tmp_path / "records.json"))


@pytest.mark.parametrize(
    "url", ["", "records://", "file:///etc/hosts", "genesis", "records:///a?x=1", "genesis:///a#b", "records:///etc/hosts?records=b"]
)
def test_another_url_is_refused(url: str) -> None:
    """By name, with the forms that are known."""
    with pytest.raises(InvalidInputError):
        source_from_url(url)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Before anything is read."""
    for scheme in ("genesis", "records"):
        with pytest.raises(SourceError, match="nothing"):
            source_from_url(f"{scheme}://{tmp_path}/nothing")


def test_config_json_says_where_the_stores_are(tmp_path: Path) -> None:
    """Relative to the home, or absolute; with comments."""
    (tmp_path / "hot").mkdir()
    (tmp_path / "config.json").write_text(
        '{ // a comment\n "store": {"path": "hot", "url": "http://x"}, /* more */ "cold_store": {"path": "/cold"}, "genesis_file": "g.json"}'
    )
    home = read_node_home(tmp_path)
    assert (home.data, home.cold_data, home.genesis_file) == (tmp_path / "hot", Path("/cold"), tmp_path / "g.json")
    assert home.snapshots == tmp_path / "hot" / "state_snapshot"


@pytest.mark.parametrize("cold_store", ["{}", '{"path": null, "max_open_files": 10000}'])
def test_a_cold_store_without_a_path_is_where_nearcore_puts_it(tmp_path: Path, cold_store: str) -> None:
    """As with the hot store, the path may be left out; a node without a cold store has null."""
    (tmp_path / "data").mkdir()
    (tmp_path / "config.json").write_text(f'{{"cold_store": {cold_store}}}')
    assert read_node_home(tmp_path).cold_data == tmp_path / "cold-data"
    (tmp_path / "config.json").write_text('{"cold_store": null}')
    assert read_node_home(tmp_path).cold_data is None


@pytest.mark.parametrize("config", ["[]", "{", '{"store": 5}', '{"store": {"path": 5}}', '{"store": {"path": "nowhere"}}'])
def test_a_config_that_can_not_be_used_is_named(tmp_path: Path, config: str) -> None:
    """Nothing is guessed instead."""
    (tmp_path / "data").mkdir()
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(SourceError, match=r"config\.json|nowhere"):
        read_node_home(tmp_path)
