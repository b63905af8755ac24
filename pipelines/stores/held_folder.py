"""Folders for what a process needs only while it lives: a killed one leaves them, and the next start of any of ours removes them.

Their names say what they are for (`KINDS`). Each holds a lock for as long as its process lives, however that ends, so nobody removes what a living
process has. Small ones lie where temporary files go (``TMPDIR``); what may be as large as a state lies in the folder that the run fills anyway
(`pipelines.stores.held_work_folder`), and the next run there removes what a killed one left.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from pipelines.stores.file_lock import NO_LOCKS, take_lock
from schemas.errors import InvalidInputError

KINDS: Final = ("changes", "links", "options", "ray", "rebuild", "sort")
"""What they are for. Nothing of another name is ever removed."""

UNLOCKED_S: Final = 86_400.0
"""A folder that has had no lock for so long is one whose process was killed as it made it, or is of a version that knew no lock."""

KEPT_S: Final = 86_400.0
"""How long a folder with logs that somebody may want to read is kept."""

_LOCK: Final = "lock"
_KEPT: Final = "logs-wanted"
_NAME: Final = re.compile(rf"statecast-(?:{'|'.join(KINDS)})-[a-z0-9_]{{8}}")
"""As `tempfile.mkdtemp` ends it."""


@dataclass(frozen=True, slots=True)
class HeldFolder:
    """A folder that is held by this process."""

    path: Path
    _lock: BinaryIO
    _owner: int

    def keep(self) -> None:
        """Leave the folder for a day, since an error points to what is in it."""
        with suppress(OSError):
            (self.path / _KEPT).touch()

    def close(self) -> None:
        """Remove the folder, unless it is to be kept; a forked child has a copy of this, but not the folder."""
        if os.getpid() == self._owner and not (self.path / _KEPT).exists():
            # A process that still writes into it leaves something; the next start removes that.
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def make_held_folder(kind: str, parent: Path | None = None) -> HeldFolder:
    """Make a folder that this user alone may look into.

    Args:
        kind: one of `KINDS`.
        parent: where; None for where temporary files go. It is made where it is not there.
    Raises:
        InvalidInputError: it can't be made there.
    """
    path: Path | None = None
    try:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix=held_folder_prefix(kind), dir=parent))
        # Locked before it has its name, so that nobody finds it free.
        lock = take_lock(path / f"{_LOCK}.new")
        os.rename(path / f"{_LOCK}.new", path / _LOCK)
    except OSError as error:
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)
        if parent is not None and error.errno in NO_LOCKS:
            # Where it could not be told which processes live, it lies where temporary files go.
            return make_held_folder(kind)
        raise InvalidInputError(
            problem=f"no temporary folder can be made there: {error.strerror}",
            where=str(parent or os.environ.get("TMPDIR") or "/tmp"),
            remedy="Name a folder that can be written and has room."
            if parent
            else "Set TMPDIR to a folder that can be written and has room.",
        ) from error
    return HeldFolder(path, lock, os.getpid())


def held_folder_prefix(kind: str) -> str:
    """Return what a folder's name begins with."""
    assert kind in KINDS, kind
    return f"statecast-{kind}-"


@contextmanager
def held_folder(kind: str, parent: Path | None = None) -> Iterator[Path]:
    """Make a folder for as long as the block runs; see `make_held_folder`."""
    folder = make_held_folder(kind, parent)
    try:
        yield folder.path
    finally:
        folder.close()


def remove_dead_folders(parent: Path | None = None) -> None:
    """Remove the folders of this user whose processes are gone.

    Args:
        parent: where; None for where temporary files go.
    """
    with suppress(OSError), os.scandir(parent or tempfile.gettempdir()) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                _remove_if_dead(Path(entry.path))


def _remove_if_dead(folder: Path) -> None:
    try:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return
        age_s = time.time() - status.st_mtime
        if not (folder / _LOCK).exists():
            if age_s > UNLOCKED_S:
                shutil.rmtree(folder, ignore_errors=True)
            return
        # Held until it is gone: two starts do not remove the same.
        with take_lock(folder / _LOCK):
            if age_s > KEPT_S or not (folder / _KEPT).exists():
                shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        # Held, or gone in the meantime.
        return
