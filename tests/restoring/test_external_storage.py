"""config.json gets the stanza and keeps everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.restoring.into_node.external_storage import external_storage_stanza, write_config
from schemas.errors import InvalidInputError

OLD = {"rpc": {"addr": "127.0.0.1:3030"}, "state_sync": {"dump": None}, "state_sync_enabled": False}


def test_the_stanza_is_put_in_and_the_old_file_kept(tmp_path: Path) -> None:
    """Other fields stay, the mode too, and the copy has the bytes that were there."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(OLD))
    config.chmod(0o600)
    backup = write_config(config, Path("/data/parts"))
    written = json.loads(config.read_text())
    assert written["rpc"] == OLD["rpc"]
    assert written["state_sync_enabled"] is True
    assert written["state_sync"] == {"dump": None, **external_storage_stanza(Path("/data/parts"))["state_sync"]}
    assert config.stat().st_mode & 0o777 == 0o600
    assert backup is not None
    assert json.loads(backup.read_text()) == OLD
    assert sorted(tmp_path.iterdir()) == sorted([config, backup])


def test_what_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    """A second run leaves neither another file nor another copy."""
    config = tmp_path / "config.json"
    config.write_text("{}")
    write_config(config, Path("/data/parts"))
    before = config.stat().st_mtime_ns
    assert write_config(config, Path("/data/parts")) is None
    assert config.stat().st_mtime_ns == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_with_comments_is_left_alone(tmp_path: Path) -> None:
    """nearcore allows comments, which a rewrite would lose."""
    config = tmp_path / "config.json"
    config.write_text('{"a": 1} // mine')
    with pytest.raises(InvalidInputError, match="comments"):
        write_config(config, Path("/data/parts"))
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
