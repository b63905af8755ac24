"""What this machine lets this process have: cores and memory, as its CPU affinity and its control groups say.

Source: Linux Documentation/admin-guide/cgroup-v2.rst, cpu.max, memory.max, memory.current. Elsewhere the whole machine's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def machine_cores(groups: Path = _GROUPS, own_group: Path = _OWN_GROUP) -> int:
    """Return how many cores this process may use; at least one.

    Args:
        groups: where the control groups are mounted.
        own_group: the file that names this process's.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _groups(groups, own_group):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            cores = min(cores, int(quota) // int(period))
    return max(1, cores)


def available_memory_bytes(groups: Path = _GROUPS, own_group: Path = _OWN_GROUP) -> int:
    """Return how much memory this process and its children may still take without swapping, in bytes."""
    available = int(psutil.virtual_memory().available)
    for folder in _groups(groups, own_group):
        limit, used = _read(folder / "memory.max"), _read(folder / "memory.current")
        if limit.isdecimal() and used.isdecimal():
            # Cached files count as used, and are given up first.
            cached = sum(int(row.split()[1]) for row in _read(folder / "memory.stat").splitlines() if row.startswith("inactive_file "))
            available = min(available, int(limit) - int(used) + cached)
    return max(0, available)


def _groups(groups: Path, own_group: Path) -> Iterator[Path]:
    """Yield this process's control group and those around it, the innermost first."""
    own = next((row[3:] for row in _read(own_group).splitlines() if row.startswith("0::/")), "/")
    folder = groups / own.lstrip("/")
    while folder != groups and groups in folder.parents:
        yield folder
        folder = folder.parent
    yield groups


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        return ""
