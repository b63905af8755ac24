"""The folder of an embedded Ray: this user's alone, with the token in it, and gone with the process that made it.

Ray's own default lies below ``/tmp/ray``, where every user of the machine may write: a user who replaces a socket or a package there runs
code as the user of that Ray. What a killed process left is removed by the next one that starts; a lock tells who is alive.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from pipelines.stores.file_lock import take_lock
from schemas.errors import InvalidInputError

PREFIX: Final = "statecast-ray-"

TOKEN_BYTES: Final = 32
"""Random bytes of a token; Ray takes the text of any length."""

FOLDER_BYTES_MAX: Final = 107 - len("/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""Longest path of the folder: a socket's path has at most 107 bytes (``sockaddr_un``), and Ray puts its sockets so deep."""

UNLOCKED_S: Final = 3600.0
"""A folder that has had no lock for so long is one whose process was killed as it made it."""

LOGS_KEPT_S: Final = 86_400.0
"""How long a folder with logs is kept."""

_LOCK = "lock"
_LOGS_WANTED = "logs-wanted"


@dataclass(frozen=True, slots=True)
class RayFolder:
    """A folder that is held by this process."""

    path: Path
    _lock: BinaryIO

    @property
    def session_folder(self) -> Path:
        """Where Ray keeps all of its own. It opens that to everybody, so it lies within what is closed."""
        return self.path / "r"

    @property
    def token_file(self) -> Path:
        """The file with the token, readable by this user alone."""
        return self.path / "token"

    def keep_logs(self) -> None:
        """Leave the folder for a day, since an error points to what Ray wrote in it."""
        with suppress(OSError):
            (self.path / _LOGS_WANTED).touch()

    def close(self) -> None:
        """Remove the folder, unless its logs are wanted."""
        if not (self.path / _LOGS_WANTED).exists():
            # Ray's processes may still be writing their last lines; what that leaves is removed by the next start.
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def make_ray_folder() -> RayFolder:
    """Make a folder with a fresh token, and remove those of processes that are gone.

    Raises:
        InvalidInputError: there is no place for it: none that can be written, with a short path, and in which others rename nothing.
    """
    parent = _parent()
    for dead in _dead_folders(parent):
        shutil.rmtree(dead, ignore_errors=True)
    path: Path | None = None
    try:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # Locked before it has its name, so that no other process finds it free.
        lock = take_lock(path / f"{_LOCK}.new")
        os.rename(path / f"{_LOCK}.new", path / _LOCK)
        folder = RayFolder(path, lock)
        with open(os.open(folder.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(TOKEN_BYTES))
    except OSError as error:
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)
        raise InvalidInputError(
            problem=f"embedded Ray can't have a folder there: {error.strerror}",
            where=str(parent),
            remedy="Set TMPDIR to a folder that can be written, or use --in-process.",
        ) from error
    return folder


def _parent() -> Path:
    """Return where the folder is made: where temporary files go, or ``/tmp`` where that won't do."""
    wanted = os.path.abspath(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    reasons = [f"{parent}: {reason}" for parent in (wanted, "/tmp") if (reason := _unfit(parent))]
    if len(reasons) == 2:
        raise InvalidInputError(
            problem="embedded Ray has no place for its folder: " + "; ".join(reasons),
            where="TMPDIR",
            remedy="Set TMPDIR to another folder, or use --in-process.",
        )
    return Path("/tmp" if reasons else wanted)


def _unfit(parent: str) -> str:
    """Return why the folder can't lie in another one; empty where it can."""
    bytes_max = FOLDER_BYTES_MAX - len(PREFIX) - 9
    if len(os.fsencode(parent)) > bytes_max:
        return f"Ray's sockets need a path of at most {bytes_max} bytes"
    try:
        mode = os.stat(parent).st_mode
    except OSError as error:
        return error.strerror or type(error).__name__
    if mode & 0o022 and not mode & stat.S_ISVTX:
        return "others may rename what is in it"
    return "" if os.access(parent, os.W_OK | os.X_OK) else "it can't be written"


def _dead_folders(parent: Path) -> Iterator[Path]:
    """Yield the folders of this user whose process is gone."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and _is_dead(Path(entry.path)):
                yield Path(entry.path)


def _is_dead(folder: Path) -> bool:
    try:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return False
        age_s = time.time() - status.st_mtime
        if not (folder / _LOCK).exists():
            return age_s > UNLOCKED_S
        take_lock(folder / _LOCK).close()
        return age_s > LOGS_KEPT_S or not (folder / _LOGS_WANTED).exists()
    except OSError:
        # Held, or gone in the meantime.
        return False
