"""Runs one stage's tasks on an executor, tells the progress, asks whether to go on, and keeps the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pipelines.execution.executor import Executor, Task, TaskNeeds
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.progress import Progress, SilentProgress, StageProgress
from pipelines.execution.without_pandas import without_pandas

R = TypeVar("R")

KeepGoing = Callable[[], None]
"""Asked whether a run is to go on, and often, so that it answers at once. It returns, or it raises what ends the run: that error reaches
the caller as it is."""


def go_on() -> None:
    """Never stop the run early."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How much one task did."""

    records: int = 0
    size: int = 0
    parts: int = 0


@dataclass(frozen=True, slots=True)
class StageTiming:
    """How long a stage took, from its first task's submission to its last result."""

    stage: str
    shard: str
    seconds: float
    tasks: int
    records: int
    size: int


@dataclass(slots=True)
class StageRunner:
    """Runs stages one after another."""

    executor: Executor
    progress: Progress
    keep_going: KeepGoing = go_on
    """Asked before each stage and after each task's result."""
    timings: list[StageTiming] = field(default_factory=list)

    def run(self, stage: str, shard: str, tasks: Sequence[Task[R]], needs: TaskNeeds, amount: Callable[[R], Amount]) -> list[R]:
        """Run a stage's tasks; return their results in the tasks' order.

        Raises:
            StatecastError: a task's own error; see `Executor.run`.
            Exception: what `keep_going` ends the run with. No new task begins then, and those under way are abandoned.
        """
        began = time.monotonic()
        without_pandas()
        results: list[R | None] = [None] * len(tasks)
        done, records, size, parts = 0, 0, 0, 0
        self.keep_going()
        self.progress.stage(StageProgress(stage, shard, 0, len(tasks)))
        for index, result in self.executor.run(tasks, needs):
            results[index] = result
            step = amount(result)
            done, records, size, parts = done + 1, records + step.records, size + step.size, parts + step.parts
            self.progress.stage(StageProgress(stage, shard, done, len(tasks), records, size, parts))
            self.keep_going()
        assert done == len(tasks), "every task ended"
        self.timings.append(StageTiming(stage, shard, time.monotonic() - began, len(tasks), records, size))
        return results  # type: ignore[return-value]  # every slot was filled above


def silent_runner() -> StageRunner:
    """Return what runs stages in this process and shows nothing."""
    return StageRunner(InProcessExecutor(), SilentProgress())
