"""Times each stage of a run on one core against its floor, in one process.

A stage is timed twice where that tells something: as the kernel alone, on record batches that are already in memory, and as the
tasks that a run consists of, with all their reading and storing. All with a floor is timed in processor seconds, as are the floors;
other tasks by the clock on the wall.
"""

from __future__ import annotations

import shutil
import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from benchmarks.floors import (
    compress_once,
    digest_once,
    hash_all,
    hashed_strings,
    part_entries,
    scan_node,
    write_arrow,
    write_once,
    write_table_file,
)
from benchmarks.measure import CPU, interleaved_medians
from benchmarks.stage_results import Results, StageFigure
from benchmarks.synthetic_state import SyntheticState
from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_records import ExportSettings
from pipelines.execution.stage_runner import silent_runner
from pipelines.kernel.native import NativeKernel
from pipelines.near.node.node_store import NodeSource
from pipelines.producing.build.assemble import assemble_part
from pipelines.producing.build.plan_parts import PartPlan
from pipelines.producing.build.work_folder import work_folder_for
from pipelines.producing.build_shard import BuiltShard, build_planned, plan_shard
from pipelines.producing.publish.publish_part import PartPlace, PublishPartTask
from pipelines.restoring.part_object import PartObject
from pipelines.restoring.restore_part import RestorePartTask
from pipelines.restoring.restore_work import RestoreWork
from pipelines.restoring.state_rows import flat_state_rows
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX
from schemas.nearcore.state_part import ZSTD_LEVEL_DEFAULT, Encoding, encode_state_part

SAMPLES_MAX = 40
"""Most dataset files and most parts that the kernel alone is timed on; spread over the whole state."""


@dataclass(slots=True)
class _Sum:
    """Seconds, records and bytes added up over files or parts."""

    seconds: float = 0
    floor_seconds: float = 0
    records: int = 0
    size: int = 0

    def add(self, seconds: float, floor_seconds: float, records: int, size: int) -> None:
        self.seconds += seconds
        self.floor_seconds += floor_seconds
        self.records += records
        self.size += size

    def figure(self, stage: str, size_of: str, floor: str = "") -> StageFigure:
        return StageFigure(stage, self.seconds, self.records, self.size, size_of, self.floor_seconds if floor else None, floor)


def time_stages(state: SyntheticState, folder: Path, repeats: int) -> tuple[Results, BuiltShard]:
    """Run every stage of a produce, ``repeats`` times, beside its floor.

    Args:
        folder: for datasets and work; what lies there of an earlier run is removed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    exported, dataset = _time_export(state, folder, repeats)
    figures = [exported, _time_structure(dataset, repeats)]
    tasks, built = _time_tasks(dataset, folder, repeats)
    figures += [tasks["structure"], tasks["boundaries"], _time_build(dataset, built, repeats), tasks["build"], tasks["seal"]]
    parts, largest = _time_parts(built, folder, repeats)
    results = Results(state.records, len(built.planned.plans), built.planned.memory_usage, largest, figures + parts)
    return results, built


def dataset_bytes(dataset: ShardDataset) -> int:
    """Return the bytes of a dataset's files."""
    return dataset.summary.size


def _time_export(state: SyntheticState, folder: Path, repeats: int) -> tuple[StageFigure, ShardDataset]:
    source = NodeSource(str(state.home), state.context)
    datasets: list[ShardDataset] = []

    def export() -> None:
        if datasets:
            shutil.rmtree(folder / f"dataset-{len(datasets) - 1}")
        settings = ExportSettings(f"file://{folder}/dataset-{len(datasets)}")
        runner = silent_runner()
        datasets.extend(export_epoch(runner, source, state.context, settings))

    def floor() -> None:
        scan_node(state, hashes)
        write_arrow(datasets[-1], folder / "floor")

    # The floor writes what an export has written, so one is made before the clock runs.
    export()
    hashes = _referenced_hashes(datasets[-1])
    seconds, floor_seconds = interleaved_medians(repeats, export, floor, clock=CPU)
    size = dataset_bytes(datasets[-1])
    return StageFigure("export", seconds, state.records, size, "dataset files", floor_seconds, "rocksdict scan + Arrow write"), datasets[-1]


