"""Reading files of this machine that somebody named or left there: regular files, and no further than a limit.

What has a file's name may be a pipe that nobody writes to, a device without an end, a link to one, or longer than memory. A file is
opened without waiting, and looked at once it is open, so that nothing can take its place in between. Links are followed.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Final

_KINDS: Final = (
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISCHR, "character device"),
    (stat.S_ISBLK, "block device"),
    (stat.S_ISSOCK, "socket"),
)


class UnfitFileError(OSError):
    """It is no regular file, or too long; ``strerror`` says which."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    Raises:
        IsADirectoryError: it is a folder.
        UnfitFileError: it is no regular file.
        OSError: it can't be opened.
    """
    # A pipe is opened without a writer, and no terminal becomes this process's own.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise _no_file(path, os.stat(path).st_mode) from None
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _no_file(path, mode)
        os.set_blocking(descriptor, True)
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, bytes_max: int) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        UnfitFileError: no regular file, or more than ``bytes_max`` bytes.
        OSError: as `open_regular`.
    """
    with open_regular(path) as file:
        # Python makes room for all that is asked for: so no more is asked for than there is.
        size = os.fstat(file.fileno()).st_size
        data = file.read(min(size, bytes_max) + 1)
        if size < len(data) <= bytes_max:
            data += file.read(bytes_max + 1 - len(data))
    if len(data) > bytes_max:
        raise UnfitFileError(errno.EINVAL, f"it has more than {bytes_max} bytes", str(path))
    return data


def _no_file(path: Path, mode: int) -> OSError:
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "special file")
    return UnfitFileError(errno.EINVAL, f"it is a {kind}, not a regular file", str(path))
