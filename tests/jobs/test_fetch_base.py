"""``statecast fetch --base``: parts rebuilt of an earlier epoch's and deltas, where that is fewer bytes; whole parts for the rest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.fetching.fetch_folder import WORK_FOLDER
from pipelines.producing.publish.key_file import load_signer
from pipelines.producing.publish.signing import sign_payload
from schemas.published.dsse import parse_envelope
from schemas.published.manifest import Manifest
from schemas.published.manifest_delta import ManifestDelta
from tests.support.commands import Outcome, kill_when, start_process, statecast
from tests.support.published import public_key, signing_key
from tests.support.published_ladder import LADDER_SHARDS, published_ladder


def fetch(into: Path, *options: object, source: Path | None = None) -> Outcome:
    """Fetch an epoch in this process."""
    return statecast(
        "fetch",
        source or published_ladder(),
        "--into",
        into,
        "--trust-key",
        public_key(),
        "--verify-workers",
        1,
        "--no-lease",
        "--json",
        *options,
    )


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with epoch 4 fetched. It must not be changed."""
    folder = tmp_path_factory.mktemp("older")
    assert fetch(folder, "--epoch", 4).code == 0
    return folder


def parts_in(folder: Path, height: int) -> dict[str, bytes]:
    """Return an epoch's parts by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob(f"*/epoch_height={height}/*/shard_id=*/*")}


def moved(outcome: Outcome) -> int:
    """Return the bytes that were received for parts and deltas."""
    return sum(source["bytes_received"] for source in outcome.document["sources"])


def test_a_later_epoch_comes_by_its_deltas(older: Path, tmp_path: Path) -> None:
    """The published objects byte for byte, for a part of their bytes; a rerun finds them right."""
    whole = fetch(tmp_path / "whole", "--epoch", 6)
    outcome = fetch(tmp_path / "into", "--epoch", 6, "--base", older)
    assert outcome.code == 0, outcome.stderr
    assert parts_in(tmp_path / "into", 6) == parts_in(published_ladder(), 6)
    for shard in outcome.document["shards"]:
        assert (shard["parts_fetched"], shard["parts_rebuilt"]) == (0, 1)
        assert [(step["base_epoch_height"], step["epoch_height"]) for step in shard["rebuilt_from"]["steps"]] == [(4, 6)]
    assert moved(outcome) < moved(whole) / 4
    again = fetch(tmp_path / "into", "--epoch", 6, "--base", older)
    assert [shard["parts_reused"] for shard in again.document["shards"]] == [1] * LADDER_SHARDS
    assert not [path for path in (tmp_path / "into" / WORK_FOLDER).rglob("*") if path.is_file() and path.suffix == ".arrow"]


def test_a_plan_says_which_way_is_taken_and_writes_nothing(older: Path, tmp_path: Path) -> None:
    """By bytes: of deltas, and of whole parts without a base."""
    outcome = fetch(tmp_path / "into", "--epoch", 6, "--base", older, "--plan")
    assert outcome.code == 0, outcome.stderr
    assert not (tmp_path / "into").exists()
    for shard in outcome.document["shards"]:
        assert shard["bytes_to_fetch"] == shard["rebuilt_from"]["bytes"] < shard["size"]
    assert all(source["parts"] == 0 for source in outcome.document["sources"])
    whole = fetch(tmp_path / "into", "--epoch", 6, "--plan")
    assert all(shard["bytes_to_fetch"] == shard["size"] and shard["rebuilt_from"] is None for shard in whole.document["shards"])


def test_a_ladder_is_climbed_where_no_delta_leads_there_at_once(older: Path, tmp_path: Path) -> None:
    """The delta of one shard from epoch 4 is gone from the manifest: two steps are taken for it, by way of an epoch that is not here."""
    source = _without(published_ladder(), tmp_path / "bucket", lambda delta: delta.base_epoch_height == 4 and delta.shard_id == 1)
    outcome = fetch(tmp_path / "into", "--epoch", 6, "--base", older, source=source)
    assert outcome.code == 0, outcome.stderr
    assert [len(shard["rebuilt_from"]["steps"]) for shard in outcome.document["shards"]] == [1, 2, 1, 1]
    assert parts_in(tmp_path / "into", 6) == parts_in(published_ladder(), 6)


def _without(bucket: Path, copy: Path, left_out: Callable[[ManifestDelta], bool]) -> Path:
    """Copy the published epochs with some deltas of epoch 6 not listed."""
    shutil.copytree(bucket, copy)
    (file,) = copy.glob("*/epoch_height=6/*/manifest.json")
    manifest = Manifest.from_payload(parse_envelope(file.read_bytes(), "test").payload, "test")
    manifest = replace(manifest, deltas=tuple(delta for delta in manifest.deltas if not left_out(delta)))
    file.write_bytes(sign_payload(manifest.to_payload(), [load_signer(signing_key())]).to_bytes())
    return copy


@pytest.mark.parametrize("damage", ["an object is gone", "an object is cut", "the statement is gone", "the statement is another's"])
def test_what_can_not_be_rebuilt_is_fetched_whole(older: Path, tmp_path: Path, damage: str) -> None:
    """One shard's delta is damaged at the source: its parts come whole, the others are rebuilt, and the object is named."""
    source = shutil.copytree(published_ladder(), tmp_path / "bucket")
    (statement,) = [path for path in source.glob("*/epoch_height=6/*/deltas/*/statements/shard_id=2.json") if _from(path, 4)]
    (content,) = statement.parents[1].glob("shard_id=2/*")
    named = content if "object" in damage else statement
    if damage.endswith("gone"):
        named.unlink()
    elif damage.endswith("cut"):
        named.write_bytes(named.read_bytes()[:-7])
    else:
        named.write_bytes(statement.with_name("shard_id=3.json").read_bytes())
    outcome = fetch(tmp_path / "into", "--epoch", 6, "--base", older, source=source)
    assert outcome.code == 0, outcome.stderr
    assert [shard["parts_rebuilt"] for shard in outcome.document["shards"]] == [1, 1, 0, 1]
    assert parts_in(tmp_path / "into", 6) == parts_in(published_ladder(), 6)
    (warning,) = [text for text in outcome.document["warnings"] if "shard 2" in text]
    assert named.name in warning


