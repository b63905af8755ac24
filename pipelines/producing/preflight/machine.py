"""This machine's memory, open files and cores, against what a run takes of them; pure but for what is asked of the system."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pipelines.execution.window import MEMORY_SHARE
from pipelines.producing.preflight.finding import PreflightFinding, PreflightVerdict
from schemas.shown_size import shown_size

OPEN_FILES_BESIDE: Final = 512
"""Files and sockets that a process has open beside a node's tables: datasets, stores, Ray."""


def memory_finding(available_bytes: int, worker_bytes: int, workers: int) -> PreflightFinding:
    """Judge the memory for so many workers at once.

    Args:
        available_bytes: what may still be taken.
        worker_bytes: most of one worker's process.
    """
    found = f"{shown_size(available_bytes)} available, a worker takes up to {shown_size(worker_bytes)}, {workers} at once"
    if available_bytes < worker_bytes:
        return PreflightFinding(
            "memory", PreflightVerdict.FAIL, f"not enough memory for one worker: {found}", "Free memory, or raise the service's limit."
        )
    fitting = max(1, int(available_bytes * MEMORY_SHARE // worker_bytes))
    if fitting < workers:
        return PreflightFinding(
            "memory", PreflightVerdict.WARN, f"{found}: {fitting} fit", f"Pass --workers {fitting}, or free memory.", "--workers"
        )
    return PreflightFinding("memory", PreflightVerdict.OK, found)


def open_files_finding(tables: int, limit: int | None = None) -> PreflightFinding:
    """Judge how many files a process may have open: every table file of a node's database is held open.

    Args:
        tables: table files of the databases that are read.
        limit: the most that a process may raise it to; None for the system's.
    """
    if limit is None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = tables + OPEN_FILES_BESIDE
    found = "no limit" if limit == resource.RLIM_INFINITY else f"{limit:,} may be open"
    found += f", a process needs {needed:,}"
    if limit != resource.RLIM_INFINITY and limit < needed:
        return PreflightFinding(
            "open files",
            PreflightVerdict.FAIL,
            f"too few open files are allowed: {found}",
            f"Raise it: LimitNOFILE={needed * 2}, or ulimit -n.",
        )
    return PreflightFinding("open files", PreflightVerdict.OK, found)


def table_count(folders: Iterable[Path]) -> int:
    """Return how many table files lie in databases; a folder that is not there has none."""
    found = 0
    for folder in folders:
        try:
            found += sum(name.endswith((".sst", ".blob")) for name in os.listdir(folder))
        except OSError:
            continue
    return found


def settings_finding(cores: int, available_bytes: int, worker_bytes: int, *, beside_node: bool) -> PreflightFinding:
    """Say which ``--workers`` this machine should have, and how a read limit is chosen."""
    by_cores = max(1, cores // 2) if beside_node else cores
    workers = max(1, min(by_cores, int(available_bytes * MEMORY_SHARE // worker_bytes)))
    share = f"--workers {workers}" + (" --read-limit 200MB" if beside_node else "")
    found = f"{cores} cores, {shown_size(available_bytes)} of memory available: {share}"
    more = "More where neard keeps up: a fifth of what its disk reads a second is a fair share." if beside_node else ""
    return PreflightFinding("settings", PreflightVerdict.OK, found, more)
