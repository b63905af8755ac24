"""What runs tasks: one Protocol, so that a stage does not know where it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

Result_co = TypeVar("Result_co", covariant=True)
R = TypeVar("R")

TASK_RETRIES_MAX = 5
"""How often a task runs again after its worker died, or after a transient fault of the store."""


class Task(Protocol[Result_co]):
    """A frozen, picklable value that does one piece of work; run twice, it leaves the same bytes."""

    def run(self) -> Result_co:
        """Do the work and return a small summary."""
        ...


@dataclass(frozen=True, slots=True)
class TaskNeeds:
    """What a stage's tasks ask of the machine that runs them."""

    memory_bytes: int
    """Most memory of the process that runs one, its libraries included: bounds how many run on one machine."""
    node_disk: bool = False
    """Runs only where the NEAR node's disk is."""


class Executor(Protocol):
    """Runs tasks, a bounded number at a time."""

    @property
    def description(self) -> str:
        """Where tasks run, in a few words for people."""
        ...

    def run(self, tasks: Iterable[Task[R]], needs: TaskNeeds) -> Iterator[tuple[int, R]]:
        """Run all tasks; yield (index, result) as they end, in any order.

        Tasks are taken from the iterable only as there is room for them. The first error stops the run: no new task begins, those
        under way are abandoned, and the error is raised.

        Raises:
            StatecastError: a task's own error, of its own class.
            PartialResultError: workers died more often than the retries allow; a rerun goes on where this ended.
        """
        ...

    def close(self) -> None:
        """Give back workers and connections."""
        ...
