"""Whole runs on Ray, on one core and on more, beside what the machine itself gains from as many cores."""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa

from benchmarks.floors import hash_all
from benchmarks.measure import seconds_of
from benchmarks.stage_results import ScalingFigure
from benchmarks.synthetic_state import SyntheticState
from benchmarks.whole_run import run_whole

HASHED_BYTES = 2 << 30
"""What each process hashes when the machine's own gain is measured: over a second's work."""

_STRING_BYTES = 256
_PASSES = 64


@dataclass(frozen=True, slots=True)
class WarmUpTask:
    """Loads in a worker what tasks need, and holds it long enough for the other workers to get theirs."""

    seconds: float = 1.0

    def run(self) -> int:
        """Return the worker's process id."""

        time.sleep(self.seconds)
        return os.getpid()


def measure_scaling(state: SyntheticState, folder: Path, cores: int, export_range_bytes: int) -> ScalingFigure:
    """Make a whole run on an embedded Ray with this many cores.

    Ray's start and the loading of libraries are not counted. The run has a process of its own, since Ray can't be told
    another number of cores once it runs.

    Args:
        folder: removed before and after.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        seconds, stages = process.submit(_run_on_ray, state, folder, cores, export_range_bytes).result()
    shutil.rmtree(folder)
    return ScalingFigure(cores, seconds, stages, hash_mb_per_s(cores))


def _run_on_ray(state: SyntheticState, folder: Path, cores: int, export_range_bytes: int) -> tuple[float, dict[str, float]]:
    from pipelines.execution.executor import TaskNeeds
    from pipelines.execution.on_ray import RayExecutor

    executor = RayExecutor(cpus=cores)
    try:
        list(executor.run([WarmUpTask()] * cores, TaskNeeds(0)))
        began = time.perf_counter()
        timings = run_whole(executor, state, folder, export_range_bytes)
        seconds = time.perf_counter() - began
    finally:
        executor.close()
    stages: dict[str, float] = defaultdict(float)
    for timing in timings:
        stages[timing.stage] += timing.seconds
    return seconds, dict(stages)


def hash_mb_per_s(processes: int) -> float:
    """Return what the processes reach together while all of them hash."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        # A first round starts all of them, so that the second one's overlap.
        for _ in range(2):
            speeds = list(pool.map(hash_speed, [HASHED_BYTES] * processes))
    return sum(speeds)


def hash_speed(size: int) -> float:
    """Return how many MB/s this process hashes on one core, over so many bytes."""
    strings = pa.array([bytes(_STRING_BYTES)] * (size // _STRING_BYTES // _PASSES), pa.binary())

    def hash_passes() -> None:
        for _ in range(_PASSES):
            hash_all(strings)

    return size / seconds_of(hash_passes) / 1e6
