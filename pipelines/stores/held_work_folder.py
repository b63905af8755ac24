"""Holds a local work folder: a watcher alone, because it removes whole epochs from it; other producers beside each other.

Producers share nothing in it but an epoch's folder, in which each shard has its own; the claim keeps them from the same shard. A bucket
is not held: several watchers need a folder each.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pipelines.stores.file_lock import NO_LOCKS, take_lock
from pipelines.stores.held_folder import remove_dead_folders
from pipelines.stores.object_names import TEMPORARY_FOLDER
from pipelines.stores.open_store import open_store
from schemas.errors import InvalidInputError, StoreDeniedError, StoreError

_LOCK: Final = "work.lock"
_DENIED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)


def scratch_folder(url: str) -> Path | None:
    """Return where temporaries of runs that fill a local folder lie, which may be as large as a state; None for a bucket: where temporary files go."""
    root = open_store(url).local_root()
    return None if root is None else root / TEMPORARY_FOLDER


def remove_dead_scratch(*urls: str) -> None:
    """Remove what killed runs have left in the folders that a run is going to fill."""
    for url in urls:
        folder = scratch_folder(url)
        if folder is not None:
            remove_dead_folders(folder)


@contextmanager
def held_work_folder(url: str, *, alone: bool) -> Iterator[None]:
    """Hold a work folder for as long as the block runs; one that is no local folder, or has no locks, is not held.

    Args:
        alone: no other process may work in it.
    Raises:
        InvalidInputError: a process that can't be worked beside holds it.
        StoreError: it can't be written.
    """
    root = open_store(url).local_root()
    if root is None:
        yield
        return
    folder = root / TEMPORARY_FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(folder / _LOCK, shared=not alone)
    except BlockingIOError:
        raise InvalidInputError(
            problem="another process works in this work folder" if alone else "a watcher works in this work folder, and works there alone",
            where=str(root),
            remedy="Give each a folder of its own with --work.",
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            failure = StoreDeniedError if error.errno in _DENIED else StoreError
            raise failure(problem=f"the work folder can't be written: {error.strerror or error}", where=str(root)) from error
        lock = None
    if lock is None:
        yield
        return
    with lock:
        yield
