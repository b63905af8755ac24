"""A store in the memory of one process, for tests and for runs that keep nothing.

Two stores of one name in one process are the same folder. A store that is pickled to another process is empty there.
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from pipelines.stores.object_names import check_object_name, check_prefix, check_range
from pipelines.stores.remote_store import RemoteStore
from pipelines.stores.store import Data, ObjectInfo, Store
from schemas.errors import ObjectExistsError, ObjectNotFoundError


@dataclass(slots=True)
class _Folder:
    objects: dict[str, bytes] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)


_folders: dict[str, _Folder] = defaultdict(_Folder)

OPENERS: Final[dict[str, Callable[[str], Store]]] = {}
"""By name, what this process opens in place of a `MemoryStore`: for tests that put faults, or another actor's acts, before one."""


def open_memory_store(name: str) -> Store:
    """Return the store of a name, by its opener if it has one."""
    return OPENERS.get(name, MemoryStore)(name)


@dataclass(frozen=True, slots=True)
class MemoryStore(RemoteStore):
    """A folder of objects in this process."""

    name: str

    @property
    def url(self) -> str:
        """``memory://`` and the name."""
        return f"memory://{self.name}"

    def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        """See `Store.put`."""
        check_object_name(name)
        taken = bytes(data)
        with self._folder.lock:
            if create_only and self._folder.objects.get(name, taken) != taken:
                raise ObjectExistsError(problem="the name is taken by other bytes", where=self._where(name))
            self._folder.objects[name] = taken
        return _info(name, taken)

    def get(self, name: str, start: int, stop: int) -> bytes:
        """See `Store.get`."""
        check_range(start, stop)
        return self._object(name)[start:stop]

    def open(self, name: str) -> pa.NativeFile:
        """See `Store.open`."""
        return pa.BufferReader(self._object(name))

    def info(self, name: str) -> ObjectInfo | None:
        """See `Store.info`."""
        data = self._folder.objects.get(check_object_name(name))
        return None if data is None else _info(name, data)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        folder = check_prefix(prefix)
        with self._folder.lock:
            found = sorted((name, data) for name, data in self._folder.objects.items() if not folder or name.startswith(folder + "/"))
        return (_info(name, data) for name, data in found)

    def swap(self, name: str, data: Data, expected: ObjectInfo | None) -> ObjectInfo:
        """See `Store.swap`."""
        with self._folder.lock:
            current = self.info(name)
            unchanged = current is None if expected is None else current is not None and current.version == expected.version
            if not unchanged and self._folder.objects.get(name) != bytes(data):
                raise ObjectExistsError(problem="the object is not what was expected", where=self._where(name))
            return self.put(name, data)

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        self._folder.objects.pop(check_object_name(name), None)

    @property
    def _folder(self) -> _Folder:
        return _folders[self.name]

    def _object(self, name: str) -> bytes:
        data = self._folder.objects.get(check_object_name(name))
        if data is None:
            raise ObjectNotFoundError(problem="no such object", where=self._where(name))
        return data


def _info(name: str, data: bytes) -> ObjectInfo:
    return ObjectInfo(name, len(data), hashlib.sha256(data).hexdigest())
