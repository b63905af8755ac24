"""Productions that write no dataset: the same bytes as with one, from any source, however its key ranges are cut."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_records import ExportSettings
from pipelines.execution.executor import Task, TaskNeeds
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.stage_runner import StageRunner, silent_runner
from pipelines.kernel.choice import choose_kernel
from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node.flat_state_source import FlatStateSource, KeyRange
from pipelines.near.node.node_columns import FLAT_STATE, STATE
from pipelines.near.node.node_store import NodeSource
from pipelines.near.node.rocksdb_reader import forget_readers
from pipelines.producing.build import scan_structure
from pipelines.producing.build.shard_origin import DirectOrigin
from pipelines.producing.build.work_folder import direct_work_folder, work_folder_for
from pipelines.producing.build_shard import PlannedShard, plan_shard
from pipelines.producing.direct_shard import plan_direct
from pipelines.producing.produce_epoch import EpochProduction, ProductionSettings
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.stores.memory_store import MemoryStore
from schemas.errors import SourceChangedError, SourceError, StatecastError, StateRootMismatchError
from schemas.ids import CryptoHash
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.state_part import Encoding
from schemas.published.object_layout import EpochLayout
from tests.support.changed_flat_state import S0, change_value, flat_row
from tests.support.faulty_store import Fault, seeded
from tests.support.list_source import ListSource, context_of, list_source
from tests.support.native_wheel import KERNELS
from tests.support.nodes import change_rows, context_file, copied, localnet_home, node_a, snapshot_folder
from tests.support.productions import inject, new_store_url
from tests.support.records import Pairs, record_sets
from tests.support.state_rows import walk_source
from tests.support.whole_productions import Told, WholeProduction


def direct(folder: Path, source: FlatStateSource, context: EpochContext, **options: Any) -> WholeProduction:
    """Return a production that writes no dataset."""
    return WholeProduction(folder, context, source, write_dataset=False, **options)


def node_source(home: Path, context: EpochContext) -> NodeSource:
    """Return the source of a node."""
    return NodeSource(str(home), context)


def assert_same(made: WholeProduction, expected: WholeProduction) -> None:
    """Both have published the same, and the first has written no dataset and no interior."""
    assert made.parts() == expected.parts() != {}
    assert made.statements() == expected.statements()
    assert not (made.folder / "dataset").exists()
    assert not list(made.folder.glob("work/**/interior-*"))


# The same bytes


@pytest.mark.parametrize(("kernel_name", "early"), [("auto", True), ("auto", False), ("reference", True)])
def test_a_node_directly(tmp_path: Path, kernel_name: str, early: bool) -> None:
    """Pending merges, values by reference, a shard born by resharding; with boundary nodes from the State column and from the edges."""
    context = context_file(node_a()).only((0, 90))
    options: dict[str, Any] = {"num_parts": 5, "kernel_name": kernel_name, "publish_early": early}
    expected = WholeProduction(tmp_path / "dataset", context, node_source(node_a(), context), **options)
    expected.run()
    made = direct(tmp_path / "direct", node_source(node_a(), context), context, range_bytes_target=20_000, **options)
    result = made.run()
    assert_same(made, expected)
    assert result.exported_s > 0
    for shard in context.shards:
        ways = ["boundary nodes", "publish", "seal"] if early else ["build", "seal", "publish"]
        assert made.told.stage_names(str(shard.shard_uid)) == ["structure", "boundaries", *ways]
    boundary_files = {Path(name).name: data for name, data in made.boundary_files().items()}
    assert boundary_files == {Path(name).name: data for name, data in expected.boundary_files().items()} != {}


def test_a_walk_and_headers_directly(tmp_path: Path) -> None:
    """An older epoch of a real node out of its State column, with the state headers that it can compute."""
    context = epoch_context_from_node(localnet_home(), "4")
    expected = WholeProduction(tmp_path / "dataset", context, walk_source(localnet_home(), context), num_parts=3)
    made = direct(tmp_path / "direct", walk_source(localnet_home(), context), context, num_parts=3)
    headers = [[shard.has_header for shard in production.run().shards] for production in (expected, made)]
    assert headers[0] == headers[1]
    assert_same(made, expected)


@dataclass(frozen=True, slots=True)
class _SplitSource(ListSource):
    """A list whose key ranges also begin at keys that no record has, so that some are empty."""

    begins: tuple[bytes, ...] = ()

    def key_ranges(self, shard: ShardContext, range_bytes_target: int) -> tuple[KeyRange, ...]:
        cut = {one.begin for one in ListSource.key_ranges(self, shard, range_bytes_target)}
        begins = sorted({b"", *cut, *self.begins})
        return tuple(KeyRange(begin, end) for begin, end in zip(begins, [*begins[1:], None], strict=True))


def planned_directly(kernel_name: str, source: ListSource, num_parts: int) -> PlannedShard:
    """Plan a shard without a dataset, in memory."""
    context = context_of(None)
    work = direct_work_folder(f"memory://{uuid.uuid4().hex}", context, context.shards[0].shard_uid, "a fingerprint")
    origin = DirectOrigin(source, context.shards[0], work)
    return plan_direct(silent_runner(), choose_kernel(kernel_name), origin, num_parts, 1)


def planned_by_dataset(pairs: Pairs, num_parts: int) -> PlannedShard:
    """Plan the same shard with one."""
    runner, url = silent_runner(), f"memory://{uuid.uuid4().hex}"
    (dataset,) = export_epoch(runner, list_source(pairs), context_of(None), ExportSettings(url))
    return plan_shard(runner, choose_kernel("auto"), dataset, work_folder_for(url, dataset), num_parts)


def facts(planned: PlannedShard) -> object:
    """Return all of a plan but where its rows lie."""
    return planned.memory_usage, planned.first_key, [(replace(plan, spans=()), plan.records) for plan in planned.plans]


@given(
    pairs=record_sets(),
    num_parts=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    begins=st.lists(st.binary(min_size=1, max_size=3), max_size=4),
    rows_max=st.integers(1, 20),
    piece_bytes=st.sampled_from([1, 200, 1 << 20]),
    indexed_rows=st.sampled_from([1, 3, 256]),
)
@pytest.mark.parametrize("kernel_name", KERNELS)
def test_the_plan_is_the_same_however_ranges_are_cut(
    kernel_name: str,
    pairs: Pairs,
    num_parts: int,
    cuts: list[int],
    begins: list[bytes],
    rows_max: int,
    piece_bytes: int,
    indexed_rows: int,
) -> None:
    """Ranges of one row, of none and of all, that begin at rows and between them; pieces of a range; rows between two of the index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_structure, "PIECE_BYTES_MAX", piece_bytes)
        patch.setattr(scan_structure, "INDEXED_ROWS", indexed_rows)
        source = _SplitSource(tuple(pairs), tuple(cuts), rows_max, begins=tuple(begins))
        assert facts(planned_directly(kernel_name, source, num_parts)) == facts(planned_by_dataset(pairs, num_parts))


