"""``statecast backfill``: past epochs of the real node as neard dumped them, whatever fails or is killed on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_records import ExportSettings
from pipelines.execution.stage_runner import StageRunner
from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node.flat_state_source import FlatStateSource
from pipelines.near.node.node_columns import STATE, STATE_CHANGES
from pipelines.near.node.rocksdb_reader import RocksDbReader
from schemas.errors import EXIT_CODES
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.state_changes import decode_last_change
from tests.support.commands import Outcome, kill_when, lasting_objects_in, start_process, statecast
from tests.support.nodes import change_rows, copied, localnet, localnet_home
from tests.support.published import produce, public_key, signing_key

HEIGHTS = (4, 5, 6)
WAIT_S = 60.0
"""Longer than a lane takes to hear that the run is being stopped."""
SHARDS = ("s0.v0", "s1.v0", "s2.v0", "s3.v0")


def arguments(to: Path, *options: object, home: Path | None = None, epochs: str = "4..6") -> list[object]:
    """Return a backfill's command line."""
    return [
        *("backfill", "--node-home", home or localnet_home(), "--epochs", epochs, "--to", to, "--signing-key", signing_key()),
        *("--work", f"file://{to}-work", "--in-process", "--json", *options),
    ]


def backfill(to: Path, *options: object, home: Path | None = None, epochs: str = "4..6") -> Outcome:
    """Run a backfill in this process."""
    return statecast(*arguments(to, *options, home=home, epochs=epochs))


def ways(outcome: Outcome, height: int) -> list[str]:
    """Return by which ways an epoch's shards were had."""
    return [step["way"] for step in outcome.document["steps"] if step["epoch_height"] == height]


def assert_as_dumped(to: Path, heights: tuple[int, ...] = HEIGHTS) -> None:
    """Every part of these epochs has the bytes that neard's own dumper wrote."""
    for height in heights:
        (dumped,) = (localnet() / "dump").glob(f"*/epoch_height={height}/*")
        parts = [part for part in dumped.glob("shard_id=*/*") if part.is_file()]
        assert len(parts) == len(SHARDS)
        for part in parts:
            (made,) = to.glob(f"*/epoch_height={height}/{dumped.name}/{part.relative_to(dumped)}")
            assert made.read_bytes() == part.read_bytes()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["state walk", "roll forward", "roll forward"]),
        (("--no-roll-forward",), ["state walk", "state walk", "flat state"]),
        (("--no-roll-forward", "--state-walk", "always"), ["state walk", "state walk", "state walk"]),
        (("--parallel", "3"), ["state walk", "state walk", "flat state"]),
    ],
    ids=["one from the other", "each alone", "newest walked too", "side by side"],
)
def test_past_epochs_are_neards(tmp_path: Path, options: tuple[str, ...], expected: list[str]) -> None:
    """All shards of three epochs, byte for byte, by every way; each a published epoch that a check finds right."""
    outcome = backfill(tmp_path / "out", *options)
    assert outcome.code == 0, outcome.stderr
    for height, way in zip(HEIGHTS, expected, strict=True):
        assert ways(outcome, height) == [way] * len(SHARDS)
    assert_as_dumped(tmp_path / "out")
    for height in HEIGHTS:
        (manifest,) = (tmp_path / "out").glob(f"*/epoch_height={height}/*/manifest.json")
        checked = statecast("check", manifest.parent, "--trust-key", public_key(), "--in-process")
        assert checked.code == 0, checked.stderr


@pytest.mark.parametrize("height", [4, 5])
def test_produce_walks_an_older_epoch(tmp_path: Path, height: int) -> None:
    """Without being told to, and says so."""
    outcome = produce(tmp_path / "out", "--node-home", localnet_home(), "--epoch", height, "--json")
    assert outcome.code == 0, outcome.stderr
    assert "by a walk over its State column" in outcome.document["source"]
    assert "by a walk over its State column" in outcome.stderr
    assert_as_dumped(tmp_path / "out", (height,))


