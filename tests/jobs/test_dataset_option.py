"""``--dataset none``: runs that write no dataset, chosen or because the disk would not hold one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.producing.preflight import disk_space
from pipelines.producing.preflight.disk_space import FreeSpace
from pipelines.stores.object_names import TEMPORARY_FOLDER
from tests.jobs.test_backfill import assert_as_dumped, backfill, ways
from tests.support.commands import lasting_objects_in, statecast
from tests.support.nodes import localnet_home
from tests.support.published import produce_localnet, published_localnet, signing_key

NOTE = "no dataset is written"
MIB = 1 << 20


def test_a_run_without_a_dataset_publishes_the_same(tmp_path: Path) -> None:
    """And leaves nothing in its work folder."""
    outcome = produce_localnet(tmp_path / "out", "--dataset", "none", "--json", work=tmp_path / "work")
    assert outcome.code == 0 and NOTE in outcome.stderr, outcome.stderr
    assert lasting_objects_in(tmp_path / "out") == lasting_objects_in(published_localnet())
    assert [stage["stage"] for stage in outcome.document["stages"]][:2] == ["structure", "boundaries"]
    assert not left_in(tmp_path / "work")


def left_in(work: Path) -> list[str]:
    """Return the files of a work folder but for its lock."""
    return [path.name for path in work.rglob("*") if path.is_file() and TEMPORARY_FOLDER not in path.parts]


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let every file system have so much free."""
    monkeypatch.setattr(disk_space, "free_space", lambda _folder: FreeSpace(1, size, None, writable=True))


def test_a_disk_that_would_not_hold_the_dataset_gets_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself, and said so; where it would, there is one."""
    planned = produce_localnet(tmp_path / "out", "--plan", "--json").document["takes"]
    assert planned["way"] == "dataset" and set(planned["ways"]) == {"dataset", "direct"}
    # What is published fits, and the dataset would not.
    free(monkeypatch, planned["bytes"] + planned["ways"]["dataset"]["work_bytes"] // 2 + planned["ways"]["direct"]["work_bytes"] + MIB)
    assert produce_localnet(tmp_path / "out", "--plan", "--json").document["takes"]["way"] == "direct"
    outcome = produce_localnet(tmp_path / "out")
    assert outcome.code == 0 and NOTE in outcome.stderr, outcome.stderr
    assert lasting_objects_in(tmp_path / "out") == lasting_objects_in(published_localnet())


def test_a_dataset_that_is_asked_for_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its disk would not hold it: then the look before the run refuses."""
    free(monkeypatch, MIB)
    outcome = produce_localnet(tmp_path / "out", "--dataset", tmp_path / "dataset")
    assert outcome.code == 2 and "--dataset" in outcome.error_line and NOTE not in outcome.stderr


def test_a_plan_says_what_is_traded(tmp_path: Path) -> None:
    """Bytes read from the source, bytes written to the work folder, how long the snapshot is needed: of both ways."""
    takes = produce_localnet(tmp_path / "out", "--plan", "--json", "--dataset", "none").document["takes"]
    with_dataset, direct = takes["ways"]["dataset"], takes["ways"]["direct"]
    assert takes["way"] == "direct" and takes["peak_disk_bytes"] == direct["work_bytes"] < with_dataset["work_bytes"] // 20
    assert with_dataset["source_read_bytes"] < direct["source_read_bytes"] < 2 * with_dataset["source_read_bytes"]
    assert with_dataset["source_needed_s"] < direct["source_needed_s"] <= direct["seconds"]
    shown = produce_localnet(tmp_path / "out", "--plan", "--dataset", "none").stdout
    assert "without (--dataset none), which the run does:" in shown and "with a dataset:" in shown and "read from the source" in shown


def test_past_epochs_without_datasets_are_neards(tmp_path: Path) -> None:
    """Each is read from the node by itself: by a walk, or from flat state; nothing is rolled forward."""
    assert backfill(tmp_path / "out", "--dataset", "none", "--from", "dataset:///x").code == 2
    planned = backfill(tmp_path / "out", "--dataset", "none", "--plan", epochs="5..6")
    assert [ways(planned, height)[0] for height in (5, 6)] == ["state walk", "flat state"]
    outcome = backfill(tmp_path / "out", "--dataset", "none", epochs="5..6")
    assert outcome.code == 0, outcome.stderr
    assert [ways(outcome, height)[0] for height in (5, 6)] == ["state walk", "flat state"]
    assert_as_dumped(tmp_path / "out", (5, 6))
    assert left_in(Path(f"{tmp_path}/out-work")) == ["backfill.json"]


def test_a_watcher_keeps_no_dataset(tmp_path: Path) -> None:
    """It takes none or nothing."""
    outcome = statecast(
        *("watch", "--node-home", localnet_home(), "--to", tmp_path / "out", "--signing-key", signing_key(), "--dataset", tmp_path)
    )
    assert outcome.code == 2 and "--dataset" in outcome.error_line
