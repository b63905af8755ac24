"""Times what a backfill reads by: a walk over the State column and a roll forward, beside the flat-state path in the same run.

    python -m benchmarks.backfill --records 50000,200000 --changes 100,1000,10000

Everything runs in this process on one core and is timed in processor seconds, so a figure is records a second a core. Roll forwards are
taken on each size of state, for changed records that follow each other and for ones that are spread over the shard: what they cost should
follow the changes, and the files that they touch, not the state.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.command_line import BenchmarkParser, listed, number_from, print_as_json, require_native_kernel
from benchmarks.folder import benchmark_folder
from benchmarks.measure import CPU, interleaved_medians, seconds_of
from benchmarks.synthetic_state import synthetic_state
from benchmarks.synthetic_trie import TRIE_RECORDS_MAX, TrieState, trie_state
from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_records import ExportSettings
from pipelines.dataset.roll_forward.roll_forward_shard import roll_forward_shard
from pipelines.execution.stage_runner import StageRunner, silent_runner
from pipelines.near.node.node_store import NodeSource
from pipelines.near.node.rocksdb_reader import forget_readers
from pipelines.near.trie.trie_walk_source import StateWalkSource
from schemas.nearcore.epoch_context import EpochContext

FILE_BYTES_TARGET = 1 << 20
"""Dataset files here: the states are small, and a real shard has as many files of 64 MiB."""


@dataclass(frozen=True, slots=True)
class ReadFigure:
    """An export of a whole state."""

    way: str
    records: int
    seconds: float
    records_per_s: float


@dataclass(frozen=True, slots=True)
class RollFigure:
    """A roll forward."""

    records: int
    changes: int
    spread: bool
    files: int
    files_touched: int
    seconds: float
    changes_per_s: float


@dataclass(frozen=True, slots=True)
class BackfillFigures:
    """All figures of a run."""

    reads: tuple[ReadFigure, ...]
    rolls: tuple[RollFigure, ...]


def run_benchmark(folder: Path, sizes: Sequence[int], changes: Sequence[int], seed: int, repeats: int) -> BackfillFigures:
    """Make the states and take all figures; what is made beside the synthetic states is removed."""
    reads: list[ReadFigure] = []
    rolls: list[RollFigure] = []
    for records in sizes:
        state = synthetic_state(folder, records, seed)
        work = folder / f"backfill-{records}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            wanted = [(count, spread) for spread in (False, True) for count in changes if count <= records // 10]
            tries = trie_state(state, work / "home", wanted)
            reads += _read_figures(tries, work, repeats)
            rolls += _roll_figures(tries, work, repeats)
        finally:
            forget_readers()
            shutil.rmtree(work, ignore_errors=True)
    return BackfillFigures(tuple(reads), tuple(rolls))


def _settings(folder: Path) -> ExportSettings:
    return ExportSettings(str(folder), file_bytes_target=FILE_BYTES_TARGET, record_batch_bytes_max=FILE_BYTES_TARGET // 8)


def _runner() -> StageRunner:
    return silent_runner()


def _export(source: NodeSource, context: EpochContext, folder: Path) -> ShardDataset:
    shutil.rmtree(folder, ignore_errors=True)
    (dataset,) = export_epoch(_runner(), source, context, _settings(folder))
    return dataset


def _read_figures(tries: TrieState, work: Path, repeats: int) -> list[ReadFigure]:
    flat = NodeSource(str(tries.home), tries.context)
    walk = StateWalkSource.of(flat, (tries.context.shards[0].shard_uid,))
    seconds = interleaved_medians(
        repeats,
        lambda: _export(flat, tries.context, work / "flat"),
        lambda: _export(walk, tries.context, work / "walk"),
        clock=CPU,
    )
    return [
        ReadFigure(way, tries.records, taken, tries.records / taken)
        for way, taken in zip(("flat state", "state walk"), seconds, strict=True)
    ]


def _roll_figures(tries: TrieState, work: Path, repeats: int) -> list[RollFigure]:
    older = _export(NodeSource(str(tries.home), tries.context), tries.context, work / "older")
    old_files = {file.sha256 for file in older.summary.files}
    figures = []
    for changed in tries.changed:
        made: list[ShardDataset] = []

        def roll(context: EpochContext = changed.context, made: list[ShardDataset] = made) -> None:
            runner, shard = _runner(), context.shards[0]
            made.append(roll_forward_shard(runner, str(tries.home), older, context, shard, layout=None, settings=_settings(work / "older")))

        seconds = sorted(seconds_of(roll, CPU) for _ in range(repeats))[repeats // 2]
        files = made[-1].summary.files
        touched = sum(file.sha256 not in old_files for file in files)
        figures.append(RollFigure(tries.records, changed.changes, changed.spread, len(files), touched, seconds, changed.changes / seconds))
    return figures


def print_figures(figures: BackfillFigures) -> None:
    """Print the figures for people."""
    console = Console(width=140)
    table = Table(title="a whole state, one core", title_justify="left")
    for name in ("way", "records", "seconds", "records/s", "to flat state"):
        table.add_column(name, justify="left" if name == "way" else "right")
    flat = {figure.records: figure for figure in figures.reads if figure.way == "flat state"}
    for read in figures.reads:
        ratio = read.seconds / flat[read.records].seconds
        table.add_row(read.way, f"{read.records:,}", f"{read.seconds:.2f}", f"{read.records_per_s:,.0f}", f"{ratio:.1f} times")
    console.print(table)
    table = Table(title="roll forward, one core", title_justify="left")
    for name in ("records", "changes", "where", "files written", "seconds", "changes/s", "to flat state"):
        table.add_column(name, justify="left" if name == "where" else "right")
    for roll in figures.rolls:
        table.add_row(
            f"{roll.records:,}",
            f"{roll.changes:,}",
            "spread" if roll.spread else "together",
            f"{roll.files_touched} of {roll.files}",
            f"{roll.seconds:.3f}",
            f"{roll.changes_per_s:,.0f}",
            f"{roll.seconds / flat[roll.records].seconds:.2f} times",
        )
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = BenchmarkParser("backfill", "Time State walk and roll forward beside flat state.")
    parser.add_state([50_000, 200_000], TRIE_RECORDS_MAX)
    parser.add_repeats()
    parser.add_argument(
        "--changes",
        type=listed(number_from(1)),
        default=[100, 1_000, 10_000],
        help="changed records, as 100,1000; up to a tenth of a state",
    )
    options = parser.parse_args(arguments)
    require_native_kernel()
    with benchmark_folder(options.folder) as folder:
        figures = run_benchmark(folder, options.records, options.changes, options.seed, options.repeats)
    if options.json:
        print_as_json(asdict(figures))
    else:
        print_figures(figures)


if __name__ == "__main__":
    main()
