"""Runs tasks in threads of this process: for tasks that wait for answers of others more than they compute.

They share what they hold with the driver, so they need not be picklable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from pipelines.execution.executor import Task, TaskNeeds
from pipelines.execution.in_process import run_again
from pipelines.execution.released_memory import release_memory

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ThreadExecutor:
    """A fixed number of tasks at a time."""

    threads: int

    @property
    def description(self) -> str:
        """See `Executor.description`."""
        return f"in {self.threads} threads of this process"

    def run(self, tasks: Iterable[Task[R]], needs: TaskNeeds) -> Iterator[tuple[int, R]]:
        """Run all tasks; see `Executor.run`. Those under way when a run stops end by themselves."""
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="task")
        waiting = enumerate(tasks)
        under_way: dict[Future[R], int] = {}
        try:
            while True:
                for index, task in islice(waiting, self.threads - len(under_way)):
                    under_way[pool.submit(run_again, task)] = index
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    yield under_way.pop(future), future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            release_memory()

    def close(self) -> None:
        """Do nothing: threads end with their run."""
