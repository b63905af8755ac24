"""Produces states of several sizes in several shards and shows what grows with them, and holds the forecast against what was measured.

    python -m benchmarks.scale --records 2000000,20000000 --shards 8 --cores 1,2 --folder DIR
    python -m benchmarks.scale --records 20000,200000 --shards 3 --cores 1
    python -m benchmarks.scale --records 100000000 --shards 8 --cores 2 --way direct --check --no-requests --folder DIR

A worker's and the driver's memory stay flat, objects, bytes and seconds grow in proportion: the tables show how nearly. Each size is produced
once on each number of cores with its files memory-mapped, as on one machine, and once read by ranges, as from a bucket, where every
request is counted. What does not fit the disk is left out, and the forecast speaks for it. Judges nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.command_line import BenchmarkParser, listed, number_from, require_native_kernel
from benchmarks.folder import benchmark_folder
from benchmarks.measure import usable_cores
from benchmarks.scale_model import compare_amounts, compare_processor, compare_seconds, compare_sizes, costs_of
from benchmarks.scale_run import RunForm, ScaleFigure, figure_from_json, measure_run
from benchmarks.scale_tables import (
    print_comparisons,
    print_driver,
    print_forecast,
    print_memory_alone,
    print_runs,
    print_sizes,
    print_stages,
)
from benchmarks.schedule import print_forecasts
from benchmarks.stage_results import MemoryFigure
from benchmarks.synthetic_state import RECORDS_PER_SHARD_MIN, SHARDS_MAX, find_state, synthetic_state
from benchmarks.synthetic_trie import has_tries, state_with_tries
from benchmarks.worker_memory import measure_memory
from pipelines.dataset.export.export_records import RANGE_BYTES_TARGET
from pipelines.producing.forecast.stage_costs import GIB, StageCosts

WITH_DATASET, DIRECT = "dataset", "direct"

STATE_BYTES_PER_RECORD = 150
"""Disk that a state takes, about."""

TRIES_BYTES_PER_RECORD = 350
"""Disk that its tries take beside that, about."""

RUN_BYTES_PER_RECORD = 1_050
"""Disk that a run takes at most, about: dataset, interiors and published parts."""

DIRECT_RUN_BYTES_PER_RECORD = 280
"""The same of a run without a dataset: edges and published parts."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if min(options.records) < options.shards * RECORDS_PER_SHARD_MIN:
        parser.error(f"--records goes from {RECORDS_PER_SHARD_MIN} a shard")
    if options.figures is not None:
        documents = [json.loads(line) for line in options.figures.read_text().splitlines()]
        alone = [MemoryFigure(**document) for document in documents if "bytes_above_idle" in document]
        print_all([figure_from_json(document) for document in documents if "seconds" in document], alone)
        return
    require_native_kernel()
    with benchmark_folder(options.folder) as folder:
        figures, alone = run_benchmark(folder, options)
    if not options.json:
        print_all(figures, alone)


def run_benchmark(folder: Path, options: argparse.Namespace) -> tuple[list[ScaleFigure], list[MemoryFigure]]:
    """Make each state where it is not made yet, and produce it; states stay in the folder, all else is removed."""
    figures: list[ScaleFigure] = []
    alone: list[MemoryFigure] = []
    for records in sorted(options.records):
        if not _fits(folder, records, options):
            continue
        _tell(f"making a state of {records:,} records in {options.shards} shards")
        state = synthetic_state(folder, records, options.seed, options.shards)
        if options.tries:
            _tell("adding its tries")
            state = state_with_tries(state)
        for cores in [] if options.memory_alone else sorted(options.cores):
            _tell(f"producing {records:,} records on {cores} cores")
            form = RunForm(direct=options.way == DIRECT, check=options.check)
            figures.append(_ended(measure_run(state, folder / "run", cores, form=form), options.json))
        if options.requests and not options.memory_alone:
            _tell(f"producing {records:,} records on {max(options.cores)} cores, read by ranges")
            form = RunForm(direct=options.way == DIRECT)
            figures.append(_ended(measure_run(state, folder / "run", max(options.cores), by_ranges=True, form=form), options.json))
        if options.memory_alone:
            _tell(f"producing {records:,} records, each stage in a new process")
            alone += _worst_shards(measure_memory(state, folder / "run", RANGE_BYTES_TARGET))
            if options.json:
                print("\n".join(json.dumps(asdict(figure)) for figure in alone if figure.records == records), flush=True)
    return figures, alone


