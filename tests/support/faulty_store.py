"""A store that fails on purpose, by script or by seed.

Faults that the real stores show: a request that never arrived, a request that was carried out but whose reply was lost, a slow
reply, a listing that is behind. `Fault.TORN` is what the stores promise never to do, for tests that must notice broken objects.
"""

from __future__ import annotations

import enum
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipelines.stores.ranges import as_view
from pipelines.stores.remote_store import RemoteStore
from pipelines.stores.store import Data, ObjectInfo, Store
from schemas.errors import TransientStoreError

T = TypeVar("T")


class Fault(enum.Enum):
    """What goes wrong with one call."""

    FAIL_BEFORE = "fail before"
    """TransientStoreError, nothing was done."""
    REPLY_LOST = "reply lost"
    """TransientStoreError, but the call was carried out."""
    TORN = "torn"
    """put and swap: the first half of the bytes is stored, and the call reports success."""
    SLOW = "slow"
    """The call takes ``slow_s`` longer."""
    STALE_LIST = "stale list"
    """list: the object that was written last is left out."""


_APPLICABLE = {Fault.TORN: {"put", "swap"}, Fault.STALE_LIST: {"list"}}

Schedule = Callable[[str, str, int], Fault | None]
"""Method, object name (or prefix) and number of the call of this method, from 0 -> its fault."""


def scripted(faults: Mapping[tuple[str, int], Fault]) -> Schedule:
    """Return a schedule of given faults by (method, number of the call of that method, from 0)."""
    return lambda method, _name, number: faults.get((method, number))


def seeded(seed: int, rate: float, kinds: Iterable[Fault] = (Fault.FAIL_BEFORE, Fault.REPLY_LOST)) -> Schedule:
    """Return a schedule that hits each call with a probability; the same seed and order of calls give the same faults."""
    generator = random.Random(seed)
    choices = tuple(kinds)

    def pick(method: str, _name: str, _number: int) -> Fault | None:
        hit, fault = generator.random() < rate, generator.choice(choices)
        return fault if hit and method in _APPLICABLE.get(fault, {method}) else None

    return pick


@dataclass(slots=True)
class FaultyStore(RemoteStore):
    """Another store behind a schedule of faults. Lives in one process; not picklable."""

    inner: Store
    schedule: Schedule
    slow_s: float = 0.05
    injected: list[tuple[str, str, Fault]] = field(default_factory=list)
    """Every fault so far: method, name, fault."""
    calls: dict[str, int] = field(default_factory=dict)
    """How often each method was called."""
    _last_written: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """The inner store's."""
        return self.inner.url

    def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        """See `Store.put`."""
        return self._write("put", name, data, lambda sent: self.inner.put(name, sent, create_only=create_only))

    def get(self, name: str, start: int, stop: int) -> bytes:
        """See `Store.get`."""
        return self._call("get", name, lambda: self.inner.get(name, start, stop))

    def info(self, name: str) -> ObjectInfo | None:
        """See `Store.info`."""
        return self._call("info", name, lambda: self.inner.info(name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        fault = self._begin("list", prefix)
        found = self._carry_out("list", prefix, fault, lambda: tuple(self.inner.list(prefix)))
        hidden = self._last_written if fault is Fault.STALE_LIST else None
        return (info for info in found if info.name != hidden)

    def swap(self, name: str, data: Data, expected: ObjectInfo | None) -> ObjectInfo:
        """See `Store.swap`."""
        return self._write("swap", name, data, lambda sent: self.inner.swap(name, sent, expected))

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        self._call("delete", name, lambda: self.inner.delete(name))

    def _write(self, method: str, name: str, data: Data, write: Callable[[Data], ObjectInfo]) -> ObjectInfo:
        fault = self._begin(method, name)
        view = as_view(data)
        sent = view[: view.nbytes // 2].tobytes() if fault is Fault.TORN else data

        def carry_out() -> ObjectInfo:
            info = write(sent)
            self._last_written = name
            return info

        return self._carry_out(method, name, fault, carry_out)

    def _begin(self, method: str, name: str) -> Fault | None:
        with self._lock:
            number = self.calls.get(method, 0)
            self.calls[method] = number + 1
            fault = self.schedule(method, name, number)
            if fault is not None:
                self.injected.append((method, name, fault))
            return fault

    def _carry_out(self, method: str, name: str, fault: Fault | None, call: Callable[[], T]) -> T:
        if fault is Fault.FAIL_BEFORE:
            raise TransientStoreError(problem="injected: the request was lost", where=f"{method} {name}")
        if fault is Fault.SLOW:
            time.sleep(self.slow_s)
        result = call()
        if fault is Fault.REPLY_LOST:
            raise TransientStoreError(problem="injected: the reply was lost", where=f"{method} {name}")
        return result

    def _call(self, method: str, name: str, call: Callable[[], T]) -> T:
        return self._carry_out(method, name, self._begin(method, name), call)


@dataclass(slots=True)
class LaggingStore:
    """Another store whose listings show what was there at some moment: later objects are missing, deleted ones still there."""

    inner: Store
    _shown: tuple[ObjectInfo, ...] | None = None

    def fall_behind(self) -> None:
        """From now on list what is there now."""
        self._shown = tuple(self.inner.list())

    def catch_up(self) -> None:
        """List what is there."""
        self._shown = None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        if self._shown is None:
            return self.inner.list(prefix)
        folder = prefix.removesuffix("/")
        return (info for info in self._shown if not folder or info.name.startswith(f"{folder}/"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