def _referenced_hashes(dataset: ShardDataset) -> list[bytes]:
    hashes: set[bytes] = set()
    for index in range(len(dataset.summary.files)):
        for batch in dataset.read_file(index):
            hashes.update(batch.column(3).drop_null().to_pylist())
    return sorted(hashes)


def _sample(count: int) -> list[int]:
    return sorted({index * count // min(count, SAMPLES_MAX) for index in range(min(count, SAMPLES_MAX))})


def _time_structure(dataset: ShardDataset, repeats: int) -> StageFigure:
    kernel, total = NativeKernel(), _Sum()
    files = dataset.summary.files
    for index in _sample(len(files)):
        records = dataset.read_file(index, ("key", "value_length"))
        left_key = files[index - 1].last_key if index else None
        right_key = files[index + 1].first_key if index + 1 < len(files) else None
        (seconds,) = interleaved_medians(repeats, lambda: kernel.structure(records, left_key, right_key), clock=CPU)  # noqa: B023 - called at once
        total.add(seconds, 0, files[index].records, sum(batch.column(0).nbytes for batch in records))
    return total.figure("structure, kernel", "keys")


def _time_tasks(dataset: ShardDataset, folder: Path, repeats: int) -> tuple[dict[str, StageFigure], BuiltShard]:
    """Time plan, build and seal as tasks, each time into an empty work folder."""
    seconds: dict[str, list[float]] = defaultdict(list)
    kernel = NativeKernel()
    for number in range(repeats):
        shutil.rmtree(folder / f"work-{number - 1}", ignore_errors=True)
        runner = silent_runner()
        planned = plan_shard(runner, kernel, dataset, work_folder_for(f"file://{folder}/work-{number}", dataset), None)
        built = build_planned(runner, kernel, planned, None)
        for timing in runner.timings:
            seconds[timing.stage].append(timing.seconds)
    sizes = {
        "structure": (dataset_bytes(dataset), "dataset files"),
        "build": (sum(one.hashed_bytes for one in built.builds), "hashed"),
    }
    records = dataset.summary.records
    return {
        stage: StageFigure(f"{stage}, tasks", statistics.median(times), records, *sizes.get(stage, (0, "")))
        for stage, times in seconds.items()
    }, built


def _time_build(dataset: ShardDataset, built: BuiltShard, repeats: int) -> StageFigure:
    kernel, total = NativeKernel(), _Sum()
    plans = built.planned.with_records
    for index in _sample(len(plans)):
        plan = plans[index]
        records = [batch for span in plan.spans for batch in dataset.read_span(span)]
        values = dataset.read_values(records)
        first = kernel.build(records, values, plan.left_key, plan.key_end)
        assert first.interior is not None, "the interior was asked for"
        strings = hashed_strings(records, first.interior)
        _check_hashed(plan, pc.sum(pc.binary_length(strings)).as_py(), first.hashed_bytes)
        seconds, floor_seconds = interleaved_medians(
            repeats,
            lambda: kernel.build(records, values, plan.left_key, plan.key_end),  # noqa: B023 - called at once
            lambda: hash_all(strings),  # noqa: B023 - called at once
            clock=CPU,
        )
        total.add(seconds, floor_seconds, plan.records, first.hashed_bytes)
    return total.figure("build, kernel", "hashed", "SHA-256")


def _check_hashed(plan: PartPlan, floor_bytes: int, hashed_bytes: int) -> None:
    # Equal subtrees are in an interior once but hashed each time; they are rare, so the floor must hash nearly the same.
    assert abs(floor_bytes - hashed_bytes) < 0.05 * hashed_bytes + 10 * INLINED_VALUE_BYTES_MAX, (
        f"part {plan.part_id}: the floor hashes other bytes"
    )


def _time_parts(built: BuiltShard, folder: Path, repeats: int) -> tuple[list[StageFigure], int]:
    """Time assembling, encoding, validating, publishing and restoring, part by part; also return the largest part's bytes.

    A part's publishing has the floor of its steps that nothing can leave out, one after the other: compressing it, hashing its entries,
    hashing the object and its pieces, writing it. Applying it has that of validating it and writing its rows through rocksdict.
    """
    kernel, planned = NativeKernel(), built.planned
    shard_uid = planned.shard.shard_uid
    assembling, encoding, validating, publishing, restoring, applying = (_Sum() for _ in range(6))
    folder = folder / "parts"
    folder.mkdir()
    largest = 0
    for index in _sample(len(built.planned.plans)):
        plan = built.planned.plans[index]
        part = assemble_part(kernel, built.planned.work, plan)
        entries = part_entries(part)
        task = PublishPartTask(
            work=planned.work,
            plan=plan,
            state_root=built.state_root,
            place=PartPlace(f"file://{folder}/published", f"{plan.part_id.idx}"),
            encoding=Encoding.V1,
            zstd_level=ZSTD_LEVEL_DEFAULT,
            kernel_name=kernel.name,
            piece_length=planned.piece_length,
        )
        stored = folder / "published" / task.place.object_name
        task.run()
        data = stored.read_bytes()
        object_ = PartObject(task.place.store_url, task.place.object_name, plan.part_id, built.state_root, Encoding.V1)
        restore = RestorePartTask(object_, shard_uid, RestoreWork(str(folder / "restored"), 4), kernel.name)
        rows = list(flat_state_rows(kernel.apply(part, built.state_root, plan.part_id).records, shard_uid.to_bytes()))
        largest = max(largest, part.size)
        times = interleaved_medians(
            repeats,
            lambda: assemble_part(kernel, built.planned.work, plan),  # noqa: B023 - called at once
            lambda: encode_state_part(part, Encoding.V1, ZSTD_LEVEL_DEFAULT),  # noqa: B023 - called at once
            lambda: compress_once(part, ZSTD_LEVEL_DEFAULT),  # noqa: B023 - called at once
            lambda: kernel.validate(part, built.state_root, plan.part_id),  # noqa: B023 - called at once
            lambda: hash_all(entries),  # noqa: B023 - called at once
            lambda: _fresh(stored, task.run),  # noqa: B023 - called at once
            lambda: digest_once(data, planned.piece_length),  # noqa: B023 - called at once
            lambda: write_once(data, folder / "floor"),  # noqa: B023 - called at once
            lambda: _fresh(folder / "restored", restore.run),  # noqa: B023 - called at once
            lambda: write_table_file(rows, folder / "floor.sst"),  # noqa: B023 - called at once
            clock=CPU,
        )
        publishing.add(times[5], times[2] + times[4] + times[6] + times[7], plan.records, part.size)
        restoring.add(times[8], times[3] + times[9], plan.records, part.size)
        applying.add(times[8], times[3], plan.records, part.size)
        assembling.add(times[0], 0, plan.records, part.size)
        encoding.add(times[1], times[2], plan.records, part.size)
        validating.add(times[3], times[4], plan.records, part.size)
    return [
        assembling.figure("assemble", "decoded part"),
        encoding.figure("encode v1, level 1", "decoded part", "zstd in one call"),
        validating.figure("validate", "decoded part", "SHA-256"),
        publishing.figure("publish, tasks", "decoded part", "zstd + SHA-256 + object's digests + write"),
        restoring.figure("apply, tasks", "decoded part", "validate + rocksdict table file"),
        applying.figure("apply, to validation alone", "decoded part", "validate"),
    ], largest


def _fresh(left: Path, work: Callable[[], object]) -> None:
    """Run where nothing is left of the run before."""
    if left.is_dir():
        shutil.rmtree(left)
    else:
        left.unlink(missing_ok=True)
    work()
