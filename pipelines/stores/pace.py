"""Spaces amounts so that they keep a rate, over any number of threads: bytes to and from stores, peers and disks, requests to servers.

A pace does not wait: it says for how long to, so that each caller waits in its own way (a thread that sleeps, an event loop, a
wait that a cancellation ends).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """Books amounts one behind the other: each takes its share of time at the rate.

    Args:
        per_s: amount a second, above 0.
        burst_s: how many seconds' worth may be booked at once after a pause; 0 where a pause earns nothing.
        clock: gives seconds from any beginning.
    """

    def __init__(self, per_s: float, *, burst_s: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        assert per_s > 0
        self._per_s = per_s
        self._burst_s = burst_s
        self._clock = clock
        self._lock = threading.Lock()
        self._paid_at_s = clock() - burst_s

    def book(self, amount: float) -> float:
        """Book an amount; return how many seconds to wait before it may pass: until those before it are paid for."""
        now_s, begin_s, _ = self._book(amount)
        return max(0.0, begin_s - now_s)

    def book_passed(self, amount: float) -> float:
        """Book an amount that has passed, since it was not known before; return how many seconds to wait until it is paid for too."""
        now_s, _, end_s = self._book(amount)
        return max(0.0, end_s - now_s)

    def _book(self, amount: float) -> tuple[float, float, float]:
        with self._lock:
            now_s = self._clock()
            begin_s = max(now_s - self._burst_s, self._paid_at_s)
            self._paid_at_s = begin_s + amount / self._per_s
            return now_s, begin_s, self._paid_at_s
