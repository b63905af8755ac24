"""Forecasts epochs of mainnet's size on clusters of 16 to 1,024 cores from measured stage costs, and checks the forecast on this machine.

    python -m benchmarks.schedule --records 500000
    python -m benchmarks.schedule --costs results.json      # of `python -m benchmarks.produce --json`; measures nothing

The check: a run on one core gives the stage costs; the forecast of a run on all cores from them stands beside that run as measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.folder import benchmark_folder
from benchmarks.measure import usable_cores
from benchmarks.scaling import measure_scaling
from benchmarks.synthetic_records import RECORDS_MAX, RECORDS_MIN
from benchmarks.synthetic_state import SEED_DEFAULT, SyntheticState, synthetic_state
from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_records import RANGE_BYTES_TARGET, ExportSettings
from pipelines.execution.stage_runner import silent_runner
from pipelines.kernel.native import NativeKernel, is_available
from pipelines.near.node.node_store import NodeSource
from pipelines.producing.build.work_folder import work_folder_for
from pipelines.producing.build_shard import plan_shard
from pipelines.producing.forecast.epoch_shape import EpochShape, epoch_shape
from pipelines.producing.forecast.forecast_epoch import Cluster, EpochForecast, forecast_epoch
from pipelines.producing.forecast.stage_costs import GIB, StageCosts, stage_costs_from_benchmark

MAINNET = epoch_shape(9, 180 * GIB, round(38.8 * GIB))
"""Nine shards, the largest of 38.8 GiB in over 1,300 parts, and some 6,000 parts in all."""

CORES = (16, 32, 64, 128, 256, 512, 1024)

EPOCH_S = 7 * 3600
"""About how long an epoch of mainnet lasts."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    options = _parser().parse_args(arguments)
    if options.costs is None:
        if not RECORDS_MIN <= options.records <= RECORDS_MAX:
            _parser().error(f"--records goes from {RECORDS_MIN} to {RECORDS_MAX}")
        if not is_available():
            raise SystemExit("The costs are those of the native kernel, which is not installed; `make setup` builds it where cargo is.")
        with benchmark_folder(options.folder) as folder:
            costs = _measured(folder, options.records)
    else:
        costs = stage_costs_from_benchmark(json.loads(options.costs.read_text()), str(options.costs))
    print(f"stage costs: {costs.core_s:.1f} core seconds a GiB of memory usage")
    print_forecasts(costs)


def _measured(folder: Path, records: int) -> StageCosts:
    """Run on one core and on all, print how well the forecast of the latter holds, and return the costs."""
    state = synthetic_state(folder, records, SEED_DEFAULT)
    stored = sum(file.stat().st_size for file in (state.home / "data").glob("*.sst"))
    cores = usable_cores()
    range_bytes = min(RANGE_BYTES_TARGET, max(stored // (4 * cores), 1))
    one = measure_scaling(state, folder / "runs", 1, range_bytes)
    memory_usage = _memory_usage(state, folder / "planned")
    costs = stage_costs_from_benchmark({"memory_usage": memory_usage, "scaling": [{"cores": 1, "stages": one.stages}]}, "this run")
    if cores > 1:
        measured = measure_scaling(state, folder / "runs", cores, range_bytes)
        local = Cluster(
            cores,
            cores,
            1e12,
            cores,
            1e12,
            1e12,
            request_s=0.0,
            request_bytes_per_s=1e12,
            driver_task_s=0.001,
            folders_mapped=True,
            start_s=0.0,
        )
        # The machine itself gives many cores less than as many times one: shared caches, memory, clock.
        gain = measured.hash_mb_per_s / one.hash_mb_per_s / cores
        slower = replace(costs, **{name: getattr(costs, name) / gain for name in _COSTS})
        forecast = forecast_epoch(EpochShape((memory_usage,)), slower, local, early=False)
        print(
            f"check on {cores} cores: forecast {forecast.last_part_s:.2f} s, measured {measured.seconds:.2f} s, "
            f"ratio {forecast.last_part_s / measured.seconds:.2f}"
        )
    return costs


def _memory_usage(state: SyntheticState, folder: Path) -> int:
    """Return the memory usage of the state's trie: export and plan it again."""
    runner = silent_runner()
    try:
        (dataset,) = export_epoch(
            runner, NodeSource(str(state.home), state.context), state.context, ExportSettings(f"file://{folder}/dataset", durable=False)
        )
        return plan_shard(runner, NativeKernel(), dataset, work_folder_for(f"file://{folder}/work", dataset), None).memory_usage
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_COSTS = ("export_s", "values_s", "structure_s", "boundaries_s", "build_s", "seal_s", "publish_s")


def print_forecasts(costs: StageCosts) -> None:
    """Print when parts of an epoch of mainnet's size are out, by the number of cores, and what limits."""
    print(f"an epoch of {len(MAINNET.memory_usages)} shards, {MAINNET.memory_usage / GIB:.0f} GiB, {sum(MAINNET.num_parts):,} parts")
    for place, folders_mapped in (("on a file system that all machines map", True), ("in a bucket", False)):
        print(f"\ndataset and work folder {place}:\n")
        print("| worker cores | exported | first part | last part | of an epoch | cores busy | most time goes to |")
        print("|---:|---:|---:|---:|---:|---:|---|")
        for cores in CORES:
            print(_row(cores, forecast_epoch(MAINNET, costs, Cluster(worker_cores=cores, folders_mapped=folders_mapped))))


def _row(cores: int, forecast: EpochForecast) -> str:
    limits = ", ".join(f"{limit} {seconds:.0f} s" for limit, seconds in forecast.limits[:2])
    return (
        f"| {cores:,} | {forecast.exported_s:.0f} s | {forecast.first_part_s:.0f} s | {forecast.last_part_s:.0f} s "
        f"| {forecast.last_part_s / EPOCH_S:.1%} | {forecast.busy:.0%} | {limits} |"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedule", description="Forecast epochs of mainnet's size.")
    parser.add_argument("--records", type=int, default=1_000_000, help="of the state that costs are measured on; default %(default)s")
    parser.add_argument("--costs", type=Path, help="JSON of `python -m benchmarks.produce --json` instead of measuring")
    parser.add_argument("--folder", type=Path, help="where the state is kept for the next run; default a folder that is removed")
    return parser


if __name__ == "__main__":
    main()
