"""Progress of a run: stages begin, advance and end. Observers show it; they don't decide whether the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StageProgress:
    """One step of one stage."""

    stage: str
    """export, values, structure, boundaries, boundary nodes, build, seal, publish, hash."""
    shard: str
    """Shard uid, or empty where a stage is of the whole epoch."""
    done: int
    """Tasks that ended."""
    total: int
    """Tasks in all."""
    records: int = 0
    """Records in all tasks that ended."""
    size: int = 0
    """Bytes in all tasks that ended: of records, parts or objects, as the stage works on."""
    parts: int = 0
    """State parts in all tasks that ended."""


class Progress(Protocol):
    """Shows a run. It can't end one: what a `StageRunner` asks for that is its `keep_going`."""

    def stage(self, progress: StageProgress) -> None:
        """Record a step; the first of a stage has ``done`` 0, the last ``done`` equal to ``total``."""
        ...

    def note(self, message: str) -> None:
        """Show one line that the operator should see at once."""
        ...


class SilentProgress:
    """Shows nothing."""

    def stage(self, progress: StageProgress) -> None:
        """Pass over a step."""

    def note(self, message: str) -> None:
        """Pass over a line."""


@dataclass(frozen=True, slots=True)
class NotedProgress:
    """Shows lines alone, each by a function."""

    show: Callable[[str], None]

    def stage(self, progress: StageProgress) -> None:
        """Pass over a step."""

    def note(self, message: str) -> None:
        """Show a line."""
        self.show(message)
