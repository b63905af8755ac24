"""Processor time of whole productions against the sum of their floors: with a dataset and without, of a node with tries and one without.

    python -m benchmarks.whole --records 1000000
    python -m benchmarks.whole --records 1000000 --driver-parts 6000

All in one process on one core, every way and the floors in turns. A node has its shards' tries in its State column, so that parts go out before
their roots; one without is what a file of records is. The floors are what nothing can leave out: one reading of flat state and values,
SHA-256 of values and nodes for building and again for validating, zstd, SHA-256 of each stored object, the torrents' piece hashes.
With ``--driver-parts`` the shard is also produced in so many parts on Ray: what the driver takes a part, and which of its functions take most.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from benchmarks.command_line import BenchmarkParser, print_as_json, require_native_kernel
from benchmarks.floors import compress_once, hash_all, hashed_strings, part_entries, scan_node
from benchmarks.folder import benchmark_folder
from benchmarks.measure import CPU, seconds_of, usable_cores
from benchmarks.scale_run import RunForm, ScaleFigure, measure_run
from benchmarks.synthetic_state import RECORDS_DEFAULT, SyntheticState, synthetic_state
from benchmarks.synthetic_trie import state_with_tries
from benchmarks.whole_run import run_whole
from pipelines.dataset.export.export_records import RANGE_BYTES_TARGET
from pipelines.execution.executor import Task, TaskNeeds
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.stage_runner import silent_runner
from pipelines.kernel.native import NativeKernel
from pipelines.near.node.node_store import NodeSource
from pipelines.near.node.rocksdb_reader import forget_readers
from pipelines.producing.build.assemble import assemble_with
from pipelines.producing.build.shard_origin import DirectOrigin
from pipelines.producing.build.work_folder import direct_work_folder
from pipelines.producing.build_shard import PlannedShard
from pipelines.producing.direct_shard import build_edges, plan_direct
from schemas.nearcore.state_part import ZSTD_LEVEL_DEFAULT, Encoding, encode_state_part
from schemas.published.torrent import LEAF_BYTES

R = TypeVar("R")

RATIO_WANTED = 1.6
"""A whole production in processor time, to the sum of its floors."""

DRIVER_SHARE_WANTED = 0.02

DRIVER = "driver"
"""Beside the stages: what is not in a task."""


@dataclass(frozen=True, slots=True)
class WholeFigure:
    """Productions of one way: medians."""

    tries: bool
    direct: bool
    seconds: float
    """Of processor time, of everything."""
    stages: dict[str, float]
    """The same of the tasks by their stage, and of the driver."""
    work_bytes: int
    """Most bytes of dataset and work folder."""
    read_bytes: int
    """What the process asked files for by calls: of the node's tables mostly; mapped files don't count."""
    written_bytes: int
    """What it wrote to files."""


@dataclass(frozen=True, slots=True)
class WholeFigures:
    """All figures of a run."""

    records: int
    parts: int
    ways: tuple[WholeFigure, ...]
    floors: dict[str, float]
    """Processor seconds."""
    driver: ScaleFigure | None = None
    """A production in very many parts."""

    @property
    def floor_s(self) -> float:
        """The sum of the floors."""
        return sum(self.floors.values())

    @property
    def part_s(self) -> float:
        """Processor seconds that a part takes in all, by the way that a node's parts go without a dataset."""
        return next(way.seconds for way in self.ways if way.tries and way.direct) / self.parts


@dataclass(slots=True)
class _TimedExecutor:
    """Runs tasks here and notes the processor seconds of each stage's."""

    description: str = "in this process, timed"
    stage_s: list[float] = field(default_factory=list)

    def run(self, tasks: Iterable[Task[R]], needs: TaskNeeds) -> Iterator[tuple[int, R]]:
        """Run the tasks in order; see `Executor.run`."""
        stage = len(self.stage_s)
        self.stage_s.append(0.0)
        results = InProcessExecutor().run(tasks, needs)
        while True:
            began = CPU()
            step = next(results, None)
            self.stage_s[stage] += CPU() - began
            if step is None:
                return
            yield step

    def close(self) -> None:
        """Do nothing."""


