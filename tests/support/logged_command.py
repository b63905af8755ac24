"""The command with a log of every task that began or ended on the executor, in whatever process: work that is done twice is seen.

    python -m tests.support.logged_command LOG produce …

LOG is a folder; a task that begins makes a file there, which is renamed when it ends. `limit_parts` lets parts wait.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jobs.produce
from jobs.cli import main
from jobs.options import open_executor
from pipelines.execution.executor import Executor, Task, TaskNeeds
from pipelines.producing.publish.publish_part import ProducePartTask
from tests.support.ray_cluster import MACHINE_VARIABLE

R = TypeVar("R")

WAIT_S = 300.0
"""Longer than anything takes on a slow machine."""
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class LoggedTask:
    """A task that leaves a trace."""

    task: Task[Any]
    log: str

    def run(self) -> Any:
        """Run the task between two marks."""
        kind, name = type(self.task).__name__, "-"
        if isinstance(self.task, ProducePartTask):
            name = self.task.publishing.place.object_name.replace("/", "|")
        begun = Path(self.log) / f"{kind} {name} {os.environ.get(MACHINE_VARIABLE, 'none')} {os.getpid()}-{time.monotonic_ns()} begun"
        begun.touch()
        if isinstance(self.task, ProducePartTask):
            wait_for_room(Path(self.log))
        result = self.task.run()
        reused = isinstance(self.task, ProducePartTask) and result[0].reused
        begun.rename(begun.with_name(begun.name.removesuffix("begun") + ("reused" if reused else "ended")))
        return result


@dataclass(frozen=True, slots=True)
class LoggingExecutor:
    """Another executor, with every task logged."""

    inner: Executor
    log: str

    @property
    def description(self) -> str:
        """The inner one's."""
        return self.inner.description

    def run(self, tasks: Iterable[Task[R]], needs: TaskNeeds) -> Iterator[tuple[int, R]]:
        """See `Executor.run`."""
        return self.inner.run([LoggedTask(task, self.log) for task in tasks], needs)

    def on_each_machine(self, task: Task[R]) -> list[tuple[str, R]]:
        """The inner one's."""
        answers: list[tuple[str, R]] = self.inner.on_each_machine(task)  # type: ignore[attr-defined]
        return answers

    def close(self) -> None:
        """See `Executor.close`."""
        self.inner.close()


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What is known of one time that a task was begun."""

    kind: str
    name: str
    machine: str
    outcome: str
    """begun (and never ended), ended, or reused: it found its result there."""


def limit_parts(log: Path, parts_max: int | None) -> None:
    """Let parts that are begun wait from now on while so many were made; None lets all go on."""
    limit = _limit_file(log)
    if parts_max is None:
        limit.unlink(missing_ok=True)
        return
    limit.with_suffix(".new").write_text(str(parts_max))
    limit.with_suffix(".new").rename(limit)


def wait_for_room(log: Path) -> None:
    """Wait as long as `limit_parts` has it."""
    deadline = time.monotonic() + WAIT_S
    with suppress(FileNotFoundError):
        while parts_ended(log) >= int(_limit_file(log).read_text()):
            assert time.monotonic() < deadline, "parts were not let go on"
            time.sleep(POLL_S)


def parts_ended(log: Path) -> int:
    """Return how many parts were made by now."""
    return sum(1 for _ in log.glob("ProducePartTask * ended"))


def _limit_file(log: Path) -> Path:
    return log.with_name(f"{log.name}.limit")


def read_log(log: Path) -> list[LogEntry]:
    """Return all times that tasks were begun."""
    entries = []
    for path in sorted(log.iterdir()):
        kind, name, machine, _, outcome = path.name.split(" ")
        entries.append(LogEntry(kind, name, machine, outcome))
    return entries


def parts_made(entries: Iterable[LogEntry]) -> Counter[str]:
    """Return how often each part was made, or begun to be made."""
    return Counter(entry.name for entry in entries if entry.kind == "ProducePartTask" and entry.outcome != "reused")


if __name__ == "__main__":
    from tests.support import logged_command

    folder = sys.argv.pop(1)
    # Through the importable module, so that workers find the classes.
    setattr(jobs.produce, "open_executor", lambda *options, **more: logged_command.LoggingExecutor(open_executor(*options, **more), folder))  # noqa: B010
    main()
