"""Tasks for tests on clusters; workers import them from here."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.ray_cluster import MACHINE_VARIABLE

WAIT_S = 300.0
"""Longer than anything takes on a slow machine."""


@dataclass(frozen=True, slots=True)
class MachineTask:
    """Says on which machine it ran."""

    seconds: float = 0.0

    def run(self) -> str:
        """Return the machine's name, after some time."""
        time.sleep(self.seconds)
        return os.environ[MACHINE_VARIABLE]


@dataclass(frozen=True, slots=True)
class WaitForFileTask:
    """Runs until a file is there."""

    path: str
    timeout_s: float = WAIT_S

    def run(self) -> str:
        """Return the machine's name once the file is there."""
        deadline = time.monotonic() + self.timeout_s
        while not Path(self.path).exists():
            assert time.monotonic() < deadline, "the file was not made"
            time.sleep(0.02)
        return os.environ[MACHINE_VARIABLE]


@dataclass(frozen=True, slots=True)
class MeetTask:
    """Runs until such tasks run on so many machines: it waits for machines that start a worker first."""

    folder: str
    machines: int

    def run(self) -> str:
        """Return the machine's name once all are there."""
        name = os.environ[MACHINE_VARIABLE]
        (Path(self.folder) / name).touch()
        deadline = time.monotonic() + WAIT_S
        while len(list(Path(self.folder).iterdir())) < self.machines:
            assert time.monotonic() < deadline, "the others never came"
            time.sleep(0.02)
        return name
