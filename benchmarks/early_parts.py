"""Times when a shard's first and last part are published: each as soon as it validates alone, or all after the shard's root.

    python -m benchmarks.early_parts --records 500000 --num-parts 32

Whole productions of one state whose trie is in the State column, in this process on one core, both ways in turns; and the reads of boundary
nodes for themselves. The two ways' parts are compared byte for byte.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.command_line import BenchmarkParser, number_from, print_as_json, require_native_kernel
from benchmarks.folder import benchmark_folder
from benchmarks.synthetic_state import SyntheticState, synthetic_state
from benchmarks.synthetic_trie import TRIE_RECORDS_MAX, trie_state
from benchmarks.whole_run import run_whole
from pipelines.dataset.arrow_dataset import load_shard
from pipelines.dataset.export.export_records import RANGE_BYTES_TARGET
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.progress import StageProgress
from pipelines.execution.stage_runner import silent_runner
from pipelines.kernel.native import NativeKernel
from pipelines.near.node.node_store import NodeSource
from pipelines.near.node.rocksdb_reader import forget_readers
from pipelines.near.trie.walk_to_boundaries import walk_to_boundaries
from pipelines.producing.build.boundary_nodes import BOUNDARIES_PER_FILE
from pipelines.producing.build.work_folder import work_folder_for
from pipelines.producing.build_shard import plan_shard

EARLY, LATE = "each part alone", "after the shard's root"


@dataclass(frozen=True, slots=True)
class WayFigure:
    """Whole productions one way: medians."""

    way: str
    exported_s: float
    """From the start until the source is not needed for records any more."""
    first_part_s: float
    first_part_cpu_s: float
    """Processor seconds until the first part is out: what else the machine does hardly counts."""
    last_part_s: float
    whole_s: float
    cpu_s: float
    """Processor seconds of everything."""
    work_bytes: int
    """What was written to the work folder, the dataset not counted."""


@dataclass(frozen=True, slots=True)
class BoundaryFigure:
    """Reads of boundary nodes."""

    boundaries: int
    rows_alone: float
    """Rows of the State column that a boundary takes for itself, in the mean."""
    rows_together: float
    """The same when boundaries that share a task share what they read."""
    ms_together: float
    """Milliseconds a boundary."""


@dataclass(frozen=True, slots=True)
class EarlyFigures:
    """All figures of a run."""

    records: int
    parts: int
    ways: tuple[WayFigure, ...]
    boundaries: BoundaryFigure


class _Moments:
    """Notes when parts come."""

    def __init__(self) -> None:
        self.began, self.began_cpu = time.perf_counter(), time.process_time()
        self.exported_s = self.first_part_s = self.first_part_cpu_s = self.last_part_s = 0.0

    def stage(self, progress: StageProgress) -> None:
        """Look for parts that were published."""
        passed_s = time.perf_counter() - self.began
        if progress.stage == "values":
            self.exported_s = passed_s
        if progress.stage == "publish" and progress.parts:
            self.first_part_s = self.first_part_s or passed_s
            self.first_part_cpu_s = self.first_part_cpu_s or time.process_time() - self.began_cpu
            self.last_part_s = passed_s

    def note(self, message: str) -> None:
        """Refuse a run that did not go the way that it was meant to."""
        assert "wait for its state root" not in message, message


def run_benchmark(folder: Path, records: int, num_parts: int | None, seed: int, repeats: int) -> EarlyFigures:
    """Make the state and take all figures; what is made beside the synthetic state is removed."""
    made = synthetic_state(folder, records, seed)
    work = folder / f"early-{records}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        tries = trie_state(made, work / "home", ())
        state = replace(made, home=tries.home, context=tries.context)
        rounds = [[_run(state, work / "run", num_parts, way) for way in (EARLY, LATE)] for _ in range(repeats)]
        assert len({digest for one in rounds for _, digest in one}) == 1, "both ways give the same parts"
        ways = tuple(_median([figure for figure, _ in runs]) for runs in zip(*rounds, strict=True))
        return EarlyFigures(records, *_boundaries(state, work / "run", num_parts, ways))
    finally:
        forget_readers()
        shutil.rmtree(work, ignore_errors=True)


def _run(state: SyntheticState, folder: Path, num_parts: int | None, way: str) -> tuple[WayFigure, str]:
    """Return the figures of one production and a digest of all its parts."""
    shutil.rmtree(folder, ignore_errors=True)
    # Each run opens the database again, as a process of its own would.
    forget_readers()
    moments = _Moments()
    run_whole(
        InProcessExecutor(),
        state,
        folder,
        RANGE_BYTES_TARGET,
        num_parts=num_parts,
        publish_early=way == EARLY,
        keep_work=True,
        progress=moments,
    )
    whole_s, cpu_s = time.perf_counter() - moments.began, time.process_time() - moments.began_cpu
    work_bytes = sum(file.stat().st_size for file in (folder / "work").rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for part in sorted((folder / "published").rglob("state_part_*")):
        digest.update(part.name.encode() + part.read_bytes())
    seconds = (moments.exported_s, moments.first_part_s, moments.first_part_cpu_s, moments.last_part_s, whole_s, cpu_s)
    return WayFigure(way, *seconds, work_bytes), digest.hexdigest()


def _median(figures: Sequence[WayFigure]) -> WayFigure:
    seconds = {
        name: statistics.median(getattr(figure, name) for figure in figures)
        for name in ("exported_s", "first_part_s", "first_part_cpu_s", "last_part_s", "whole_s", "cpu_s")
    }
    return replace(figures[0], **seconds)


def _boundaries(
    state: SyntheticState, folder: Path, num_parts: int | None, ways: tuple[WayFigure, ...]
) -> tuple[int, tuple[WayFigure, ...], BoundaryFigure]:
    """Read the boundaries of the last run again, together and each alone."""
    shard = state.context.shards[0]
    dataset = load_shard(f"file://{folder}/dataset", state.context, shard.shard_uid)
    assert dataset is not None and shard.state_root is not None, "the run before left it, and its trie has a root"
    runner = silent_runner()
    planned = plan_shard(runner, NativeKernel(), dataset, work_folder_for(f"file://{folder}/work", dataset), num_parts)
    keys = [plan.key_begin for plan in planned.with_records[1:]]
    forget_readers()
    column = NodeSource(str(state.home), state.context).state_column(shard).open()
    began = time.perf_counter()
    together = sum(
        walk_to_boundaries(column, shard.state_root, keys[begin : begin + BOUNDARIES_PER_FILE]).rows
        for begin in range(0, len(keys), BOUNDARIES_PER_FILE)
    )
    seconds = time.perf_counter() - began
    alone = sum(walk_to_boundaries(column, shard.state_root, [key]).rows for key in keys)
    # A shard in one part has no boundary to read.
    count = max(len(keys), 1)
    return len(planned.plans), ways, BoundaryFigure(len(keys), alone / count, together / count, seconds / count * 1e3)


def print_figures(figures: EarlyFigures) -> None:
    """Print the figures for people."""
    console = Console(width=140)
    table = Table(title=f"{figures.records:,} records, {figures.parts} parts, one core", title_justify="left")
    table.add_column("published")
    for name in ("exported, s", "first part, s", "(processor)", "last part, s", "whole, s", "(processor)", "work folder, MB"):
        table.add_column(name, justify="right")
    for way in figures.ways:
        seconds = (way.exported_s, way.first_part_s, way.first_part_cpu_s, way.last_part_s, way.whole_s, way.cpu_s)
        table.add_row(way.way, *(f"{one:.2f}" for one in seconds), f"{way.work_bytes / 1e6:.1f}")
    console.print(table)
    read = figures.boundaries
    console.print(
        f"{read.boundaries} boundaries: {read.rows_alone:.0f} rows each alone, {read.rows_together:.0f} each together, {read.ms_together:.2f} ms each"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = BenchmarkParser("early_parts", "Time first and last part, published both ways.")
    parser.add_state(500_000, TRIE_RECORDS_MAX)
    parser.add_repeats()
    parser.add_argument("--num-parts", type=number_from(2), help="parts of the shard, at least 2; default as many as nearcore makes")
    options = parser.parse_args(arguments)
    require_native_kernel()
    with benchmark_folder(options.folder) as folder:
        figures = run_benchmark(folder, options.records, options.num_parts, options.seed, options.repeats)
    if options.json:
        print_as_json(asdict(figures))
    else:
        print_figures(figures)


if __name__ == "__main__":
    main()
