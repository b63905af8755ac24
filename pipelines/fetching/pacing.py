"""Spaces bytes and requests so that they keep a rate, over any number of threads. The clock is handed in; waiting can be cancelled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from pipelines.fetching.source import Cancellation


class Pace:
    """Books amounts one behind the other: each may pass when those before it are paid for at the rate."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        assert per_s > 0
        self._per_s = per_s
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at_s = clock()

    def book(self, amount: float) -> float:
        """Book an amount and return how many seconds to wait before it may pass."""
        with self._lock:
            now_s = self._clock()
            begin_s = max(now_s, self._free_at_s)
            self._free_at_s = begin_s + amount / self._per_s
            return begin_s - now_s


class Throttle:
    """Several paces that all must be kept: a source's and the fetch's."""

    def __init__(self, paces: Sequence[Pace] = ()) -> None:
        self._paces = tuple(paces)

    def wait_for(self, amount: float, cancelled: Cancellation) -> None:
        """Return when the amount may pass, or at once after a cancellation."""
        delay_s = max((pace.book(amount) for pace in self._paces), default=0.0)
        if delay_s > 0:
            cancelled.wait(delay_s)
