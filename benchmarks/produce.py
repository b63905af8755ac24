"""Times a whole run on a synthetic state, stage by stage, each beside its floor: what ``make bench`` runs.

    python -m benchmarks.produce --records 1000000 --cores 1,2

Measures; judges nothing but the named targets, and a missed target is reported, not an error.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command_line import BenchmarkParser, listed, number_from, print_as_json, require_native_kernel
from benchmarks.folder import benchmark_folder
from benchmarks.ledger import measure_ledger
from benchmarks.measure import usable_cores
from benchmarks.scaling import measure_scaling
from benchmarks.stage_results import Results, ScalingFigure
from benchmarks.stage_timings import time_stages
from benchmarks.synthetic_records import RECORDS_MIN
from benchmarks.synthetic_state import RECORDS_DEFAULT, SyntheticState, synthetic_state
from benchmarks.tables import judge, print_results
from benchmarks.worker_memory import measure_memory
from pipelines.dataset.export.export_records import RANGE_BYTES_TARGET

SMALLER_STATE = 5
"""Memory is measured on the state and on one of this fraction of its records."""

RANGES_PER_CORE = 4
"""Export tasks a core in the runs on Ray; a real shard has many more than there are cores."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = BenchmarkParser("produce", "Time every stage of a run against its floor.")
    parser.add_state(RECORDS_DEFAULT)
    parser.add_repeats()
    parser.add_argument(
        "--cores",
        type=lambda text: [] if text == "none" else listed(number_from(1))(text),
        default=sorted({1, usable_cores()}),
        help="for the runs on Ray, as 1,2; default one and all; none for no runs",
    )
    options = parser.parse_args(arguments)
    require_native_kernel()
    with benchmark_folder(options.folder) as folder:
        results = run_benchmark(folder, options.records, options.seed, options.cores, options.repeats)
    if options.json:
        print_as_json(results.to_json())
    else:
        print_results(results)


def run_benchmark(folder: Path, records: int, seed: int, cores: Sequence[int], repeats: int) -> Results:
    """Make the state where it is not made yet, take all figures, and judge them.

    Args:
        folder: states stay in it for the next time; all else is removed.
        cores: how many cores the runs on Ray have, one run each; none for no such runs.
    """
    state = synthetic_state(folder, records, seed)
    try:
        results, _ = time_stages(state, folder / "stages", repeats)
    finally:
        shutil.rmtree(folder / "stages", ignore_errors=True)
    results.ledger.extend(measure_ledger(state, folder / "ledger", _range_bytes(state, 1)))
    smaller = synthetic_state(folder, max(records // SMALLER_STATE, RECORDS_MIN), seed)
    for one in (smaller, state):
        results.memory.extend(measure_memory(one, folder / "memory", _range_bytes(one, 1)))
    results.scaling.extend(_median_runs(state, folder / "scaling", cores, repeats))
    results.targets.extend(judge(results))
    return results


def _median_runs(state: SyntheticState, folder: Path, cores: Sequence[int], repeats: int) -> list[ScalingFigure]:
    """Return for each number of cores the run of median length; runs take turns, as the stages and their floors do."""
    rounds = [[measure_scaling(state, folder, count, _range_bytes(state, max(cores))) for count in cores] for _ in range(repeats)]
    return [sorted(runs, key=lambda run: run.seconds)[len(runs) // 2] for runs in zip(*rounds, strict=True)]


def _range_bytes(state: SyntheticState, cores: int) -> int:
    """Return a size of key ranges that gives every core some, as those of a real shard do; the real size at most."""
    stored = sum(file.stat().st_size for file in (state.home / "data").glob("*.sst"))
    return min(RANGE_BYTES_TARGET, max(stored // (RANGES_PER_CORE * cores), 1))


if __name__ == "__main__":
    main()
