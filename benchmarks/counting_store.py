"""Counts what a process asks of stores in folders: calls and bytes, by the folder and the method.

A call is one of `Store`'s own, whatever it takes the store inside. Where reads are by ranges, a file is opened as it would be in a bucket, so
that each range it reads is a ``get``; else it is memory-mapped, as a folder's files are, and counts as one ``open``.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from pipelines.stores import open_store as stores
from pipelines.stores.file_store import FileStore
from pipelines.stores.ranges import as_view, open_ranges
from pipelines.stores.store import Data, ObjectInfo

WRITES = ("put", "swap", "list")
"""Methods that providers bill as writes; deleting is free."""

READS = ("get", "info")

Calls = Counter[tuple[str, str, str]]
"""(name of the store's folder, method, ``calls`` or ``bytes``) to a number."""

_calls: Calls = Counter()
_counting = threading.Lock()
_inside = threading.local()


class CountingFileStore(FileStore):
    """A folder whose calls are counted; its files are memory-mapped."""

    __slots__ = ()

    def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        """See `Store.put`."""
        with self._counted("put", as_view(data).nbytes):
            return FileStore.put(self, name, data, create_only=create_only)

    def get(self, name: str, start: int, stop: int) -> bytes:
        """See `Store.get`."""
        with self._counted("get"):
            data = FileStore.get(self, name, start, stop)
        self._add("get", len(data))
        return data

    def open(self, name: str) -> pa.NativeFile:
        """See `Store.open`."""
        with self._counted("open"):
            return FileStore.open(self, name)

    def info(self, name: str) -> ObjectInfo | None:
        """See `Store.info`."""
        with self._counted("info"):
            return FileStore.info(self, name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        with self._counted("list"):
            return FileStore.list(self, prefix)

    def swap(self, name: str, data: Data, expected: ObjectInfo | None) -> ObjectInfo:
        """See `Store.swap`."""
        with self._counted("swap", as_view(data).nbytes):
            return FileStore.swap(self, name, data, expected)

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        with self._counted("delete"):
            FileStore.delete(self, name)

    @contextmanager
    def _counted(self, method: str, size: int = 0) -> Iterator[None]:
        if getattr(_inside, "a_call", False):
            yield
            return
        with _counting:
            _calls[self._folder, method, "calls"] += 1
        self._add(method, size)
        _inside.a_call = True
        try:
            yield
        finally:
            _inside.a_call = False

    def _add(self, method: str, size: int) -> None:
        if size and not getattr(_inside, "a_call", False):
            with _counting:
                _calls[self._folder, method, "bytes"] += size

    @property
    def _folder(self) -> str:
        return self.root.rpartition("/")[2]


class RangeReadStore(CountingFileStore):
    """The same, its files read by ranges."""

    __slots__ = ()

    def local_root(self) -> Path | None:
        """None, so that no file is read past the store."""
        return None

    def open(self, name: str) -> pa.NativeFile:
        """See `Store.open`."""
        return open_ranges(self, name)


def count_calls(*, by_ranges: bool) -> None:
    """From now on count every call of stores that this process opens in folders."""
    vars(stores)["FileStore"] = RangeReadStore if by_ranges else CountingFileStore


def stop_counting() -> None:
    """Open stores as they are again."""
    vars(stores)["FileStore"] = FileStore


def counted_calls() -> Calls:
    """Return what this process has counted so far."""
    with _counting:
        return Counter(_calls)


def requests(calls: Calls, methods: tuple[str, ...], folder: str = "") -> int:
    """Return the number of calls of some methods, in one folder or in all."""
    return sum(
        number
        for (where, method, what), number in calls.items()
        if what == "calls" and method in methods and (not folder or where == folder)
    )


def transferred(calls: Calls, methods: tuple[str, ...], folder: str = "") -> int:
    """Return the bytes of some methods' calls, in one folder or in all."""
    return sum(
        number
        for (where, method, what), number in calls.items()
        if what == "bytes" and method in methods and (not folder or where == folder)
    )
