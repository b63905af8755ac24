"""A split shard's parent, from a node's database to the manifest and to `inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schemas.published.dsse import parse_envelope
from schemas.published.manifest import Manifest
from tests.support.commands import statecast
from tests.support.nodes import node_a


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publish one shard that was never split and one that was."""
    folder = tmp_path_factory.mktemp("lineage")
    outcome = statecast(
        *("produce", "--node-home", node_a(), "--context", node_a() / "context.json", "--shard-id", 5, "--shard-id", 90),
        *("--to", folder / "out", "--work", folder / "work", "--allow-unsigned", "--in-process", "--json"),
    )
    assert outcome.code == 0, outcome.stderr
    return folder / "out"


def test_the_manifest_names_the_parent(published: Path) -> None:
    """Of the split shard alone; no shard statement says anything of it."""
    (file,) = published.rglob("manifest.json")
    manifest = Manifest.from_payload(parse_envelope(file.read_bytes(), "test").payload, "test")
    assert {str(shard.shard_uid): shard.parent_shard_uid and str(shard.parent_shard_uid) for shard in manifest.shards} == {
        "s5.v3": None,
        "s90.v4": "s0.v3",
    }
    statements = list(published.rglob("statements/*.json"))
    assert len(statements) == 2
    for statement in statements:
        assert b"parent" not in parse_envelope(statement.read_bytes(), "test").payload


def test_inspect_shows_the_parent(published: Path) -> None:
    """For people and for programs."""
    (file,) = published.rglob("manifest.json")
    assert "shard s90.v4 was made out of s0.v3 by a resharding" in statecast("inspect", file.parent).stdout
    shards = statecast("inspect", file, "--json").document["shards"]
    assert [shard["parent_shard_uid"] for shard in shards] == [None, "s0.v3"]


def test_a_restored_dataset_keeps_the_parent(published: Path, tmp_path: Path) -> None:
    """So that what is produced from it says the same."""
    restored = statecast("restore", published, "--to", f"dataset://{tmp_path}", "--shard-id", 90, "--in-process")
    assert restored.code == 0, restored.stderr
    (summary,) = tmp_path.rglob("shard.json")
    assert '"parent_shard_uid": "s0.v3"' in json.dumps(json.loads(summary.read_text()))