def test_a_shard_without_records_directly(tmp_path: Path) -> None:
    """It has no part by itself, and the empty part as often as asked."""
    for num_parts, count in ((None, 0), (2, 2)):
        made = direct(tmp_path / str(count), list_source([]), context_of(None), num_parts=num_parts)
        assert made.run().part_count == count == len(made.parts())
        assert set(made.parts().values()) <= {bytes(5)}


# Reruns


def test_a_rerun_reads_nothing_that_was_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a range's structure nor a part whose object is there and whose edge is left."""
    context = context_file(node_a())
    first = direct(tmp_path, node_source(node_a(), context), context, num_parts=5)
    first.run()
    parts, statements = first.parts(), first.statements()
    monkeypatch.setattr(NodeSource, "records", _few_rows)
    result = direct(tmp_path, node_source(node_a(), context), context, num_parts=5).run()
    assert all(part.reused for shard in result.shards for part in shard.parts)
    assert (first.parts(), first.statements()) == (parts, statements)
    next(tmp_path.glob("work/**/edge-000003")).unlink()
    with pytest.raises(AssertionError, match="read again"):
        direct(tmp_path, node_source(node_a(), context), context, num_parts=5).run()


def _few_rows(self: NodeSource, shard: ShardContext, key_range: KeyRange, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
    """Give the rows around a boundary alone."""
    if record_batch_bytes_max != scan_structure.SOUGHT_BYTES_MAX:
        raise AssertionError("the source is read again")
    yield from _RECORDS(self, shard, key_range, record_batch_bytes_max)


_RECORDS = NodeSource.records


def test_what_is_damaged_or_gone_in_the_work_folder_is_made_again(tmp_path: Path) -> None:
    """A range's note, its charges or its index, an edge, a part."""
    context = context_file(node_a()).only((0,))
    first = direct(tmp_path, node_source(node_a(), context), context, num_parts=5)
    first.run()
    parts, statements = first.parts(), first.statements()
    for scanned in ("json", "charges.arrow", "index.arrow"):
        for pattern in ("published/**/state_part_000002_of_*", "work/**/edge-000003", f"work/**/scanned-*.{scanned}"):
            damaged = next(tmp_path.glob(pattern))
            damaged.write_bytes(bytes(damaged.stat().st_size))
        again = direct(tmp_path, node_source(node_a(), context), context, num_parts=5)
        result = again.run()
        assert [part.interval.part_id.idx for part in result.shards[0].parts if not part.reused] == [2]
        assert (again.parts(), again.statements()) == (parts, statements)


def test_each_way_takes_up_what_the_other_has_published(tmp_path: Path) -> None:
    """A run without a dataset goes on where one with a dataset ended, and the other way round."""
    context = context_file(node_a()).only((5,))
    for write_dataset, early in ((True, True), (False, True), (True, False), (False, False)):
        production = WholeProduction(
            tmp_path, context, node_source(node_a(), context), num_parts=5, write_dataset=write_dataset, publish_early=early
        )
        result = production.run()
        assert sum(part.reused for part in result.shards[0].parts) == (0 if (write_dataset, early) == (True, True) else 3)
        for path in [*production.published.rglob("state_part_00000[13]_of_*")]:
            path.unlink()
    final = direct(tmp_path, node_source(node_a(), context), context, num_parts=5)
    final.run()
    other = direct(tmp_path / "other", node_source(node_a(), context), context, num_parts=5)
    other.run()
    assert (final.parts(), final.statements()) == (other.parts(), other.statements())


class _KilledError(Exception):
    """What ends a run in the midst."""


@dataclass(frozen=True, slots=True)
class _KillingExecutor:
    """Ends the run after so many tasks, before their driver has the last one's result."""

    tasks_max: int
    description: str = "killed"
    done: list[object] = field(default_factory=list)

    def run(self, tasks: Iterable[Task[Any]], needs: TaskNeeds) -> Iterator[tuple[int, Any]]:
        """Run the tasks in order; see `Executor.run`."""
        for index, result in InProcessExecutor().run(tasks, needs):
            self.done.append(result)
            if len(self.done) > self.tasks_max:
                raise _KilledError
            yield index, result

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("early", [True, False])
def test_a_run_that_is_killed_after_every_task_ends_with_the_same_bytes(tmp_path: Path, early: bool) -> None:
    """Killed after the first task, the next run after its second, and so on; no statement before the last part, and nothing twice."""
    context = context_file(node_a()).only((0,))
    options: dict[str, Any] = {"num_parts": 3, "publish_early": early, "range_bytes_target": 10**9}
    expected = direct(tmp_path / "expected", node_source(node_a(), context), context, **options)
    expected.run()
    for tasks in range(100):
        made = direct(tmp_path / "made", node_source(node_a(), context), context, executor=_KillingExecutor(tasks), **options)
        try:
            result = made.run()
        except _KilledError:
            assert not made.statements()
            assert made.parts().items() <= expected.parts().items()
        else:
            break
    assert tasks > 4
    assert [part.reused for part in result.shards[0].parts] == [True] * 3
    assert_same(made, expected)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))])
