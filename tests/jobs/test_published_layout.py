"""The shard layout on its way: from a node or a dataset to the manifest, and from there to copies, `restore` and `inspect`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.nearcore.shard_layout import ShardLayout
from schemas.published.dsse import parse_envelope
from schemas.published.manifest import Manifest
from tests.support.commands import epoch_folder, statecast
from tests.support.nodes import localnet_home
from tests.support.published import produce_localnet, published_localnet, revise

LAYOUT = ShardLayout(kind="V2", version=0, shard_ids=(3, 1, 0, 2), boundary_accounts=("9f", "bb", "tt"))


def manifest_in(folder: Path) -> Manifest:
    """Return the one manifest below a folder."""
    (file,) = folder.rglob("manifest.json")
    return Manifest.from_payload(parse_envelope(file.read_bytes(), "test").payload, "test")


def test_inspect_shows_the_layout() -> None:
    """For people and for programs."""
    assert manifest_in(published_localnet()).shard_layout == LAYOUT
    assert "shard layout      V2, split at 9f, bb, tt" in statecast("inspect", published_localnet()).stdout
    assert statecast("inspect", published_localnet(), "--json").document["shard_layout"] == LAYOUT.to_json()


def test_a_fetched_epoch_proves_absence_too(tmp_path: Path) -> None:
    """The manifest is copied as it is."""
    fetched = statecast("fetch", epoch_folder(published_localnet()), "--into", tmp_path, "--insecure", "--json")
    assert fetched.code == 0, fetched.stderr
    assert manifest_in(tmp_path) == manifest_in(published_localnet())
    proven = statecast("prove", tmp_path, "--account", "nobody.near", "--json").document
    assert (proven["present"], proven["shard_chosen_by"], proven["shard_uid"]) == (False, "shard_layout", "s0.v0")


def test_a_published_epoch_gets_the_layout_by_a_repair(tmp_path: Path) -> None:
    """An epoch of before is whole without it; the next revision has it, and every object under the manifest is what it was."""
    bucket = tmp_path / "bucket"
    shutil.copytree(published_localnet(), bucket)
    before = revise(bucket, lambda manifest: replace(manifest, shard_layout=None))
    assert produce_localnet(bucket, "--if-missing", "--json").document["nothing_to_do"] == "published"
    repaired = produce_localnet(bucket, "--repair", "--json")
    assert repaired.code == 0, repaired.stderr
    after = manifest_in(bucket)
    assert (after.shard_layout, after.shards, after.revision) == (LAYOUT, before.shards, before.revision + 1)
    checked = statecast("check", bucket, "--json")
    assert checked.code == 0, checked.stderr


@pytest.mark.parametrize("way", ["export", "restore"])
def test_a_dataset_keeps_the_layout(tmp_path: Path, way: str) -> None:
    """So that what is produced from it has it, also of some of the shards: the others are named as missing."""
    dataset = f"dataset://{tmp_path / 'dataset'}"
    place = ("export", "--node-home", localnet_home()) if way == "export" else ("restore", published_localnet())
    made = statecast(*place, "--to", dataset, "--shard-id", 1, "--in-process")
    assert made.code == 0, made.stderr
    produced = statecast(
        *("produce", "--from", dataset, "--to", tmp_path / "out", "--work", tmp_path / "work", "--allow-unsigned", "--in-process", "--json")
    )
    assert produced.code == 0, produced.stderr
    assert produced.document["context"]["shard_layout"] == LAYOUT.to_json()
    manifest = manifest_in(tmp_path / "out")
    assert manifest.shard_layout == LAYOUT
    assert [found.shard_id for found in manifest.missing if found.kind == "shard"] == [0, 2, 3]


def test_a_context_file_tells_an_older_dataset_the_layout(tmp_path: Path) -> None:
    """A dataset that was exported before the layout was kept takes the user's; another one than its own is refused."""
    dataset = tmp_path / "dataset"
    exported = statecast(
        "export", "--node-home", localnet_home(), "--to", f"dataset://{dataset}", "--shard-id", 1, "--in-process", "--json"
    )
    assert exported.code == 0, exported.stderr
    context = tmp_path / "context.json"
    command = (
        "produce",
        "--from",
        f"dataset://{dataset}",
        "--context",
        context,
        "--to",
        tmp_path / "out",
        "--in-process",
        "--plan",
        "--json",
    )
    turned = {"V2": {**LAYOUT.to_json()["V2"], "shard_ids": [2, 1, 0, 3]}}
    context.write_text(json.dumps(exported.document["context"] | {"shard_layout": turned}))
    refused = statecast(*command)
    assert (refused.code, "different shard layouts" in refused.stderr) == (2, True)
    (summary,) = dataset.rglob("shard.json")
    document = json.loads(summary.read_text())
    assert document["context"].pop("shard_layout") == LAYOUT.to_json()
    summary.write_text(json.dumps(document))
    plan = statecast(*command)
    assert plan.code == 0, plan.stderr
    assert plan.document["context"]["shard_layout"] == turned