def test_nothing_is_left_in_the_work_folder_but_the_status(tmp_path: Path) -> None:
    """Datasets go when no later epoch needs them; with --dataset they stay."""
    assert backfill(tmp_path / "out").code == 0
    left = [path for path in (tmp_path / "out-work").rglob("*") if path.is_file() and ".statecast-tmp" not in path.parts]
    assert [path.name for path in left] == ["backfill.json"]
    assert len(json.loads(left[0].read_text())["steps"]) == len(HEIGHTS) * len(SHARDS)
    assert backfill(tmp_path / "other", "--dataset", tmp_path / "kept").code == 0
    assert len(list((tmp_path / "kept").rglob("shard.json"))) == len(HEIGHTS) * len(SHARDS)


def test_a_rerun_has_nothing_to_do(tmp_path: Path) -> None:
    """It changes no object, and its table still tells what the first run did."""
    first = backfill(tmp_path / "out")
    before = lasting_objects_in(tmp_path / "out")
    again = backfill(tmp_path / "out")
    assert again.code == 0
    assert again.document == first.document
    assert lasting_objects_in(tmp_path / "out") == before


def test_an_older_dataset_is_begun_from(tmp_path: Path) -> None:
    """The first epoch is rolled forward from an export, which stays as it is."""
    export = statecast("export", "--node-home", localnet_home(), "--epoch", "3", "--to", f"dataset://{tmp_path}/older", "--in-process")
    assert export.code == 0, export.stderr
    before = lasting_objects_in(tmp_path / "older")
    outcome = backfill(tmp_path / "out", "--from", f"dataset://{tmp_path}/older", epochs="5..6")
    assert outcome.code == 0, outcome.stderr
    assert ways(outcome, 5) == ways(outcome, 6) == ["roll forward"] * len(SHARDS)
    assert_as_dumped(tmp_path / "out", (5, 6))
    assert lasting_objects_in(tmp_path / "older") == before


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), Path.unlink], ids=["changed", "gone"])
def test_a_dataset_whose_state_header_is_damaged_is_made_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    """It is as little whole as one that lacks a file; the others are used as they are."""
    assert backfill(tmp_path / "one", "--dataset", tmp_path / "kept", epochs="6..6").code == 0
    (header,) = (tmp_path / "kept").glob("*/*/*/shard_uid=s1.v0/state_header")
    right = header.read_bytes()
    damage(header)
    outcome = backfill(tmp_path / "other", "--dataset", tmp_path / "kept", epochs="6..6")
    assert outcome.code == 0, outcome.stderr
    assert ways(outcome, 6) == ["exported before", "flat state", "exported before", "exported before"]
    assert header.read_bytes() == right


def test_only_some_shards(tmp_path: Path) -> None:
    """As with produce, another run adds the others."""
    outcome = backfill(tmp_path / "out", "--shard-id", 1, "--shard-id", 2)
    assert outcome.code == 0, outcome.stderr
    assert {step["shard"] for step in outcome.document["steps"]} == {"s1.v0", "s2.v0"}
    assert ways(outcome, 5) == ["roll forward"] * 2
    assert backfill(tmp_path / "out").code == 0
    assert_as_dumped(tmp_path / "out")


# What fails


def test_a_failed_epoch_leaves_the_others_alone(tmp_path: Path) -> None:
    """Epoch 5's root of one shard is gone: that epoch is listed, the others are done, and the same command does the rest."""
    home = copied(localnet_home(), tmp_path)
    shard = epoch_context_from_node(home, "5").shards[1]
    assert shard.state_root is not None
    key = shard.shard_uid.to_bytes() + shard.state_root
    with RocksDbReader(home / "data", (STATE,)) as reader:
        row = reader.get(STATE, key)
    change_rows(home / "data", STATE, {key: None})
    outcome = backfill(tmp_path / "out", "--no-roll-forward", home=home)
    assert outcome.code == 3
    assert outcome.code in EXIT_CODES
    assert outcome.document["failed_epochs"] == [5]
    assert_as_dumped(tmp_path / "out", (4, 6))
    assert not list((tmp_path / "out").glob("*/epoch_height=5/*/manifest.json"))
    mended = copied(localnet_home(), tmp_path / "mended")
    assert row is not None
    again = backfill(tmp_path / "out", "--no-roll-forward", home=mended)
    assert again.code == 0, again.stderr
    assert_as_dumped(tmp_path / "out")


