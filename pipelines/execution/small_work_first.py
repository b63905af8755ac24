"""Runs the first seconds of work in this process, and only what is more than that on Ray: small work need not wait for Ray's start."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

from pipelines.execution.executor import Executor, Task, TaskNeeds
from pipelines.execution.in_process import InProcessExecutor

R = TypeVar("R")

SMALL_WORK_S = 3.0
"""How much processor time tasks take in this process, all stages together: about what Ray's start costs a machine of few cores."""

WAITS_PER_WORK = 5.0
"""Tasks that wait for disks and servers may last so many times as long before others are to wait beside them."""


class SmallWorkFirst:
    """One task after another in this process until they have taken `SMALL_WORK_S`; from then on all tasks run elsewhere.

    At most one task more than that is run one at a time, so that large work loses seconds of a run of hours.
    """

    def __init__(self, open_larger: Callable[[], Executor], *, small_work_s: float = SMALL_WORK_S) -> None:
        """Start nothing yet.

        Args:
            open_larger: starts what runs the rest; called once, where there is a rest.
            small_work_s: how much processor time tasks take here; how long they last is bounded in proportion.
        """
        self._open_larger = open_larger
        self._larger: Executor | None = None
        self._left_cpu_s = small_work_s
        self._left_s = WAITS_PER_WORK * small_work_s

    @property
    def description(self) -> str:
        """Where tasks run now."""
        return "in this process while the work is small" if self._larger is None else self._larger.description

    def run(self, tasks: Iterable[Task[R]], needs: TaskNeeds) -> Iterator[tuple[int, R]]:
        """Run the tasks; see `Executor.run`."""
        if self._larger is not None:
            yield from self._larger.run(tasks, needs)
            return
        waiting, done = iter(tasks), 0
        for index, result in InProcessExecutor().run(self._while_small(waiting), needs):
            done = index + 1
            yield index, result
        taken = next(waiting, None)
        if taken is None:
            return
        self._larger = self._open_larger()
        # A sequence stays one: its length tells workers which of their tasks are the last.
        rest = tasks[done:] if isinstance(tasks, Sequence) else chain([taken], waiting)
        for index, result in self._larger.run(rest, needs):
            yield done + index, result

    def close(self) -> None:
        """Close what ran the rest."""
        if self._larger is not None:
            self._larger.close()

    def _while_small(self, waiting: Iterator[Task[R]]) -> Iterator[Task[R]]:
        while self._left_s > 0 and self._left_cpu_s > 0:
            task = next(waiting, None)
            if task is None:
                return
            began_s, began_cpu_s = time.monotonic(), time.process_time()
            yield task
            # The next task is asked for when this one has ended.
            self._left_s -= time.monotonic() - began_s
            self._left_cpu_s -= time.process_time() - began_cpu_s
