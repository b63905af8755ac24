"""A Ray cluster on this machine: what a second machine of one core gains, and the driver's memory over many tasks.

    python -m benchmarks.cluster --records 500000 --folder bench

The gain stands beside what the machine itself gains from a second core, which is all that can be had here. Every machine of the cluster
has the node's disk, being this one; the head runs no tasks, and what it and Ray's agents take is taken from the same cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Final

import psutil

from benchmarks.scaling import WarmUpTask, hash_mb_per_s
from benchmarks.synthetic_records import RECORDS_MAX, RECORDS_MIN
from benchmarks.synthetic_state import SyntheticState, synthetic_state
from benchmarks.whole_run import run_whole
from pipelines.execution.executor import Executor, TaskNeeds

GAIN_WANTED: Final = 1.6
"""Least throughput of two machines, with one machine's as 1."""

RSS_GROWTH_BYTES_MAX: Final = 16 << 20
"""Most that the driver may grow from the second sample to the last."""

RANGE_BYTES: Final = 8 << 20
"""Stored bytes that one export task reads, about."""

SAMPLES: Final = 10
OBJECT_STORE_BYTES: Final = 80 << 20
MACHINE_MEMORY_BYTES: Final = 8 << 30
PROJECT: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class NumberTask:
    """Next to nothing to do: what is timed is the driver and Ray."""

    number: int

    def run(self) -> int:
        """Return the number."""
        return self.number


@dataclass(frozen=True, slots=True)
class ClusterFigure:
    """A whole run on a cluster of single-core machines."""

    machines: int
    seconds: float
    stages_s: dict[str, float]
    """Seconds by stage."""
    hash_mb_per_s: float
    """What as many processes reach together on this machine while all of them hash."""


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


@contextmanager
def _cluster(machines: int) -> Iterator[Executor]:
    """Run a head and some machines of a core each. In a process of its own: it sets the environment that Ray reads when imported."""
    folder = tempfile.mkdtemp(prefix="rays-")
    os.environ.update(
        {"RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"},
        PYTHONPATH=str(PROJECT),
    )
    from pipelines.execution.on_ray import RayExecutor
    from pipelines.execution.placement import NODE_DISK_RESOURCE

    # Ours first: it sets more of what Ray reads.
    from ray.cluster_utils import Cluster  # isort: skip

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    )
    executor: Executor | None = None
    try:
        for _ in range(machines):
            cluster.add_node(
                num_cpus=1, memory=MACHINE_MEMORY_BYTES, object_store_memory=OBJECT_STORE_BYTES, resources={NODE_DISK_RESOURCE: 1000}
            )
        executor = RayExecutor(cluster.address)
        yield executor
    finally:
        if executor is not None:
            executor.close()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def measure_run(state: SyntheticState, folder: Path, machines: int) -> ClusterFigure:
    """Make a whole run on a cluster; Ray's start and the loading of libraries are not counted.

    Args:
        folder: removed before and after.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        seconds, stages = process.submit(_run_on_cluster, state, folder, machines).result()
    shutil.rmtree(folder)
    return ClusterFigure(machines, seconds, stages, hash_mb_per_s(machines))


def _run_on_cluster(state: SyntheticState, folder: Path, machines: int) -> tuple[float, dict[str, float]]:
    with _cluster(machines) as executor:
        list(executor.run([WarmUpTask()] * machines, TaskNeeds(0)))
        began = perf_counter()
        timings = run_whole(executor, state, folder, RANGE_BYTES)
        seconds = perf_counter() - began
    stages: dict[str, float] = defaultdict(float)
    for timing in timings:
        stages[timing.stage] += timing.seconds
    return seconds, dict(stages)


def measure_driver(tasks: int) -> DriverFigure:
    """Run tiny tasks on a cluster of one machine, and look at the driver's memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_drive, tasks).result()


def _drive(tasks: int) -> DriverFigure:
    # By its importable name: this module may be the one that was started, which workers do not have.
    from benchmarks.cluster import NumberTask

    driver = psutil.Process()
    rss: list[int] = []
    with _cluster(1) as executor:
        list(executor.run([NumberTask(0)], TaskNeeds(0)))
        began = perf_counter()
        for done, _ in enumerate(executor.run((NumberTask(number) for number in range(tasks)), TaskNeeds(0)), 1):
            if done % (tasks // SAMPLES) == 0:
                rss.append(driver.memory_info().rss)
        seconds = perf_counter() - began
    return DriverFigure(tasks, tasks / seconds, tuple(rss))


def _print_figures(figures: list[ClusterFigure], driver: DriverFigure) -> None:
    one = figures[0]
    for figure in figures:
        gain, machine_gain = one.seconds / figure.seconds, figure.hash_mb_per_s / one.hash_mb_per_s
        print(
            f"{figure.machines} machines of one core: {figure.seconds:.1f} s, gain {gain:.2f}; "
            f"hashing alone on as many cores: {figure.hash_mb_per_s:.0f} MB/s, gain {machine_gain:.2f}"
        )
        print("    " + ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in figure.stages_s.items()))
        if figure.machines == 2:
            verdict = "met" if gain >= GAIN_WANTED else f"missed: {gain / machine_gain:.0%} of what the machine gains"
            print(f"    wanted {GAIN_WANTED}: {verdict}")
    print(
        f"driver over {driver.tasks:,} tasks: {driver.tasks_per_s:.0f} tasks/s, resident MiB "
        f"{', '.join(str(size >> 20) for size in driver.rss_bytes)}: "
        f"{'flat' if driver.growth_bytes <= RSS_GROWTH_BYTES_MAX else 'grows'}"
    )


def main() -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster", description="A Ray cluster of single-core machines, all on this one."
    )
    parser.add_argument("--records", type=int, default=500_000, help=f"{RECORDS_MIN} to {RECORDS_MAX}; default %(default)s")
    parser.add_argument("--machines", default="1,2", help="numbers of machines; the first is what others are compared with")
    parser.add_argument("--tasks", type=int, default=10_000, help="tiny tasks for the driver's memory, at least 10; default %(default)s")
    parser.add_argument("--folder", type=Path, help="where the state is kept; default: nowhere")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if not RECORDS_MIN <= arguments.records <= RECORDS_MAX:
        parser.error(f"--records goes from {RECORDS_MIN} to {RECORDS_MAX}")
    if arguments.tasks < SAMPLES:
        parser.error(f"--tasks is at least {SAMPLES}")
    with tempfile.TemporaryDirectory(prefix="cluster-") as temporary:
        folder = arguments.folder or Path(temporary)
        state = synthetic_state(folder, arguments.records)
        figures = [measure_run(state, folder / "run", int(machines)) for machines in arguments.machines.split(",")]
        driver = measure_driver(arguments.tasks)
    if arguments.json:
        print(json.dumps({"runs": [asdict(figure) for figure in figures], "driver": asdict(driver)}))
    else:
        _print_figures(figures, driver)


if __name__ == "__main__":
    main()
