"""Runs a production's tasks on another executor and notes each worker's peak memory, its processor time and what it asks of the stores."""

from __future__ import annotations

import importlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from benchmarks.counting_store import Calls, count_calls, counted_calls
from benchmarks.measure import forget_peak_memory, peak_memory_bytes
from pipelines.execution.executor import Executor, Task, TaskNeeds

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_MODULES = ("pipelines.near.node.node_store", "pipelines.producing.publish.publish_part", "pipelines.kernel.native", "statecast_kernel")
"""What a worker has loaded before its first task."""

_idle_bytes: dict[int, int] = {}
"""Process id to the memory before its first task; of this process alone."""


@dataclass(frozen=True, slots=True)
class Watched(Generic[R_co]):
    """A task's result, and what it took."""

    result: R_co
    pid: int
    bytes_above_idle: int
    """Most resident memory of its process while it ran, less that before the process' first task."""
    cpu_s: float
    """Processor seconds of all its process' threads while it ran."""
    calls: Calls


@dataclass(frozen=True, slots=True)
class WatchedTask(Generic[R]):
    """A task that is watched."""

    task: Task[R]
    by_ranges: bool

    def run(self) -> Watched[R]:
        """Run the task."""
        idle = _idle()
        count_calls(by_ranges=self.by_ranges)
        before = counted_calls()
        forget_peak_memory()
        began = time.process_time()
        result = self.task.run()
        return Watched(result, os.getpid(), peak_memory_bytes() - idle, time.process_time() - began, counted_calls() - before)


def _idle() -> int:
    pid = os.getpid()
    if pid not in _idle_bytes:
        for module in _MODULES:
            importlib.import_module(module)
        forget_peak_memory()
        _idle_bytes[pid] = peak_memory_bytes()
    return _idle_bytes[pid]


@dataclass(slots=True)
class WatchingExecutor:
    """Another executor whose tasks are watched. Keeps a number a stage and a number a worker, nothing a task."""

    inner: Executor
    by_ranges: bool
    stage_peaks: list[int] = field(default_factory=list)
    """Most memory above idle of any worker, a stage a number, in the stages' order."""
    stage_cpu_s: list[float] = field(default_factory=list)
    """Processor seconds of all its tasks, in the same order."""
    stage_needs: list[int] = field(default_factory=list)
    """What the stage says that a task needs, in the same order."""
    worker_peaks: dict[int, int] = field(default_factory=dict)
    """Process id of a worker to its most memory above idle."""
    calls: Calls = field(default_factory=Counter)
    """Of tasks in other processes than this one."""
    tasks: int = 0

    @property
    def description(self) -> str:
        """Where tasks run."""
        return self.inner.description

    def run(self, tasks: Iterable[Task[R]], needs: TaskNeeds) -> Iterator[tuple[int, R]]:
        """Run the tasks; see `Executor.run`."""
        stage = len(self.stage_peaks)
        self.stage_peaks.append(0)
        self.stage_cpu_s.append(0.0)
        self.stage_needs.append(needs.memory_bytes)
        for index, watched in self.inner.run([WatchedTask(task, self.by_ranges) for task in tasks], needs):
            self.tasks += 1
            self.stage_peaks[stage] = max(self.stage_peaks[stage], watched.bytes_above_idle)
            self.stage_cpu_s[stage] += watched.cpu_s
            self.worker_peaks[watched.pid] = max(self.worker_peaks.get(watched.pid, 0), watched.bytes_above_idle)
            if watched.pid != os.getpid():
                self.calls += watched.calls
            yield index, watched.result

    def close(self) -> None:
        """Close the other executor."""
        self.inner.close()
