"""Timing side by side, and the memory of a process. Knows nothing of stages."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

Clock = Callable[[], float]

WALL: Clock = time.perf_counter
"""Seconds that pass, waits for disks included."""

CPU: Clock = time.process_time
"""Seconds that this process spends on processors, all its threads together: what else the machine does hardly counts."""


def seconds_of(work: Callable[[], object], clock: Clock = WALL) -> float:
    """Run once; return the seconds it took."""
    began = clock()
    work()
    return clock() - began


def interleaved_medians(repeats: int, *works: Callable[[], object], clock: Clock) -> tuple[float, ...]:
    """Run each in turn, ``repeats`` times over, so that what else the machine does falls on all alike; return each one's median seconds."""
    rounds = [[seconds_of(work, clock) for work in works] for _ in range(repeats)]
    return tuple(statistics.median(column) for column in zip(*rounds, strict=True))


def forget_peak_memory() -> None:
    """Let `peak_memory_bytes` begin again, where the system can do that (Linux)."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def peak_memory_bytes() -> int:
    """Return the most resident memory of this process so far, memory-mapped files included.

    getrusage is not asked where /proc is there: its figure outlives exec, so a child would start with its parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def anonymous_bytes(pid: int | None = None) -> int:
    """Return the resident memory of a process that is no page of a file (Linux).

    Args:
        pid: None for this process.
    """
    pages, of_files = map(int, Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1:3])
    return (pages - of_files) * resource.getpagesize()


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