def run_benchmark(folder: Path, records: int, seed: int, repeats: int, *, driver_parts: int | None = None, cores: int = 1) -> WholeFigures:
    """Make the state and take all figures; what is made beside the synthetic state is removed.

    Args:
        driver_parts: of a production on Ray with so many cores; None for none.
    """
    bare = synthetic_state(folder, records, seed)
    whole = state_with_tries(bare)
    work = folder / f"whole-{records}"
    ways = [(state, direct) for state in (whole, bare) for direct in (False, True)]
    try:
        rounds: list[list[WholeFigure]] = []
        floors: list[dict[str, float]] = []
        parts = 0
        # What a process pays once, half a production's time, is no way's.
        digests = {_run(bare, work, direct=False)[1]}
        for _ in range(repeats):
            rounds.append([])
            for state, direct in ways:
                figure, digest = _run(state, work, direct=direct)
                rounds[-1].append(figure)
                digests.add(digest)
            parts, taken = _floors(bare, work)
            floors.append(taken)
        assert len(digests) == 1, "all ways give the same parts"
        medians = tuple(_median(one) for one in zip(*rounds, strict=True))
        floor = {name: statistics.median(taken[name] for taken in floors) for name in floors[0]}
        driver = None
        if driver_parts is not None:
            driver = measure_run(whole, work, cores, form=RunForm(direct=True, num_parts=driver_parts, profile=True))
        return WholeFigures(records, parts, medians, floor, driver)
    finally:
        forget_readers()
        shutil.rmtree(work, ignore_errors=True)


