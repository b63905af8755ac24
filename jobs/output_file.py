"""A file that a command writes because ``--out`` names it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from schemas.errors import InvalidInputError


def write_output(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        InvalidInputError: the file can't be written.
    """
    path = path.expanduser()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise InvalidInputError(problem=f"the file can't be written: {error.strerror or error}", where=f"--out {path}") from None
