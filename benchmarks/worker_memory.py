"""Peak memory of each stage's worker: a whole run in which every stage has a process of its own, watched from outside of the stage."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from benchmarks.measure import forget_peak_memory, peak_memory_bytes
from benchmarks.stage_results import MemoryFigure
from benchmarks.synthetic_state import SyntheticState
from benchmarks.whole_run import run_whole
from pipelines.execution.executor import Task, TaskNeeds

R = TypeVar("R")

_MODULES = ("pipelines.near.node.node_store", "pipelines.producing.publish.publish_part", "pipelines.kernel.native", "statecast_kernel")
"""What a worker has loaded before its first task."""


@dataclass(slots=True)
class FreshProcessExecutor:
    """Runs each stage's tasks one after another in a new process, and notes how far its memory rose."""

    description: str = "a new process a stage"
    bytes_above_idle: list[int] = field(default_factory=list)
    """A stage a number, in the stages' order."""

    def run(self, tasks: Iterable[Task[R]], needs: TaskNeeds) -> Iterator[tuple[int, R]]:
        """Run the tasks in order; see `Executor.run`."""
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            idle = process.submit(load_and_measure_idle).result()
            for index, task in enumerate(tasks):
                yield index, process.submit(task.run).result()
            self.bytes_above_idle.append(process.submit(peak_memory_bytes).result() - idle)

    def close(self) -> None:
        """Do nothing: a stage's process ends with the stage."""


def load_and_measure_idle() -> int:
    """Load what a worker has loaded before its first task; return this process' resident memory then."""
    for module in _MODULES:
        importlib.import_module(module)
    forget_peak_memory()
    return peak_memory_bytes()


def measure_memory(state: SyntheticState, folder: Path, export_range_bytes: int) -> list[MemoryFigure]:
    """Make a whole run and return each stage's figure.

    Args:
        folder: removed before and after.
    """
    shutil.rmtree(folder, ignore_errors=True)
    executor = FreshProcessExecutor()
    timings = run_whole(executor, state, folder, export_range_bytes)
    shutil.rmtree(folder)
    return [
        MemoryFigure(timing.stage, state.records, above)
        for timing, above in zip(timings, executor.bytes_above_idle, strict=True)
        if timing.tasks
    ]
