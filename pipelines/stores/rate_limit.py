"""A store that moves at most so many bytes a second, in each process that uses it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from pipelines.stores.per_process import PerProcess
from pipelines.stores.ranges import as_view, open_ranges
from pipelines.stores.store import Data, ObjectInfo, Store, StoreGuarantees


class BytePacer:
    """Spaces transfers so that bytes and time stay in proportion: each waits until the ones before it are paid for."""

    def __init__(
        self, bytes_per_s: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        assert bytes_per_s > 0
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at_s = clock()

    def wait_for(self, size: int) -> None:
        """Return when ``size`` more bytes may pass."""
        with self._lock:
            now_s = self._clock()
            begin_s = max(now_s, self._free_at_s)
            self._free_at_s = begin_s + size / self._bytes_per_s
        if begin_s > now_s:
            self._sleep(begin_s - now_s)


@dataclass(frozen=True, slots=True)
class RateLimitedStore:
    """Another store, its transfers paced; uploads and downloads share the rate."""

    inner: Store
    bytes_per_s: float
    _pacer: PerProcess[BytePacer] = field(default_factory=PerProcess, repr=False, compare=False)

    @property
    def url(self) -> str:
        """The inner store's."""
        return self.inner.url

    @property
    def guarantees(self) -> StoreGuarantees:
        """The inner store's."""
        return self.inner.guarantees

    def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        """See `Store.put`."""
        self._wait_for(as_view(data).nbytes)
        return self.inner.put(name, data, create_only=create_only)

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """See `Store.get`: paid for afterwards, when the size is known."""
        data = self.inner.get(name, start, stop)
        self._wait_for(len(data))
        return data

    def open(self, name: str) -> pa.NativeFile:
        """See `Store.open`."""
        return open_ranges(self, name)

    def info(self, name: str) -> ObjectInfo | None:
        """See `Store.info`."""
        return self.inner.info(name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        return self.inner.list(prefix)

    def swap(self, name: str, data: Data, expected: ObjectInfo | None) -> ObjectInfo:
        """See `Store.swap`."""
        self._wait_for(as_view(data).nbytes)
        return self.inner.swap(name, data, expected)

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        self.inner.delete(name)

    def _wait_for(self, size: int) -> None:
        self._pacer.get(lambda: BytePacer(self.bytes_per_s)).wait_for(size)
