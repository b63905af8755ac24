"""Tasks name a dataset and don't carry its summary, which has some 700 bytes a file: there are as many tasks as files."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.dataset.arrow_dataset import SUMMARIES_KEPT, ShardDataset, load_shard, read_dataset
from pipelines.dataset.export.export_records import discard_export, store_summary
from pipelines.dataset.tables.decoded_span import decoded_spans, select
from pipelines.dataset.verify_dataset import HashFileTask
from pipelines.execution.executor import TaskNeeds
from schemas.dataset.dataset_summary import DatasetSummary, RecordsFile
from schemas.errors import DatasetError
from schemas.ids import ZERO_HASH
from tests.dataset.test_export_records import export
from tests.support.commands import statecast
from tests.support.exported import exported_localnet
from tests.support.list_source import context_of
from tests.support.nodes import localnet_home


def store(folder: Path, files: int) -> ShardDataset:
    """Store the summary of so many files, which are not there."""
    listed = tuple(RecordsFile(f"file-{index:06d}", 10, "0" * 64, b"%06d" % index, b"%06d+" % index, (5, 6), 7) for index in range(files))
    return store_summary(str(folder), DatasetSummary(context_of(None), "a node", "f", listed, ()))


def test_a_pickled_task_is_as_small_for_a_large_dataset(tmp_path: Path) -> None:
    """So that what passes through Ray grows with the tasks, and not with their square."""

    def sizes(dataset: ShardDataset) -> list[int]:
        tasks = [HashFileTask(dataset.reference, "native", 1), list(decoded_spans(dataset, select()))[1]]
        return [len(pickle.dumps(task)) for task in tasks]

    small, large = (tmp_path / name for name in ("a", "b"))
    assert sizes(store(small, 2)) == sizes(store(large, 2000))
    assert max(sizes(store(large, 2000))) < 2000


def test_a_worker_reads_the_summary_once_for_many_tasks(tmp_path: Path) -> None:
    """Each task arrives as bytes of its own; that the summary is gone after the first makes the reading seen."""
    dataset = export(tmp_path)
    sent = [pickle.dumps(HashFileTask(dataset.reference, "reference", index)) for index in range(len(dataset.summary.files))]
    first, *others = (pickle.loads(data) for data in sent)
    first.run()
    (tmp_path / dataset.folder / "shard.json").unlink()
    assert len({task.run() for task in others}) == len(others) > 2


def test_the_summaries_kept_are_few(tmp_path: Path) -> None:
    """One that was not asked for while as many others were is read again."""
    first, *others = (store(tmp_path / str(number), number + 1).reference for number in range(SUMMARIES_KEPT + 1))
    kept = read_dataset(first)
    for other in others[1:]:
        read_dataset(other)
    assert read_dataset(first) is kept
    for other in others:
        read_dataset(other)
    assert read_dataset(first) is not kept
    assert read_dataset(first) == kept


def test_a_reference_brings_back_what_it_was_made_of(tmp_path: Path) -> None:
    """Before the root was noted and after, whether or not another run has noted it while tasks of this one are on their way."""
    before = store(tmp_path, 3)
    assert read_dataset(before.reference) == before
    after = store_summary(before.url, replace(before.summary, verified_state_root=ZERO_HASH, memory_usage=5))
    assert read_dataset(after.reference) == after
    read_dataset.cache_clear()
    assert read_dataset(before.reference) == before
    assert load_shard(before.url, context_of(None), before.summary.shard.shard_uid) == after


def test_a_dataset_that_was_exported_anew_is_refused(tmp_path: Path) -> None:
    """A task that was planned by the files of before finds other ones."""
    dataset = store(tmp_path, 3)
    store(tmp_path, 4)
    with pytest.raises(DatasetError, match=r"of another dataset.*shard\.json"):
        read_dataset(dataset.reference)


def test_a_dataset_that_is_gone_is_named(tmp_path: Path) -> None:
    """By the place where its summary was."""
    dataset = store(tmp_path, 3)
    discard_export(dataset)
    with pytest.raises(DatasetError, match=r"is gone.*shard\.json"):
        read_dataset(dataset.reference)


class SummaryRefusingPickler(pickle.Pickler):
    """Pickles what crosses processes, unless a summary is in it."""

    def reducer_override(self, value: Any) -> Any:
        """Refuse a summary; leave all else to pickle."""
        assert not isinstance(value, DatasetSummary), "a summary would cross processes"
        return NotImplemented


def crossed(value: Any) -> Any:
    """Return what another process would get."""
    sink = io.BytesIO()
    SummaryRefusingPickler(sink, pickle.HIGHEST_PROTOCOL).dump(value)
    return pickle.loads(sink.getvalue())


@dataclass(frozen=True, slots=True)
class CrossingExecutor:
    """Runs each task as it would arrive in another process, and returns its result so."""

    ran: set[str] = field(default_factory=set)
    """Names of the tasks' classes."""
    description: str = "as if elsewhere"

    def run(self, tasks: Iterable[Any], needs: TaskNeeds) -> Iterator[tuple[int, Any]]:
        """Run the tasks in order; see `Executor.run`."""
        for index, task in enumerate(tasks):
            self.ran.add(type(task).__name__)
            yield index, crossed(crossed(task).run())

    def close(self) -> None:
        """Do nothing."""


ROLL_FORWARD = {"CollectChangesTask", "RollRecordsTask", "RollOwnValuesTask", "RollSharedValuesTask"}
BUILD = {"StructureTask", "BuildPartTask"}


@pytest.mark.parametrize(
    ("command", "options", "expected"),
    [
        ("backfill", ("--epochs", "4..5", "--allow-unsigned"), ROLL_FORWARD | BUILD),
        ("produce", ("--num-parts", 3, "--allow-unsigned"), {"StructureTask", "LocateTask", "ProducePartTask"}),
        ("export", (), {"HashFileTask"}),
        ("tables", ("--verify",), {"HashFileTask", "WriteTablesTask"}),
    ],
)
def test_no_summary_goes_with_a_task_or_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, options: tuple[object, ...], expected: set[str]
) -> None:
    """Whatever a stage reads a dataset for."""
    executor = CrossingExecutor()
    monkeypatch.setattr(f"jobs.{command}.open_executor", lambda *options, **more: executor)
    to = f"dataset://{tmp_path / 'to'}" if command == "export" else tmp_path / "to"
    read = (f"dataset://{exported_localnet()}",) if command == "tables" else ("--node-home", localnet_home())
    work = ("--work", tmp_path / "work") if command in ("backfill", "produce") else ()
    outcome = statecast(command, *read, "--to", to, *work, *options)
    assert outcome.code == 0, outcome.stderr
    assert expected <= executor.ran