def _from(path: Path, height: int) -> bool:
    (base,) = published_ladder().glob(f"*/epoch_height={height}/*")
    return f"base_epoch_id={base.name.removeprefix('epoch_id=')}" in str(path)


def test_a_base_of_another_chain_or_state_is_told(older: Path, tmp_path: Path) -> None:
    """Nothing there is an error; what does not fit is a warning, and whole parts are fetched."""
    (tmp_path / "empty").mkdir()
    outcome = fetch(tmp_path / "into", "--epoch", 6, "--base", tmp_path / "empty")
    assert outcome.code == 2
    assert str(tmp_path / "empty") in outcome.error_line
    newer = tmp_path / "newer"
    assert fetch(newer, "--epoch", 6).code == 0
    outcome = fetch(tmp_path / "into", "--epoch", 5, "--base", newer)
    assert outcome.code == 0, outcome.stderr
    assert any("lead from the base (epoch 6)" in text for text in outcome.document["warnings"])
    assert parts_in(tmp_path / "into", 5) == parts_in(published_ladder(), 5)


def test_a_damaged_base_costs_the_parts_that_need_it(older: Path, tmp_path: Path) -> None:
    """A part of the base is cut: that shard comes whole."""
    base = shutil.copytree(older, tmp_path / "base")
    (part,) = base.glob("*/epoch_height=4/*/shard_id=0/*")
    part.write_bytes(part.read_bytes()[:-1])
    outcome = fetch(tmp_path / "into", "--epoch", 6, "--base", base)
    assert outcome.code == 0, outcome.stderr
    assert [shard["parts_rebuilt"] for shard in outcome.document["shards"]] == [0, 1, 1, 1]
    assert parts_in(tmp_path / "into", 6) == parts_in(published_ladder(), 6)


@pytest.mark.slow
def test_a_killed_fetch_goes_on_and_ends_right(older: Path, tmp_path: Path) -> None:
    """Killed once its deltas are there, once parts are rebuilt, once some have landed: nothing wrong has a final name, and a rerun does the rest."""
    into = tmp_path / "into"
    moments = ("scratch/deltas/**/*.arrow", "scratch/work/**/interior-*", "scratch/rebuilt/**/state_part_*")
    for pattern in moments:
        process = start_process(
            *("fetch", published_ladder(), "--into", into, "--trust-key", public_key(), "--verify-workers", 1, "--no-lease"),
            *("--epoch", 6, "--base", older),
        )
        kill_when(process, lambda pattern=pattern: any((into / WORK_FOLDER).glob(pattern)))  # type: ignore[misc]
        there = parts_in(into, 6)
        assert there.items() <= parts_in(published_ladder(), 6).items()
    outcome = fetch(into, "--epoch", 6, "--base", older)
    assert outcome.code == 0, outcome.stderr
    assert parts_in(into, 6) == parts_in(published_ladder(), 6)
