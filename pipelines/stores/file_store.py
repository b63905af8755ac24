"""A store in a folder of a local or network file system.

An object is written to a temporary file, synced, and then given its name by a hard link (create only) or a rename, and the
folder is synced: a reader sees all of it or nothing, and a put that returned survives a power cut. Half-written files lie in one
folder at the root, never beside objects, since nearcore counts whatever lies in a shard's folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from pipelines.stores.durable_file import make_folder, sync_folder, write_all
from pipelines.stores.object_names import TEMPORARY_FOLDER, check_object_name, check_prefix, check_range
from pipelines.stores.per_process import PerProcess
from pipelines.stores.ranges import as_view, holds_same_bytes
from pipelines.stores.regular_file import UnfitFileError, open_regular
from pipelines.stores.store import Data, ObjectInfo
from schemas.errors import (
    InvalidInputError,
    ObjectExistsError,
    ObjectNotFoundError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    TransientStoreError,
)

TEMPORARY_FILE_AGE_S_MAX = 6 * 3600
"""A temporary file older than this belongs to a writer that was killed, and is removed."""

NAME_ATTEMPTS_MAX = 8
"""How often a folder is made again that is deleted before a file has its name in it."""

_IN_URL = re.compile("[%?#]")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_TRANSIENT = {errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EBUSY}


@dataclass(frozen=True, slots=True)
class FileStore:
    """A folder of files. The folder itself is made by the first put."""

    root: str
    """Absolute path."""
    durable: bool = True
    """Wait for the disk with every put; without it a power cut may take what was put last."""
    _cleaned: PerProcess[bool] = field(default_factory=PerProcess, repr=False, compare=False)

    @property
    def url(self) -> str:
        """``file://`` and the path, with what means something else in a URL written as ``%…``."""
        return f"file://{_IN_URL.sub(lambda found: f'%{ord(found[0]):02X}', self.root)}"

    def local_root(self) -> Path | None:
        """See `Store.local_root`."""
        return Path(self.root)

    def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        """See `Store.put`."""
        target = self._path(name)
        with self._mapped(name), self._temporary(data, after_ns=0) as temporary:
            make_folder(target.parent)
            if target.is_dir():
                raise ObjectExistsError(problem="the name is taken by a folder", where=str(target))
            if not create_only:
                _name(os.replace, temporary, target)
            else:
                try:
                    _name(os.link, temporary, target)
                except FileExistsError:
                    if not holds_same_bytes(self, name, data):
                        raise ObjectExistsError(problem="the name is taken by other bytes", where=str(target)) from None
            self._sync_folder(target.parent)
            return _info(name, os.stat(target))

    def get(self, name: str, start: int, stop: int) -> bytes:
        """See `Store.get`."""
        check_range(start, stop)
        with self._mapped(name), open_regular(self._path(name)) as file:
            file.seek(start)
            # Python makes room for all that is asked for: so no more is asked for than there is.
            return file.read(max(min(stop, os.fstat(file.fileno()).st_size) - start, 0))

    def open(self, name: str) -> pa.NativeFile:
        """See `Store.open`: memory-mapped."""
        found = self.info(name)
        if found is None:
            raise ObjectNotFoundError(problem="no such object", where=f"{self.root}/{name}")
        with self._mapped(name):
            # An empty file can't be mapped.
            return pa.memory_map(str(self._path(name))) if found.size else pa.BufferReader(b"")

    def info(self, name: str) -> ObjectInfo | None:
        """See `Store.info`."""
        path = self._path(name)
        try:
            with self._mapped(name):
                found = os.stat(path)
        except ObjectNotFoundError:
            return None
        return _info(name, found) if stat.S_ISREG(found.st_mode) else None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        folder = check_prefix(prefix)
        yield from self._walk(Path(self.root, folder), folder + "/" if folder else "")

    def swap(self, name: str, data: Data, expected: ObjectInfo | None) -> ObjectInfo:
        """See `Store.swap`: decided under a lock file that all swaps of this store take."""
        target = self._path(name)
        with self._mapped(name), self._swap_lock():
            current = self.info(name)
            unchanged = current is None if expected is None else current is not None and current.version == expected.version
            if not unchanged:
                if current is not None and holds_same_bytes(self, name, data):
                    return current
                raise ObjectExistsError(problem="the object is not what was expected", where=str(target))
            # Versions hold the modification time: made to rise, so that a version never comes back within one clock tick.
            with self._temporary(data, after_ns=os.stat(target).st_mtime_ns if current else 0) as temporary:
                make_folder(target.parent)
                _name(os.replace, temporary, target)
                self._sync_folder(target.parent)
                return _info(name, os.stat(target))

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        path = self._path(name)
        with suppress(ObjectNotFoundError), self._mapped(name):
            os.unlink(path)
            self._sync_folder(path.parent)

    def delete_folder(self, folder: str) -> None:
        """See `Store.delete_folder`: the folders go too, but for those that something was put in meanwhile."""
        path = self._path(folder)
        for info in tuple(self.list(folder)):
            with suppress(ObjectNotFoundError), self._mapped(info.name):
                os.unlink(self._path(info.name))
        for found, _, _ in os.walk(path, topdown=False):
            with suppress(OSError):
                os.rmdir(found)
        if path.parent.is_dir():
            with self._mapped(folder):
                self._sync_folder(path.parent)

    def _path(self, name: str) -> Path:
        return Path(self.root, check_object_name(name))

    def _walk(self, folder: Path, prefix: str) -> Iterator[ObjectInfo]:
        try:
            with self._mapped(prefix), os.scandir(folder) as entries:
                # A folder sorts as its name and the slash, so that the whole listing is in the order of the names.
                found = sorted(
                    (entry.name + "/" if entry.is_dir() else entry.name, entry) for entry in entries if entry.name != TEMPORARY_FOLDER
                )
        except ObjectNotFoundError:
            return
        for name, entry in found:
            if name.endswith("/"):
                yield from self._walk(folder / entry.name, prefix + name)
                continue
            with suppress(ObjectNotFoundError), self._mapped(prefix + name):
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):
                    yield _info(prefix + name, status)

    def _sync_folder(self, folder: Path) -> None:
        if self.durable:
            sync_folder(folder)

    @contextmanager
    def _temporary(self, data: Data, after_ns: int) -> Iterator[Path]:
        """Hold the bytes in a temporary file, synced where that was promised, modified later than ``after_ns``, that is gone afterwards."""
        self._cleaned.get(self._clean)
        folder = Path(self.root, TEMPORARY_FOLDER)
        make_folder(folder)
        path = folder / uuid.uuid4().hex
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                write_all(descriptor, as_view(data))
                modified_ns = max(time.time_ns(), after_ns + 1)
                os.utime(descriptor, ns=(modified_ns, modified_ns))
                if self.durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            yield path
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)

    def _clean(self) -> bool:
        """Remove what killed writers left; what can't be removed is left to the next."""
        oldest = time.time() - TEMPORARY_FILE_AGE_S_MAX
        with suppress(OSError), os.scandir(Path(self.root, TEMPORARY_FOLDER)) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.name != _SWAP_LOCK and entry.stat().st_mtime < oldest:
                        os.unlink(entry.path)
        return True

    @contextmanager
    def _swap_lock(self) -> Iterator[None]:
        folder = Path(self.root, TEMPORARY_FOLDER)
        make_folder(folder)
        descriptor = os.open(folder / _SWAP_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _mapped(self, name: str) -> Iterator[None]:
        """Turn errors of the operating system into errors of a store."""
        try:
            yield
        except OSError as error:
            raise _store_error(error, f"{self.root}/{name}") from error
        except MemoryError as error:
            raise StoreError(problem="not enough memory to hold the object", where=f"{self.root}/{name}") from error


_SWAP_LOCK = "swap.lock"


def _store_error(error: OSError, where: str) -> StoreError | InvalidInputError:
    """Return the store's error for an error of the operating system."""
    problem = error.strerror or str(error)
    if error.errno in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR) and not isinstance(error, FileExistsError):
        return ObjectNotFoundError(problem="no such object", where=where)
    if error.errno in _FULL:
        return StoreFullError(problem=f"the store is full: {problem}", where=where, remedy="Free space or raise the quota, then run again.")
    if error.errno in _DENIED:
        return StoreDeniedError(
            problem=f"the store refuses access: {problem}", where=where, remedy="Check the owner and mode of the folder."
        )
    if error.errno == errno.EXDEV:
        return StoreError(
            problem="the store's folder spans several file systems", where=where, remedy="Point the store below the mount point."
        )
    if error.errno in _TRANSIENT:
        return TransientStoreError(problem=f"the file system has a transient fault: {problem}", where=where)
    if isinstance(error, UnfitFileError):
        return StoreError(problem=problem, where=where, remedy="Move it away.")
    return StoreError(problem=f"the file system failed: {problem}", where=where)


def _name(give: Callable[[Path, Path], None], temporary: Path, target: Path) -> None:
    """Give a file its name, in a folder that was there and may have been deleted since."""
    for _ in range(NAME_ATTEMPTS_MAX):
        try:
            return give(temporary, target)
        except FileNotFoundError:
            if not temporary.exists():
                raise
            make_folder(target.parent)
    raise TransientStoreError(problem="the folder is deleted again and again", where=str(target.parent))


def _info(name: str, status: os.stat_result) -> ObjectInfo:
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return ObjectInfo(name, status.st_size, f"{status.st_mtime_ns}-{status.st_ino}-{status.st_size}", modified)
