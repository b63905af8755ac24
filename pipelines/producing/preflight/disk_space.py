"""Free space of the folders that a run fills, against what it will put there: before anything is read, not after hours."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipelines.producing.preflight.finding import PreflightFinding, PreflightVerdict
from schemas.shown_size import shown_size

SPARE_BYTES: Final = 64 << 20
"""What a file system should have left after the run, or other programs that write there fail."""


@dataclass(frozen=True, slots=True)
class FolderNeed:
    """What goes into one folder of this machine."""

    option: str
    folder: Path
    """Need not be there yet."""
    bytes_least: int
    """Without so much the run does not end well."""
    bytes_most: int
    """With so much it does."""
    files: int = 0
    there: tuple[Path, ...] = ()
    """Folders in it that hold what an earlier run has left for this one: it counts as done."""
    and_more: bool = False
    """More comes there, of which nothing is known before the source is read."""


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """What a file system has left for this user."""

    device: int
    size: int
    files: int | None
    """None where it has no limit of its own."""
    writable: bool


def free_space(folder: Path) -> FreeSpace:
    """Return what is free where a folder is, or would be made.

    Raises:
        OSError: the place can't be looked at.
    """
    existing = existing_parent(folder)
    found = os.statvfs(existing)
    files = found.f_favail if found.f_files else None
    return FreeSpace(existing.stat().st_dev, found.f_bavail * found.f_frsize, files, os.access(existing, os.W_OK | os.X_OK))


def existing_parent(folder: Path) -> Path:
    """Return the folder, or the nearest one around it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def space_findings(needs: Sequence[FolderNeed]) -> tuple[PreflightFinding, ...]:
    """Look at the folders' file systems; folders on one share what it has."""
    findings: list[PreflightFinding] = []
    by_device: dict[int, list[tuple[FolderNeed, FreeSpace]]] = {}
    for need in needs:
        try:
            space = free_space(need.folder)
        except OSError as error:
            findings.append(
                PreflightFinding(
                    f"space {need.option}", PreflightVerdict.FAIL, f"the place can't be looked at: {error.strerror}", "", str(need.folder)
                )
            )
            continue
        if not space.writable:
            existing = existing_parent(need.folder)
            remedy = f"Give this user the folder, or name another with {need.option}."
            findings.append(
                PreflightFinding(f"space {need.option}", PreflightVerdict.FAIL, "the folder can't be written", remedy, str(existing))
            )
            continue
        by_device.setdefault(space.device, []).append((need, space))
    return (*findings, *(_judged(group) for group in by_device.values()))


def _judged(group: Sequence[tuple[FolderNeed, FreeSpace]]) -> PreflightFinding:
    options = " and ".join(dict.fromkeys(need.option for need, _ in group))
    where, space = ", ".join(dict.fromkeys(str(need.folder) for need, _ in group)), group[0][1]
    done = sum(_size(folder) for need, _ in group for folder in need.there)
    least = max(0, sum(need.bytes_least for need, _ in group) - done)
    most = max(0, sum(need.bytes_most for need, _ in group) - done)
    name, files = f"space {options}", sum(need.files for need, _ in group)
    more = ", and what is known after reading" if any(need.and_more for need, _ in group) else ""
    puts = f"the run puts about {shown_size(least)} there{more}" if most else "what the run puts there is not known yet"
    found = f"{shown_size(space.size)} free, {puts}"
    remedy = f"Free {shown_size(max(0, most + SPARE_BYTES - space.size))} there, or name another place with {options}."
    if space.size <= least:
        return PreflightFinding(name, PreflightVerdict.FAIL, f"not enough space: {found}", remedy, where)
    if space.files is not None and space.files < files:
        return PreflightFinding(
            name, PreflightVerdict.FAIL, f"{space.files:,} files may still be made there, the run makes {files:,}", remedy, where
        )
    if space.size < most + SPARE_BYTES:
        return PreflightFinding(
            name, PreflightVerdict.WARN, f"{found}, up to {shown_size(most)}, and {shown_size(SPARE_BYTES)} should stay free", remedy, where
        )
    return PreflightFinding(name, PreflightVerdict.OK, found, "", where)


def _size(folder: Path) -> int:
    """Return the bytes of all files below a folder; one that goes meanwhile counts as none."""
    size = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(path, name)).st_size
            except OSError:
                continue
    return size
