"""Runs tasks one after another in this process: for tests, small states and debugging."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from pipelines.execution.executor import TASK_RETRIES_MAX, Task, TaskNeeds
from pipelines.execution.released_memory import release_memory
from schemas.errors import TransientStoreError

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class InProcessExecutor:
    """One task at a time, in order."""

    description: str = "in this process alone"

    def run(self, tasks: Iterable[Task[R]], needs: TaskNeeds) -> Iterator[tuple[int, R]]:
        """Run the tasks in order; see `Executor.run`."""
        try:
            for index, task in enumerate(tasks):
                yield index, run_again(task)
        finally:
            release_memory()

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""


def run_again(task: Task[R]) -> R:
    """Run a task, and again after transient faults of the store."""
    for _ in range(TASK_RETRIES_MAX):
        with suppress(TransientStoreError):
            return task.run()
    return task.run()
