"""Hands the memory that a stage is done with back to the operating system before the worker goes on to another stage, or to nothing.

A worker runs tasks of every stage, one after another, and two allocators each keep what a task freed for the next one: Arrow's pool, and the C
library's heaps, of which every thread has its own; the native kernel has it keep large blocks too. Tasks of one stage take the same over and over, so keeping it
saves much time. What one stage leaves there another stage can't use, though: a worker held the sum of the stages' memory instead of the
largest.

Pages of memory-mapped files are not looked after here: they go with the mapping, and the system takes them back when it needs them.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from pipelines.execution.executor import Task

R_co = TypeVar("R_co", covariant=True)


@dataclass(slots=True)
class _Worker:
    """This process, as one that runs tasks."""

    stage: int | None = None
    """Whose task ran last; None before the first."""


_worker = _Worker()


@dataclass(frozen=True, slots=True)
class TaskOfStage(Generic[R_co]):
    """A task that finds nothing taken by another stage's, in a process that runs tasks of all stages."""

    task: Task[R_co]
    stage: int
    """A number for the stage, unique within a worker process."""
    releases: bool
    """Give back what this task leaves, whether it ends well or not: perhaps no other comes for long."""

    def run(self) -> R_co:
        """Run the task.

        Raises:
            StatecastError: the task's own error.
        """
        if _worker.stage != self.stage:
            release_memory()
            _worker.stage = self.stage
        try:
            return self.task.run()
        finally:
            if self.releases:
                release_memory()


def release_memory() -> None:
    """Give back the free memory that this process' allocators keep. Libraries are not loaded for it."""
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is not None:
        pyarrow.default_memory_pool().release_unused()
    trim = _malloc_trim()
    if trim is not None:
        # Last: a part of Arrow's own goes back to the C library first.
        trim(0)


@cache
def _malloc_trim() -> Any:
    """Return glibc's function that gives back free pages of all heaps; None where the C library is another one."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