def _worst_shards(figures: Sequence[MemoryFigure]) -> list[MemoryFigure]:
    """Return each stage's figure of the shard that took most."""
    worst: dict[str, MemoryFigure] = {}
    for figure in figures:
        worst[figure.stage] = max(figure, worst.get(figure.stage, figure), key=lambda one: one.bytes_above_idle)
    return list(worst.values())


def _ended(figure: ScaleFigure, as_json: bool) -> ScaleFigure:
    _tell(f"took {figure.seconds:.1f} s" + (f", checked in {figure.check_s:.1f} s" if figure.check_s else ""))
    if as_json:
        print(json.dumps(asdict(figure)), flush=True)
    return figure


def print_all(figures: Sequence[ScaleFigure], alone: Sequence[MemoryFigure] = ()) -> None:
    """Print every table that there are figures for."""
    if alone:
        print_memory_alone(alone)
    if not figures:
        return
    mapped = [figure for figure in figures if not figure.by_ranges]
    print_runs(mapped)
    print_stages(mapped)
    print_driver(mapped)
    print_sizes(mapped)
    comparisons = [one for figure in figures if figure.by_ranges for one in compare_amounts(figure)]
    # Stages of a run without a dataset are others: it is held against the costs that the forecast has by itself.
    for figure in mapped:
        if figure.direct:
            comparisons += [*compare_sizes(figure), compare_seconds(figure, StageCosts()), compare_processor(figure, StageCosts())]
    exporting = [figure for figure in mapped if not figure.direct]
    first = next((figure for figure in exporting if figure.cores == 1), None)
    if first is not None:
        costs = costs_of(first)
        comparisons += [compare_seconds(figure, costs) for figure in exporting]
        comparisons += [compare_processor(figure, costs_of(first, processor=True)) for figure in exporting]
    print_comparisons(comparisons)
    if first is not None:
        print_forecast(costs, exporting[-1], sorted({figure.cores for figure in exporting}))
        print(f"\nstage costs of the first run: {costs.core_s:.1f} core seconds a GiB of memory usage")
        print_forecasts(costs)


def _fits(folder: Path, records: int, options: argparse.Namespace) -> bool:
    """Return whether a state and its run leave enough of the disk free."""
    folder.mkdir(parents=True, exist_ok=True)
    made = find_state(folder, records, options.seed, options.shards)
    needed = 0 if made else STATE_BYTES_PER_RECORD
    needed += TRIES_BYTES_PER_RECORD if options.tries and not (made and has_tries(made)) else 0
    needed += DIRECT_RUN_BYTES_PER_RECORD if options.way == DIRECT else RUN_BYTES_PER_RECORD
    left = shutil.disk_usage(folder).free - records * needed
    if left >= options.keep_free_gib * GIB:
        return True
    _tell(f"{records:,} records are left out: their run would leave {left / GIB:.0f} GiB of the disk free, not {options.keep_free_gib:g}")
    return False


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _parser() -> BenchmarkParser:
    parser = BenchmarkParser("scale", "Show what grows with the state, and what does not.")
    parser.add_state([2_000_000, 20_000_000])
    parser.add_argument("--shards", type=number_from(1, SHARDS_MAX), default=8, help=f"1 to {SHARDS_MAX}; default %(default)s")
    parser.add_argument(
        "--cores", type=listed(number_from(1)), default=sorted({1, usable_cores()}), help="of each run; default one and all"
    )
    parser.add_argument("--way", choices=(WITH_DATASET, DIRECT), default=WITH_DATASET, help="direct: write no dataset; default %(default)s")
    parser.add_argument(
        "--tries", action="store_true", help="with the shards' tries in the node's State column: parts go out before their roots"
    )
    parser.add_argument("--check", action="store_true", help="check what is published, with 5 %% of each shard's parts")
    parser.add_argument("--no-requests", dest="requests", action="store_false", help="leave out the runs that count requests")
    parser.add_argument(
        "--memory-alone", action="store_true", help="instead of all that, produce once with a new process for each stage of each shard"
    )
    parser.add_argument("--keep-free-gib", type=float, default=25, help="of the disk, at all times; default %(default)s")
    parser.add_argument("--figures", type=Path, help="lines of JSON of earlier runs: print their tables and measure nothing")
    return parser


if __name__ == "__main__":
    main()
