"""Reading an object by byte ranges: whole up to a limit, as a seekable file, and compared without holding much of it in memory."""

from __future__ import annotations

import io

import pyarrow as pa

from pipelines.stores.store import Data, Store
from schemas.errors import ObjectMismatchError, ObjectNotFoundError, StoreError

READ_AHEAD_BYTES = 640 << 10
"""What one read of an opened remote object fetches at least: a small file is one read."""

READ_BACK_RANGE_BYTES = 16 << 20
"""How much of an object that was just put is in memory at once beside what was put: a part of the usual size is one request."""

READ_BACK_LOCAL_BYTES = 1 << 20
"""The same of a file on this machine: what is compared is still in the core's cache."""

COMPARE_RANGE_BYTES = 8 << 20
"""How much of a stored object is in memory at once when it is compared."""


def as_view(data: Data) -> memoryview:
    """Return the bytes of what can be put, without a copy."""
    return memoryview(data).cast("B")


def checked_length(data: bytes, wanted: int, where: str) -> bytes:
    """Return what a server gave of a range, which may be less than was asked for: the object ends there.

    Raises:
        StoreError: it is more, so that nobody knows where it begins.
    """
    if len(data) > wanted:
        raise StoreError(
            problem=f"the server gives {len(data)} bytes where {wanted} were asked for: it takes no notice of ranges", where=where
        )
    return bytes(data)


def read_object(store: Store, name: str, bytes_max: int) -> bytes:
    """Read all of an object that has at most ``bytes_max`` bytes, and of a longer one no more than that and one.

    Raises:
        ObjectNotFoundError: no such object.
        ObjectMismatchError: it is longer.
        StoreError: as `Store.get`.
    """
    data = store.get(name, 0, bytes_max + 1)
    if len(data) > bytes_max:
        raise ObjectMismatchError(problem=f"the object has more than {bytes_max} bytes", where=f"{store.url}/{name}")
    return data


def find_document(store: Store, name: str, bytes_max: int) -> bytes | None:
    """Return a document, of a longer one so much that its parser refuses it; None where there is none.

    Raises:
        StoreError: as `Store.get`.
    """
    try:
        return store.get(name, 0, bytes_max + 1)
    except ObjectNotFoundError:
        return None


def open_ranges(store: Store, name: str) -> pa.NativeFile:
    """Open an object of a remote store for random access.

    Raises:
        ObjectNotFoundError: no such object.
    """
    info = store.info(name)
    if info is None:
        raise ObjectNotFoundError(problem="no such object", where=f"{store.url}/{name}")
    return pa.PythonFile(io.BufferedReader(_RangeFile(store, name, info.size), READ_AHEAD_BYTES), mode="r")


def holds_same_bytes(store: Store, name: str, data: Data) -> bool:
    """Tell whether an object is there and has exactly these bytes."""
    view = as_view(data)
    info = store.info(name)
    if info is None or info.size != view.nbytes:
        return False
    try:
        for start in range(0, view.nbytes, COMPARE_RANGE_BYTES):
            stop = min(start + COMPARE_RANGE_BYTES, view.nbytes)
            if not _equal(store.get(name, start, stop), view[start:stop]):
                return False
    except ObjectNotFoundError:
        return False
    return True


def reads_back(store: Store, name: str, data: Data) -> bool:
    """Tell whether an object that was just put comes back with exactly these bytes and none behind them, comparing it as it comes.

    Raises:
        ObjectNotFoundError: no such object.
        StoreError: as `Store.get`.
    """
    view = as_view(data)
    step = READ_BACK_RANGE_BYTES if store.local_root() is None else READ_BACK_LOCAL_BYTES
    for start in range(0, view.nbytes + 1, step):
        # One byte more than there is to be: a longer object shows.
        stop = min(start + step, view.nbytes + 1)
        if not _equal(store.get(name, start, stop), view[start:stop]):
            return False
    return True


def _equal(left: bytes, right: memoryview) -> bool:
    # Arrow compares memory; Python compares a memoryview number by number, a hundred times as long.
    return bool(pa.py_buffer(left).equals(pa.py_buffer(right)))


class _RangeFile(io.RawIOBase):
    """A seekable file whose every read is one `Store.get`."""

    def __init__(self, store: Store, name: str, size: int) -> None:
        self._store = store
        self._name = name
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        stop = min(self._position + len(buffer), self._size)
        if stop <= self._position:
            return 0
        data = self._store.get(self._name, self._position, stop)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
