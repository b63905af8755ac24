"""A lock on a local file that ends with its process, however that ends. It keeps away only processes that ask for it too."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import BinaryIO, Final

NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What a file system without locks says."""


def take_lock(path: Path, *, shared: bool = False) -> BinaryIO:
    """Lock a file, which is made if it is not there; the lock is held until the returned file is closed.

    Args:
        shared: beside others that share it; otherwise alone.
    Raises:
        BlockingIOError: another process holds it.
        OSError: the file can't be opened, or its file system has no locks.
    """
    file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by the lock's holder
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return file
