"""Tasks for tests of the executors; workers import them from here."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from schemas.errors import StateRootMismatchError, TransientStoreError


@dataclass(frozen=True, slots=True)
class PidTask:
    """Says which process ran it."""

    def run(self) -> int:
        """Return the process's id."""
        return os.getpid()


@dataclass(frozen=True, slots=True)
class ArrayTask:
    """Has pyarrow take a Python value."""

    def run(self) -> bool:
        """Return whether pandas was imported for it."""
        pa.array([b"a"], pa.binary())
        return "pandas" in sys.modules


@dataclass(frozen=True, slots=True)
class SquareTask:
    """Computes something that depends on the task alone."""

    number: int

    def run(self) -> int:
        """Return the square."""
        return self.number * self.number


@dataclass(frozen=True, slots=True)
class WitnessTask:
    """Leaves a file while it runs, and notes how many run with it."""

    folder: str
    number: int

    def run(self) -> int:
        """Return the number of tasks under way."""
        mark = Path(self.folder) / str(self.number)
        mark.touch()
        time.sleep(0.05)
        running = len(list(Path(self.folder).iterdir()))
        mark.unlink()
        return running


@dataclass(frozen=True, slots=True)
class DyingTask:
    """Kills its own worker until it was begun often enough."""

    folder: str
    number: int
    deaths: int

    def run(self) -> int:
        """Die, or return the number."""
        begun = Path(self.folder) / f"{self.number}-{time.monotonic_ns()}"
        begun.touch()
        if len(list(Path(self.folder).glob(f"{self.number}-*"))) <= self.deaths:
            os.kill(os.getpid(), 9)
        return self.number


@dataclass(frozen=True, slots=True)
class FailingTask:
    """Fails, and leaves a file for every time that it was begun."""

    folder: str
    kind: str

    def run(self) -> int:
        """Fail as told."""
        (Path(self.folder) / str(time.monotonic_ns())).touch()
        if self.kind == "integrity":
            raise StateRootMismatchError(problem="another root", where="shard s0.v0", expected="a", actual="b")
        if self.kind == "transient" and len(list(Path(self.folder).iterdir())) < 3:
            raise TransientStoreError(problem="not now", where="there")
        if self.kind == "bug":
            raise ZeroDivisionError("a fault of our own")
        return 7