def test_stores_that_fail_get_the_same_objects_in_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int) -> None:
    """Calls of work folder and destination fail before or after they are done, and half-written work files are taken for whole: run again."""
    pairs = [(b"%03d" % number, b"value %d" % number * 50) for number in range(300)]
    source, context = list_source(pairs, (100, 200)), context_of(None)
    expected = direct(tmp_path, source, context, num_parts=4)
    expected.run()
    out, work = new_store_url(), new_store_url()
    inject(monkeypatch, out, seeded(seed, 0.05))
    # A store that tears does so against its promise, but a power cut may do that to a work folder.
    inject(monkeypatch, work, seeded(seed, 0.05, (Fault.FAIL_BEFORE, Fault.REPLY_LOST, Fault.TORN)))
    failed = 0
    while True:
        production = EpochProduction(
            runner=StageRunner(InProcessExecutor(), Told()),
            kernel=choose_kernel("auto"),
            context=context,
            source=source,
            datasets=(),
            publisher=EpochPublisher(out, None, Encoding.V0, 1),
            settings=ProductionSettings.in_folder(work, num_parts=4, write_dataset=False),
            described="a test",
            epoch_shard_ids=(0,),
        )
        try:
            production.run()
            break
        except StatecastError:
            failed += 1
            assert failed < 60
    store = MemoryStore(out.removeprefix("memory://"))
    layout = EpochLayout.of(context)
    assert {
        f"shard_id=0/{Path(info.name).name}": store.get(info.name, 0, 1 << 20)
        for info in store.list(layout.folder)
        if "state_part" in info.name
    } == expected.parts()
    assert store.get(layout.shard_statement(0), 0, 1 << 20) in expected.statements().values()


# What contradicts the root, or itself


