"""Runs tasks one after another in this process: for tests, small states and debugging."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pipelines.execution.executor import Task, TaskNeeds
from pipelines.execution.released_memory import release_memory

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class InProcessExecutor:
    """One task at a time, in order."""

    description: str = "in this process alone"

    def run(self, tasks: Iterable[Task[R]], needs: TaskNeeds) -> Iterator[tuple[int, R]]:
        """Run the tasks in order; see `Executor.run`."""
        try:
            for index, task in enumerate(tasks):
                yield index, task.run()
        finally:
            release_memory()

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""
