"""Noticing folders that the machines of a cluster do not share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.dataset.arrow_dataset import ShardDataset, list_shards
from pipelines.execution.executor import Task, TaskNeeds
from pipelines.execution.in_process import InProcessExecutor
from pipelines.producing.shared_folders import PROBE_TRIES_MAX, SeesFileTask, require_readable, require_shared
from schemas.errors import InvalidInputError, StoreDeniedError
from tests.support.commands import statecast
from tests.support.nodes import localnet_home, node_a


@dataclass(slots=True)
class Machines:
    """An executor over machines, some of which see nothing of a folder."""

    blind: dict[str, str]
    """Machine to the folder that it has of its own."""
    asked: list[str] = field(default_factory=list)
    description: str = "machines"

    def run(self, tasks: Iterable[Task[Any]], needs: TaskNeeds) -> Iterator[tuple[int, Any]]:
        """Run nothing."""
        return iter(())

    def on_each_machine(self, task: Task[Any]) -> list[tuple[str, Any]]:
        """Run the task here, for machines that share the folder."""
        assert isinstance(task, SeesFileTask)
        self.asked.append(task.path)
        return [
            (name, task.run() and not (name in self.blind and task.path.startswith(self.blind[name])))
            for name in ("one", "two", "three", "four", "five")
        ]

    def close(self) -> None:
        """Do nothing."""


def test_folders_that_are_shared_are_left_as_they_were(tmp_path: Path) -> None:
    """The file that is looked for is gone afterwards."""
    machines = Machines({})
    require_shared(machines, {"--work": f"file://{tmp_path / 'work'}", "--to": str(tmp_path / "to")})
    assert [Path(path).parent for path in machines.asked] == [tmp_path / "work" / ".statecast-tmp", tmp_path / "to" / ".statecast-tmp"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_folder_that_is_not_shared_is_named_with_its_option_and_the_machine(tmp_path: Path) -> None:
    """The first one that is found."""
    machines = Machines({"two": str(tmp_path / "to")})
    with pytest.raises(InvalidInputError, match=f"the folder {tmp_path / 'to'} is not shared: two can't see") as caught:
        require_shared(machines, {"--work": str(tmp_path / "work"), "--to": str(tmp_path / "to")})
    assert caught.value.where == "--to"
    assert "--to" in caught.value.remedy
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_many_machines_are_counted(tmp_path: Path) -> None:
    """Three are named."""
    machines = Machines(dict.fromkeys(("one", "two", "three", "four", "five"), str(tmp_path)))
    with pytest.raises(InvalidInputError, match="five, four, one and 2 more can't see"):
        require_shared(machines, {"--work": str(tmp_path)})


def test_buckets_and_single_machines_are_not_asked(tmp_path: Path) -> None:
    """A bucket is shared; one machine shares everything with itself."""
    machines = Machines({})
    require_shared(machines, {"--to": "gs://bucket/folder"})
    assert machines.asked == []
    require_shared(InProcessExecutor(), {"--work": str(tmp_path / "work")})
    assert not (tmp_path / "work").exists()


def _dataset(folder: Path) -> tuple[ShardDataset, ...]:
    """Return an exported dataset of two shards."""
    options = ("--context", node_a() / "context.json", "--shard-id", 0, "--shard-id", 5, "--in-process")
    outcome = statecast("export", "--node-home", node_a(), *options, "--to", f"dataset://{folder}")
    assert outcome.code == 0, outcome.stderr
    return tuple(list_shards(str(folder)))


def test_a_dataset_that_is_only_read_is_looked_for_and_left_alone(tmp_path: Path) -> None:
    """By the files that it has, so that it may be mounted read-only; a bucket's is not asked about, nor is one machine."""
    datasets = _dataset(tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    machines = Machines({})
    require_readable(machines, "--from", datasets)
    assert [Path(path).name for path in machines.asked] == ["shard.json"] * 2
    require_readable(InProcessExecutor(), "--from", datasets)
    require_readable(machines, "--from", [replace(datasets[0], reference=replace(datasets[0].reference, url="gs://bucket/data"))])
    assert len(machines.asked) == 2
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(
        InvalidInputError, match=rf"the folder {tmp_path / 'data'} is not shared: two can't see chain_id=\S+/shard.json"
    ) as caught:
        require_readable(Machines({"two": str(tmp_path)}), "--from", datasets)
    assert caught.value.where == "--from"


@pytest.mark.parametrize(("command", "option"), [("produce", "--from"), ("tables", "dataset"), ("tables", "--to")])
def test_commands_that_read_a_dataset_look_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, option: str) -> None:
    """Before anything is read or written."""
    _dataset(tmp_path / "data")
    blind = tmp_path / "to" if option == "--to" else tmp_path / "data"
    monkeypatch.setattr(f"jobs.{command}.open_executor", lambda *options, **more: Machines({"two": str(blind)}))
    url = f"dataset://{tmp_path / 'data'}"
    place = ("--from", url, "--allow-unsigned", "--work", tmp_path / "work") if command == "produce" else (url,)
    outcome = statecast(command, *place, "--to", tmp_path / "to", "--json")
    assert (outcome.code, outcome.document["error"]["where"]) == (2, option)
    assert [path for path in (tmp_path / "to").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("option", ["--work", "--dataset", "--from"])
def test_a_backfill_looks_for_its_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    """Those that it writes and the older one that it begins from."""
    exported = statecast("export", "--node-home", localnet_home(), "--epoch", 5, "--to", f"dataset://{tmp_path / 'from'}", "--in-process")
    assert exported.code == 0, exported.stderr
    monkeypatch.setattr("jobs.backfill.open_executor", lambda *options, **more: Machines({"two": str(tmp_path / option.strip("-"))}))
    folders = ("--work", tmp_path / "work", "--dataset", tmp_path / "dataset", "--from", f"dataset://{tmp_path / 'from'}")
    outcome = statecast(
        "backfill", "--node-home", localnet_home(), "--epochs", "6..6", "--to", tmp_path / "to", *folders, "--allow-unsigned", "--json"
    )
    assert (outcome.code, outcome.document["error"]["where"]) == (2, option), outcome.stderr
    assert not (tmp_path / "to").exists()


def test_a_folder_that_can_t_be_written_is_the_store_s_error(tmp_path: Path) -> None:
    """It names option and folder."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreDeniedError, match=r"can't be written.*--work .*/file/work"):
        require_shared(Machines({}), {"--work": str(tmp_path / "file" / "work")})


def test_a_file_is_looked_for_more_than_once(tmp_path: Path) -> None:
    """It may show late; if it never does, that is the answer."""
    assert SeesFileTask(str(tmp_path), interval_s=0).run()
    assert not SeesFileTask(str(tmp_path / "nothing"), interval_s=0).run()
    assert PROBE_TRIES_MAX > 1