@pytest.mark.parametrize("early", [True, False])
def test_a_changed_value_is_named_and_a_mended_node_read_anew(tmp_path: Path, early: bool) -> None:
    """Nothing of it is put, no statement is written, and what was planned by it goes."""
    home = copied(node_a(), tmp_path)
    key, row = flat_row(home, -1)
    change_value(home, -1)
    context = context_file(home).only((0,))
    with pytest.raises(StateRootMismatchError) as raised:
        direct(tmp_path / "made", node_source(home, context), context, num_parts=5, publish_early=early).run()
    assert key.removeprefix(S0.to_bytes()).hex() in raised.value.where
    refused = direct(tmp_path / "made", node_source(home, context), context)
    assert refused.statements() == {}
    assert bool(refused.parts()) == early
    assert not [path for path in (tmp_path / "made" / "work").rglob("*") if path.is_file()]
    forget_readers()
    for folder in (snapshot_folder(home), home / "data"):
        change_rows(folder, FLAT_STATE, {key: row})
    mended = direct(tmp_path / "made", node_source(home, context), context, num_parts=5, publish_early=early)
    mended.run()
    expected = direct(tmp_path / "expected", node_source(node_a(), context), context, num_parts=5)
    expected.run()
    assert_same(mended, expected)


def test_a_node_that_lacks_a_boundary_node_reads_each_part_twice(tmp_path: Path) -> None:
    """One line says so; the parts are the same."""
    home = copied(node_a(), tmp_path)
    context = context_file(home).only((5,))
    whole = direct(tmp_path / "whole", node_source(home, context), context, num_parts=5)
    whole.run()
    forget_readers()
    (file,) = whole.folder.rglob("boundary_nodes-000000.arrow")
    root = bytes(context.shards[0].state_root or b"")
    hashes = [sha256(node).digest() for node in pa.ipc.open_file(file).get_batch(2).column(0).to_pylist()]
    lost = context.shards[0].shard_uid.to_bytes() + next(one for one in hashes if one != root)
    change_rows(home / "data", STATE, {lost: None})
    lacking = direct(tmp_path / "lacking", node_source(home, context), context, num_parts=5)
    lacking.run()
    assert_same(lacking, whole)
    assert any("wait for its state root" in note for note in lacking.told.notes)


@dataclass(frozen=True, slots=True)
class _ShiftingSource(ListSource):
    """A list that has one record less when it is read by parts."""

    def records(self, shard: ShardContext, key_range: KeyRange, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        ranges = [one for one in self.key_ranges(shard, 0) if one.begin == key_range.begin and one.end == key_range.end]
        seeking = record_batch_bytes_max == scan_structure.SOUGHT_BYTES_MAX
        pairs = self.pairs if ranges or seeking else self.pairs[:-2] + self.pairs[-1:]
        yield from ListSource(pairs, self.cuts, self.rows_max).records(shard, key_range, record_batch_bytes_max)


def test_a_source_that_changes_between_two_readings_is_told_apart_from_a_wrong_one(tmp_path: Path) -> None:
    """The run ends with that, nothing is stated, and the next run starts over."""
    pairs = tuple((b"%03d" % number, b"value %d" % number) for number in range(300))
    with pytest.raises(SourceChangedError, match="when it was planned"):
        direct(tmp_path, _ShiftingSource(pairs, (100, 200)), context_of(None), num_parts=4).run()
    made = direct(tmp_path, ListSource(pairs, (100, 200)), context_of(None), num_parts=4)
    assert made.statements() == {} and not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert made.run().records == 300


def test_a_shard_that_cannot_be_read_shows_before_any_part_of_another(tmp_path: Path) -> None:
    """As with datasets."""
    context = context_file(node_a())
    unreachable = replace(context.shard(90), flat_head_target=CryptoHash(b"\x07" * 32))
    wrong = replace(context, shards=(*context.shards[:-1], unreachable))
    production = direct(tmp_path, node_source(node_a(), wrong), wrong, num_parts=2)
    with pytest.raises(SourceError):
        production.run()
    assert production.parts() == {} and production.told.stages == []


def test_little_is_left_in_the_work_folder_and_nothing_in_the_end(tmp_path: Path) -> None:
    """Charges, an index, edges and boundary nodes; what an earlier run with a dataset has left goes with them."""
    context = context_file(node_a()).only((0,))
    kept = direct(tmp_path, node_source(node_a(), context), context, num_parts=5)
    records = kept.run().records
    left = {path.name: path.stat().st_size for path in tmp_path.glob("work/**/*") if path.is_file()}
    charges = [size for name, size in left.items() if name.endswith(".charges.arrow")]
    assert charges and sum(charges) < 3 * records + 1000 * len(charges)
    runner = silent_runner()
    export_epoch(runner, node_source(node_a(), context), context, ExportSettings(str(tmp_path / "dataset")))
    (manifest,) = tmp_path.glob("published/**/manifest.json")
    manifest.unlink()
    direct(tmp_path, node_source(node_a(), context), context, num_parts=5, keep=False).run()
    assert manifest.exists()
    assert not [path for folder in ("work", "dataset") for path in (tmp_path / folder).rglob("*") if path.is_file()]
