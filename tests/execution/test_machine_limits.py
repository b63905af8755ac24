"""What this machine lets a process have."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from pipelines.execution.machine_limits import available_memory_bytes, machine_cores


def _groups(folder: Path, **files: str) -> tuple[Path, Path]:
    """Return a mount of control groups in which this process's own, a.slice/b.service, has these files."""
    group = folder / "groups" / "a.slice" / "b.service"
    group.mkdir(parents=True)
    for name, text in files.items():
        (group / name.replace("_", ".")).write_text(text + "\n")
    own = folder / "cgroup"
    own.write_text("0::/a.slice/b.service\n")
    return folder / "groups", own


def test_a_quota_of_processor_time_counts_as_cores(tmp_path: Path) -> None:
    """Rounded down, and at least one."""
    assert machine_cores(*_groups(tmp_path, cpu_max="50000 100000")) == 1
    (tmp_path / "groups" / "a.slice" / "cpu.max").write_text("garbage")
    assert machine_cores(tmp_path / "groups", tmp_path / "cgroup") == 1


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    """Also where there are no control groups."""
    assert machine_cores(*_groups(tmp_path, cpu_max="max 100000")) == len(os.sched_getaffinity(0))
    assert machine_cores(tmp_path / "none", tmp_path / "none") == len(os.sched_getaffinity(0))


def test_a_limit_of_memory_counts_without_what_is_cached(tmp_path: Path) -> None:
    """The least of the group's and the machine's."""
    groups = _groups(tmp_path, memory_max="1000", memory_current="900", memory_stat="anon 5\ninactive_file 300")
    assert available_memory_bytes(*groups) == 400
    assert available_memory_bytes(tmp_path / "none", tmp_path / "none") <= psutil.virtual_memory().total
