"""A slot for what must not leave its process: connections, locks, buckets of tokens.

A store is a frozen value that is pickled to workers and may be there across a fork; its clients survive neither. The slot is
filled on first use in each process, and travels empty.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Holds one object for the process that made it."""

    __slots__ = ("_lock", "_pid", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = -1
        self._value: T | None = None

    def get(self, make: Callable[[], T]) -> T:
        """Return this process's object, making it on first use."""
        pid = os.getpid()
        if self._pid != pid:
            # After a fork the lock may be held by a thread that does not exist here.
            self._lock = threading.Lock() if self._pid != -1 else self._lock
            with self._lock:
                if self._pid != pid:
                    self._value = make()
                    self._pid = pid
        assert self._value is not None
        return self._value

    @property
    def opened(self) -> T | None:
        """This process's object, if it was made."""
        return self._value if self._pid == os.getpid() else None

    def __reduce__(self) -> tuple[Any, ...]:
        return PerProcess, ()
