"""A limit on how fast this process reads from a node's disk, so that the node keeps its own.

One token bucket a process and limit; the bytes counted are those of keys and values, after decompression.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from functools import lru_cache

import psutil

BURST_S = 0.25
"""How many seconds' worth of bytes may be read at once after a pause."""


class ReadLimit:
    """A token bucket of bytes."""

    def __init__(self, bytes_per_s: int, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        """Start with a full bucket.

        Args:
            bytes_per_s: at least 1.
        """
        assert bytes_per_s >= 1
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._available = bytes_per_s * BURST_S
        self._updated = clock()
        self._lock = threading.Lock()

    def spend(self, byte_count: int) -> None:
        """Count bytes that were read; sleep until they are within the limit."""
        with self._lock:
            now = self._clock()
            self._available = min(self._available + (now - self._updated) * self._bytes_per_s, self._bytes_per_s * BURST_S) - byte_count
            self._updated = now
            wait_s = max(0.0, -self._available / self._bytes_per_s)
        if wait_s:
            self._sleep(wait_s)


@lru_cache(maxsize=16)
def process_read_limit(bytes_per_s: int) -> ReadLimit:
    """Return this process's bucket for a limit, and give the process low I/O priority where the system has such a thing."""
    with contextlib.suppress(psutil.Error, OSError, AttributeError, ValueError):
        psutil.Process().ionice(psutil.IOPRIO_CLASS_BE, 7)
    return ReadLimit(bytes_per_s)
