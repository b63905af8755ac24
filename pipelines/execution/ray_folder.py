"""The folder of an embedded Ray: this user's alone, with the token in it, and gone with the process that made it.

Ray's own default lies below ``/tmp/ray``, where every user of the machine may write: a user who replaces a socket or a package there runs
code as the user of that Ray. What a killed process left is removed by the next one that starts (`pipelines.stores.held_folder`).
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipelines.stores.held_folder import HeldFolder, held_folder_prefix, make_held_folder, remove_dead_folders
from schemas.errors import InvalidInputError

KIND: Final = "ray"

TOKEN_BYTES: Final = 32
"""Random bytes of a token; Ray takes the text of any length."""

FOLDER_BYTES_MAX: Final = 107 - len("/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""Longest path of the folder: a socket's path has at most 107 bytes (``sockaddr_un``), and Ray puts its sockets so deep."""


@dataclass(frozen=True, slots=True)
class RayFolder:
    """A folder that is held by this process."""

    held: HeldFolder

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.held.path

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
        self.held.keep()

    def close(self) -> None:
        """Remove the folder, unless its logs are wanted; Ray's processes may still be writing their last lines."""
        self.held.close()


def make_ray_folder() -> RayFolder:
    """Make a folder with a fresh token, and remove those of processes that are gone.

    Raises:
        InvalidInputError: there is no place for it: none that can be written, with a short path, and in which others rename nothing.
    """
    parent = _parent()
    remove_dead_folders(parent)
    folder = RayFolder(make_held_folder(KIND, parent))
    try:
        with open(os.open(folder.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(TOKEN_BYTES))
    except OSError as error:
        folder.close()
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
    bytes_max = FOLDER_BYTES_MAX - len(held_folder_prefix(KIND)) - 8
    if len(os.fsencode(parent)) > bytes_max:
        return f"Ray's sockets need a path of at most {bytes_max} bytes"
    try:
        mode = os.stat(parent).st_mode
    except OSError as error:
        return error.strerror or type(error).__name__
    if mode & 0o022 and not mode & stat.S_ISVTX:
        return "others may rename what is in it"
    return "" if os.access(parent, os.W_OK | os.X_OK) else "it can't be written"