def test_an_epoch_that_has_not_come_is_listed(tmp_path: Path) -> None:
    """Its error says why, in the table and in JSON."""
    outcome = backfill(tmp_path / "out", epochs="6..8")
    assert outcome.code == 3
    assert outcome.document["failed_epochs"] == [7, 8]
    failed = [step for step in outcome.document["steps"] if step["epoch_height"] == 7]
    assert failed[0]["error"]["kind"] == "epoch_not_ready"
    arguments_shown = [argument for argument in arguments(tmp_path / "out", epochs="6..8") if argument != "--json"]
    shown = statecast(*arguments_shown)
    assert (shown.code, "epoch 7" in shown.stdout) == (3, True)


def state_changes_rows(home: Path) -> dict[bytes, bytes]:
    """Return all rows of StateChanges."""
    with RocksDbReader(home / "data", (STATE_CHANGES,)) as reader:
        return dict(row for rows in reader.scan(STATE_CHANGES, b"", None) for row in rows)


def test_without_state_changes_the_tries_are_compared(tmp_path: Path) -> None:
    """The epochs are still made one from the other, and it is said."""
    home = copied(localnet_home(), tmp_path)
    change_rows(home / "data", STATE_CHANGES, dict.fromkeys(state_changes_rows(home)))
    outcome = backfill(tmp_path / "out", home=home)
    assert outcome.code == 0, outcome.stderr
    assert ways(outcome, 6) == ["roll forward"] * len(SHARDS)
    assert "comparing the tries instead" in outcome.stderr
    assert_as_dumped(tmp_path / "out")


def test_wrong_state_changes_are_found_and_done_without(tmp_path: Path) -> None:
    """A value that no block ever wrote: the root is not the chain's, and the epoch is read from the node again."""
    home = copied(localnet_home(), tmp_path)
    rows = state_changes_rows(home)
    wrong = {key: row[:-1] + bytes([row[-1] ^ 1]) for key, row in rows.items() if decode_last_change(row, key[32:], "row")}
    assert wrong
    change_rows(home / "data", STATE_CHANGES, wrong)
    outcome = backfill(tmp_path / "out", home=home, epochs="4..5")
    assert outcome.code == 0, outcome.stderr
    assert "reading the epoch from the node again" in outcome.stderr
    assert "state walk" in ways(outcome, 5)
    assert_as_dumped(tmp_path / "out", (4, 5))


def test_a_damaged_dataset_of_an_earlier_run_is_made_again(tmp_path: Path) -> None:
    """What a killed run left is believed only as far as it hashes to the state root."""
    kept = tmp_path / "kept"
    assert backfill(tmp_path / "first", "--dataset", kept, epochs="5").code == 0
    (file,) = kept.glob("**/shard_uid=s0.v0/flat_state/*.arrow")
    data = bytearray(file.read_bytes())
    # In the middle of a value: the file stays an Arrow file of the same size.
    (summary,) = kept.glob("**/shard_uid=s0.v0/shard.json")
    value = values_in(file)[0]
    data[data.index(value)] ^= 1
    file.write_bytes(data)
    document = json.loads(summary.read_text())
    summary.write_text(json.dumps({**document, "verified_state_root": None}))
    outcome = backfill(tmp_path / "out", "--dataset", kept, epochs="5")
    assert outcome.code == 0, outcome.stderr
    assert_as_dumped(tmp_path / "out", (5,))


def values_in(file: Path) -> list[bytes]:
    """Return the values of a dataset's file."""
    with pa.memory_map(str(file)) as source:
        return [value for value in pa.ipc.open_file(source).read_all()["value"].to_pylist() if value]