def _run(state: SyntheticState, folder: Path, *, direct: bool) -> tuple[WholeFigure, str]:
    """Return the figures of one production and a digest of all its parts."""
    shutil.rmtree(folder, ignore_errors=True)
    # Each run opens the database again, as a process of its own would.
    forget_readers()
    executor, read, written, began = _TimedExecutor(), *_file_bytes(), CPU()
    timings = run_whole(executor, state, folder, RANGE_BYTES_TARGET, write_dataset=not direct, keep_work=True)
    seconds = CPU() - began
    read_after, written_after = _file_bytes()
    stages: dict[str, float] = defaultdict(float)
    for timing, stage_s in zip(timings, executor.stage_s, strict=True):
        stages[timing.stage] += stage_s
    stages[DRIVER] = seconds - sum(executor.stage_s)
    work_bytes = sum(file.stat().st_size for name in ("work", "dataset") for file in (folder / name).rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for part in sorted((folder / "published").rglob("state_part_*")):
        digest.update(part.name.encode() + part.read_bytes())
    tries = state.context.shards[0].state_root is not None
    figure = WholeFigure(tries, direct, seconds, dict(stages), work_bytes, read_after - read, written_after - written)
    return figure, digest.hexdigest()


def _file_bytes() -> tuple[int, int]:
    """Return how many bytes this process has read and written by calls (Linux)."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"]), int(counts["wchar"])


def _median(figures: Sequence[WholeFigure]) -> WholeFigure:
    return sorted(figures, key=lambda figure: figure.seconds)[len(figures) // 2]


def _floors(state: SyntheticState, folder: Path) -> tuple[int, dict[str, float]]:
    """Return the number of parts, and the processor seconds of each floor."""
    shutil.rmtree(folder, ignore_errors=True)
    forget_readers()
    runner, kernel, source = silent_runner(), NativeKernel(), NodeSource(str(state.home), state.context)
    shard = state.context.shards[0]
    work = direct_work_folder(f"file://{folder}/work", state.context, shard.shard_uid, "floors")
    planned = plan_direct(runner, kernel, DirectOrigin(source, shard, work), None, RANGE_BYTES_TARGET)
    built = build_edges(runner, kernel, planned, source)
    assert built.state_root, "boundary nodes are left"
    floors: dict[str, float] = defaultdict(float)
    hashes: set[bytes] = set()
    for index in range(len(planned.plans)):
        hashes |= _part_floors(planned, index, floors)
    forget_readers()
    floors["scan"] = seconds_of(lambda: scan_node(state, sorted(hashes)), CPU)
    return len(planned.plans), dict(floors)


def _part_floors(planned: PlannedShard, index: int, floors: dict[str, float]) -> set[bytes]:
    """Add one part's floors; return the hashes of the values that its records refer to."""
    kernel, plan = NativeKernel(), planned.plans[index]
    records = planned.records.read(plan)
    build = kernel.build(records, planned.records.read_values(records), plan.left_key, plan.key_end)
    assert build.interior is not None, "it was asked for"
    strings = hashed_strings(records, build.interior)
    part = assemble_with(kernel, planned.work, plan, build.interior)
    entries, stored = part_entries(part), encode_state_part(part, Encoding.V1, ZSTD_LEVEL_DEFAULT)
    floors["SHA-256, building"] += seconds_of(lambda: hash_all(strings), CPU)
    floors["SHA-256, validating"] += seconds_of(lambda: hash_all(entries), CPU)
    floors["zstd"] += seconds_of(lambda: compress_once(part, ZSTD_LEVEL_DEFAULT), CPU)
    floors["SHA-256, object"] += seconds_of(lambda: hashlib.sha256(stored), CPU)
    floors["SHA-1 and SHA-256, pieces"] += seconds_of(lambda: _hash_pieces(stored), CPU)
    return {value_hash for batch in records for value_hash in batch.column(3).drop_null().to_pylist()}


def _hash_pieces(stored: bytes) -> None:
    hashlib.sha1(stored, usedforsecurity=False)
    view = memoryview(stored)
    for begin in range(0, len(stored), LEAF_BYTES):
        hashlib.sha256(view[begin : begin + LEAF_BYTES])


def print_figures(figures: WholeFigures) -> None:
    """Print the figures for people."""
    console = Console(width=150)
    table = Table(
        title=f"{figures.records:,} records, {figures.parts} parts, one core: processor microseconds a record", title_justify="left"
    )
    table.add_column("")
    for way in figures.ways:
        table.add_column(("tries, " if way.tries else "no tries, ") + ("direct" if way.direct else "dataset"), justify="right")
    for stage in dict.fromkeys(stage for way in figures.ways for stage in way.stages):
        table.add_row(stage, *(_us(way.stages.get(stage), figures.records) for way in figures.ways))
    table.add_section()
    table.add_row("whole production", *(_us(way.seconds, figures.records) for way in figures.ways))
    table.add_row(f"to the floors, {RATIO_WANTED} wanted", *(f"{way.seconds / figures.floor_s:.2f}" for way in figures.ways))
    table.add_section()
    for name in ("work_bytes", "read_bytes", "written_bytes"):
        shown = {"work_bytes": "dataset and work folder", "read_bytes": "read by calls", "written_bytes": "written"}[name]
        table.add_row(f"{shown}, bytes a record", *(f"{getattr(way, name) / figures.records:.1f}" for way in figures.ways))
    console.print(table)
    floors = ", ".join(f"{name} {_us(seconds, figures.records)}" for name, seconds in figures.floors.items())
    console.print(f"floors: {_us(figures.floor_s, figures.records)} us a record: {floors}", highlight=False)
    if figures.driver is not None:
        _print_driver(console, figures, figures.driver)


def _print_driver(console: Console, figures: WholeFigures, driver: ScaleFigure) -> None:
    a_part = driver.driver_cpu_s / driver.parts
    share = a_part / (a_part + figures.part_s)
    console.print(
        f"\na run of {driver.parts:,} parts on {driver.cores} cores: the driver takes {a_part * 1e3:.2f} ms of processor time a part, where a full part's "
        f"tasks take {figures.part_s * 1e3:.0f} ms: a share of {share:.2%}, {DRIVER_SHARE_WANTED:.0%} wanted at most",
        highlight=False,
    )
    for name, seconds in driver.driver_functions:
        console.print(f"  {seconds / driver.parts * 1e3:7.3f} ms a part  {name}", highlight=False)


def _us(seconds: float | None, records: int) -> str:
    return "" if seconds is None else f"{seconds / records * 1e6:.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = BenchmarkParser("whole", "Whole productions against the sum of their floors.")
    parser.add_state(RECORDS_DEFAULT)
    parser.add_repeats()
    parser.add_argument("--driver-parts", type=int, help="also produce in so many parts on Ray, for the driver's share")
    parser.add_argument("--cores", type=int, default=usable_cores(), help="of that run; default all")
    options = parser.parse_args(arguments)
    require_native_kernel()
    with benchmark_folder(options.folder) as folder:
        figures = run_benchmark(
            folder, options.records, options.seed, options.repeats, driver_parts=options.driver_parts, cores=options.cores
        )
    if options.json:
        print_as_json(asdict(figures))
    else:
        print_figures(figures)


if __name__ == "__main__":
    main()
