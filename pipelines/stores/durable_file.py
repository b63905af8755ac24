"""Files and folders that are on disk, and not only in the machine's memory, before anything is built on them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from pipelines.stores.regular_file import UnfitFileError
from schemas.errors import StoreDeniedError, StoreError, StoreFullError

_NO_SYNC: Final = (errno.EINVAL, errno.ENOTSUP, errno.EROFS)
"""What file systems answer that know no sync of a folder."""


_WRITE_BYTES_MAX: Final = 64 << 20
"""Most bytes handed to one write call: macOS refuses 2 GiB."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def disk_errors(path: Path, when_full: str = "Free space, then run again: what is here is kept.") -> Iterator[None]:
    """Turn errors of the local disk into errors of a store: they are this machine's own.

    Args:
        path: named where the error itself names none.
        when_full: what to do about a full disk.
    Raises:
        StoreFullError, StoreDeniedError, StoreError: as they say.
    """
    try:
        yield
    except OSError as error:
        problem = error.strerror or str(error)
        where = str(error.filename or path)
        if error.errno in _FULL:
            raise StoreFullError(problem=f"the disk is full: {problem}", where=where, remedy=when_full) from error
        if error.errno in _DENIED:
            raise StoreDeniedError(
                problem=f"the folder can't be written: {problem}", where=where, remedy="Check its owner and mode."
            ) from error
        if isinstance(error, UnfitFileError):
            raise StoreError(problem=problem, where=where, remedy="Move it away.") from error
        raise StoreError(problem=f"the disk failed: {problem}", where=where) from error


def write_all(descriptor: int, data: memoryview) -> None:
    """Write all bytes; a single write of the operating system may take fewer.

    Raises:
        OSError: as the operating system says.
    """
    while data:
        data = data[os.write(descriptor, data[:_WRITE_BYTES_MAX]) :]


def sync_file(path: Path) -> None:
    """Put a file's bytes on disk.

    Raises:
        OSError: as the operating system says.
    """
    _sync(path, os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Put a folder's names on disk, where its file system can.

    Raises:
        OSError: as the operating system says; none where the file system knows no such thing.
    """
    try:
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def give_name(unfinished: Path, path: Path) -> None:
    """Put a written file on disk, then give it its name, replacing what has it.

    Raises:
        OSError: as the operating system says.
    """
    sync_file(unfinished)
    unfinished.replace(path)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each on disk in its own parent.

    Raises:
        OSError: as the operating system says; FileExistsError where a file has the name.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
    if not folder.is_dir():
        raise FileExistsError(errno.EEXIST, "a file is where a folder is needed", str(folder))
    sync_folder(folder.parent)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
