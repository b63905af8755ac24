"""A Ray cluster of single-core machines: what a second one gains, and the driver's memory over many tasks.

    python -m benchmarks.cluster --records 500000 --folder bench

All machines are this one: `benchmarks.pinned_cluster` holds every process of each to a core. The gain stands beside what the same cores
gain where nothing is done but hashing. The published epoch, the dataset and the work folder are one folder that all machines see: a bucket's
servers are no part of any machine, so there is none here that would take a core from one of them.
"""

from __future__ import annotations

import os
import shutil
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

import psutil

from benchmarks.command_line import BenchmarkParser, listed, number_from, print_as_json
from benchmarks.folder import benchmark_folder
from benchmarks.pinned_cluster import MisplacedProcessError, hash_on, pinned_cluster, run_pinned
from benchmarks.scaling import WarmUpTask
from benchmarks.synthetic_state import SyntheticState, synthetic_state
from benchmarks.whole_run import run_whole
from pipelines.execution.executor import TaskNeeds

GAIN_WANTED: Final = 1.6
"""Least throughput of two machines, with one machine's as 1."""

RSS_GROWTH_BYTES_MAX: Final = 16 << 20
"""Most that the driver may grow from the second sample to the last."""

RANGE_BYTES: Final = 8 << 20
"""Stored bytes that one export task reads, about."""

SAMPLES: Final = 10


@dataclass(frozen=True, slots=True)
class NumberTask:
    """Next to nothing to do: what is timed is the driver and Ray."""

    number: int

    def run(self) -> int:
        """Return the number."""
        return self.number


@dataclass(frozen=True, slots=True)
class ClusterRun:
    """A whole run on a cluster of single-core machines."""

    seconds: float
    stages_s: dict[str, float]
    """Seconds by stage."""
    processor_s: list[dict[str, float]]
    """Processor seconds, a machine a dict by what its processes are."""

    @property
    def busiest_s(self) -> float:
        """Processor seconds of the machine that has most of them: less than that the run can't take, however it is scheduled."""
        return max(sum(machine.values()) for machine in self.processor_s)