def test_an_unexpected_failure_ends_the_other_lanes_at_their_next_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They begin nothing more, and give back their claims."""

    def fail_or_wait(runner: StageRunner, source: FlatStateSource, context: EpochContext, settings: ExportSettings) -> object:
        if context.epoch_height == 4:
            raise KeyError("a fault of ours")
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            runner.keep_going()
        return export_epoch(runner, source, context, settings)

    monkeypatch.setattr("pipelines.producing.backfill.backfill_node.export_epoch", fail_or_wait)
    outcome = backfill(tmp_path / "out", "--parallel", 2, epochs="4..5")
    assert (outcome.code, outcome.document["error"]["message"]) == (1, "KeyError: 'a fault of ours'")
    assert [path.name for path in (tmp_path / "out").rglob("*.json")] == []


def test_bad_options_are_refused(tmp_path: Path) -> None:
    """Before anything is read."""
    assert backfill(tmp_path / "out", epochs="6..4").code == 2
    assert backfill(tmp_path / "out", "--from", "genesis:///g.json").code == 2
    assert backfill(tmp_path / "out", "--shard-id", 99).code == 3
    assert not list(tmp_path.glob("out/chain_id=*"))


# The plan


def test_the_plan_says_what_would_be_done(tmp_path: Path) -> None:
    """Without writing anything; and what is done already needs nothing."""
    outcome = backfill(tmp_path / "out", "--plan", epochs="4..7")
    assert outcome.code == 0, outcome.stderr
    document = outcome.document
    assert [step["way"] for step in document["steps"]] == ["state walk"] * 4 + ["roll forward"] * 8 + [None]
    assert document["epochs"] == 3
    assert document["bytes"] > 0
    assert "sync hash" in document["steps"][-1]["problem"]
    assert list(tmp_path.iterdir()) == []
    assert backfill(tmp_path / "out").code == 0
    objects = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and ".statecast-tmp" not in path.parts]
    headers = [path for path in objects if path.name == "header"]
    pointers = [path for path in objects if path.name in ("latest.json", "catalogue.json")]
    assert document["objects"] == len(objects) - len(headers) - len(pointers)
    done = backfill(tmp_path / "out", "--plan").document
    assert {step["way"] for step in done["steps"]} == {"published before"}
    assert (done["objects"], done["bytes"]) == (0, 0)


# Kills


MOMENTS = {
    "a shard is exported": "out-work/dataset/**/shard_uid=s1.v0/shard.json",
    "an epoch is published": "out/**/epoch_height=4/*/manifest.json",
    "a shard is rolled forward": "out-work/dataset/**/epoch_height=5/*/shard_uid=s2.v0/shard.json",
    "a later part is put": "out/**/epoch_height=6/*/shard_id=*/state_part_000000_of_000001",
}


@pytest.mark.parametrize(
    "moment", [pytest.param(moment, marks=[] if moment == "a shard is rolled forward" else [pytest.mark.slow]) for moment in MOMENTS]
)
def test_a_killed_backfill_goes_on_where_it_was(tmp_path: Path, moment: str) -> None:
    """Whatever the moment, the same command ends with neard's bytes."""
    process = start_process(*arguments(tmp_path / "out"))
    killed = kill_when(process, lambda: any(tmp_path.glob(MOMENTS[moment])))
    assert killed or process.returncode == 0
    outcome = backfill(tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    assert_as_dumped(tmp_path / "out")
    left = [path.name for path in (tmp_path / "out-work").rglob("*") if path.is_file() and ".statecast-tmp" not in path.parts]
    assert left == ["backfill.json"]


def test_an_archive_keeps_whole_parts_sparsely_and_a_rerun_makes_nothing(tmp_path: Path) -> None:
    """Deltas lead to the others; without deltas that is refused at once."""
    call = (
        *("backfill", "--node-home", localnet_home(), "--epochs", "4..6", "--to", tmp_path / "out", "--signing-key", signing_key()),
        *("--work", f"file://{tmp_path / 'work'}", "--full-every", 2, "--in-process", "--json"),
    )  # fmt: skip
    refused = statecast(*call)
    assert refused.code == 2 and "--deltas" in refused.stderr
    made = statecast(*call, "--deltas", 2)
    assert made.code == 0, made.stderr

    def heights() -> set[str]:
        return {path.parts[-4] for path in (tmp_path / "out").rglob("state_part_*")}

    assert heights() == {"epoch_height=4", "epoch_height=6"}
    assert "epoch 6: the parts of epoch 5" in made.stderr, "as soon as the next one is there"
    assert statecast(*call, "--deltas", 2).code == 0
    assert heights() == {"epoch_height=4", "epoch_height=6"}