@dataclass(frozen=True, slots=True)
class ClusterFigure:
    """Whole runs on one number of machines, a round each."""

    machines: int
    runs: list[ClusterRun]
    hash_mb_per_s: list[float]
    """What processes on the same cores reach together while all of them hash, a round each."""

    def gain(self, one: ClusterFigure) -> float:
        """Return the throughput with another figure's as 1: the median of the rounds, each of which compares runs that were neighbours."""
        return statistics.median(before.seconds / run.seconds for before, run in zip(one.runs, self.runs, strict=True))

    def processor_gain(self, one: ClusterFigure) -> float:
        """Return the same, had no machine ever waited: what other work on this machine hardly changes."""
        return statistics.median(before.busiest_s / run.busiest_s for before, run in zip(one.runs, self.runs, strict=True))

    def hash_gain(self, one: ClusterFigure) -> float:
        """Return what the cores gain where nothing is done but hashing."""
        return statistics.median(speed / before for before, speed in zip(one.hash_mb_per_s, self.hash_mb_per_s, strict=True))

    @property
    def median_run(self) -> ClusterRun:
        """The run of the median time; the faster of two."""
        return sorted(self.runs, key=lambda run: run.seconds)[(len(self.runs) - 1) // 2]


@dataclass(frozen=True, slots=True)
class DriverFigure:
    """Many tiny tasks."""

    tasks: int
    tasks_per_s: float
    rss_bytes: tuple[int, ...]
    """The driver's resident memory after each tenth of the tasks."""

    @property
    def growth_bytes(self) -> int:
        """From the second sample, when all is loaded, to the last."""
        return self.rss_bytes[-1] - self.rss_bytes[1]


def measure_rounds(state: SyntheticState, folder: Path, machines: Sequence[int], rounds: int, cores: Sequence[int]) -> list[ClusterFigure]:
    """Make whole runs on each number of machines in turn, some rounds over, so that what else this machine does falls on all alike.

    Args:
        folder: removed before and after each run.
        cores: a machine a core; at least as many as the most machines.
    Raises:
        MisplacedProcessError: a process was not held to its machine's core.
        ClusterStartError: a cluster did not start.
    """
    figures = [ClusterFigure(count, [], []) for count in machines]
    for _ in range(rounds):
        for figure in figures:
            shutil.rmtree(folder, ignore_errors=True)
            taken = tuple(cores[: figure.machines])
            figure.runs.append(run_pinned(cores[0], _run_on_cluster, state, folder, taken))
            shutil.rmtree(folder)
            figure.hash_mb_per_s.append(hash_on(taken))
    return figures


def _run_on_cluster(state: SyntheticState, folder: Path, cores: tuple[int, ...]) -> ClusterRun:
    """Make a whole run; Ray's start and the loading of libraries are not counted."""
    with pinned_cluster(cores) as cluster:
        list(cluster.executor.run([WarmUpTask()] * len(cores), TaskNeeds(0)))
        cluster.check_places()
        before, began = cluster.processor_s(), perf_counter()
        timings = run_whole(cluster.executor, state, folder, RANGE_BYTES)
        seconds, after = perf_counter() - began, cluster.processor_s()
        cluster.check_places()
    stages: dict[str, float] = defaultdict(float)
    for timing in timings:
        stages[timing.stage] += timing.seconds
    spent = [{role: end[role] - begin[role] for role in end} for begin, end in zip(before, after, strict=True)]
    return ClusterRun(seconds, dict(stages), spent)


def measure_driver(tasks: int, core: int) -> DriverFigure:
    """Run tiny tasks on a cluster of one machine, and look at the driver's memory."""
    return run_pinned(core, _drive, tasks, core)


def _drive(tasks: int, core: int) -> DriverFigure:
    # By its importable name: this module may be the one that was started, which workers do not have.
    from benchmarks.cluster import NumberTask

    driver = psutil.Process()
    rss: list[int] = []
    with pinned_cluster((core,)) as cluster:
        list(cluster.executor.run([NumberTask(0)], TaskNeeds(0)))
        began = perf_counter()
        for done, _ in enumerate(cluster.executor.run((NumberTask(number) for number in range(tasks)), TaskNeeds(0)), 1):
            if done % (tasks // SAMPLES) == 0:
                rss.append(driver.memory_info().rss)
        seconds = perf_counter() - began
    return DriverFigure(tasks, tasks / seconds, tuple(rss))


def print_figures(figures: Sequence[ClusterFigure], driver: DriverFigure) -> None:
    """Print the figures for people."""
    one = figures[0]
    for figure in figures:
        run, gain, hash_gain = figure.median_run, figure.gain(one), figure.hash_gain(one)
        print(
            f"{figure.machines} single-core machines: {run.seconds:.1f} s (rounds: "
            f"{', '.join(f'{each.seconds:.1f}' for each in figure.runs)}), gain {gain:.2f}; "
            f"hashing alone on as many cores: {statistics.median(figure.hash_mb_per_s):.0f} MB/s, gain {hash_gain:.2f}"
        )
        print("    " + ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in run.stages_s.items()))
        for number, machine in enumerate(run.processor_s, 1):
            roles = ", ".join(f"{role} {seconds:.2f}" for role, seconds in machine.items())
            print(f"    machine {number}: {sum(machine.values()):.2f} processor seconds ({roles})")
        if figure.machines == 2:
            print(f"    wanted {GAIN_WANTED}: {'met' if gain >= GAIN_WANTED else 'missed'}, {gain / hash_gain:.0%} of what hashing gains")
            print(f"    by processor seconds alone, had neither machine waited: {figure.processor_gain(one):.2f}")
    print(
        f"driver over {driver.tasks:,} tasks, all on one core: {driver.tasks_per_s:.0f} tasks/s, resident MiB "
        f"{', '.join(str(size >> 20) for size in driver.rss_bytes)}: "
        f"{'flat' if driver.growth_bytes <= RSS_GROWTH_BYTES_MAX else 'grows'}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure from the command line."""
    parser = BenchmarkParser("cluster", "A Ray cluster of single-core machines, all on this one, a core each.")
    parser.add_state(500_000)
    parser.add_argument(
        "--machines", type=listed(number_from(1)), default=[1, 2], help="numbers of machines; the first is what others are compared with"
    )
    parser.add_argument(
        "--rounds", type=number_from(1), default=3, help="how often each is run, in turns; the median counts; default %(default)s"
    )
    parser.add_argument(
        "--tasks", type=number_from(SAMPLES), default=10_000, help="tiny tasks for the driver's memory; default %(default)s"
    )
    options = parser.parse_args(arguments)
    cores = sorted(os.sched_getaffinity(0))
    if max(options.machines) > len(cores):
        parser.error(f"--machines goes from 1 to {len(cores)}: each has a core of its own")
    with benchmark_folder(options.folder) as folder:
        state = synthetic_state(folder, options.records, options.seed)
        try:
            figures = measure_rounds(state, folder / "run", options.machines, options.rounds, cores)
        except MisplacedProcessError as error:
            raise SystemExit(f"No figure is right: {error}.") from None
        driver = measure_driver(options.tasks, cores[0])
    if options.json:
        print_as_json({"runs": [asdict(figure) for figure in figures], "driver": asdict(driver)})
    else:
        print_figures(figures, driver)


if __name__ == "__main__":
    main()
