"""Rates are kept over threads, and waiting ends with a cancellation."""

from __future__ import annotations

import threading
import time

from pipelines.fetching.pacing import Pace, Throttle
from pipelines.fetching.source import Cancellation


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def test_amounts_are_booked_one_behind_the_other() -> None:
    """Each waits until those before it are paid for."""
    clock = Clock()
    pace = Pace(10.0, clock)
    assert [pace.book(5), pace.book(10), pace.book(1)] == [0.0, 0.5, 1.5]


def test_time_that_passed_is_not_saved_up() -> None:
    """A pause does not earn a burst."""
    clock = Clock()
    pace = Pace(10.0, clock)
    pace.book(10)
    clock.now_s += 60
    assert [pace.book(10), pace.book(10)] == [0.0, 1.0]


def test_the_slowest_pace_counts() -> None:
    """Of a source's and the fetch's."""
    slow, fast = Pace(1.0), Pace(1e9)
    throttle = Throttle([slow, fast])
    cancelled = Cancellation()
    throttle.wait_for(1000.0, cancelled)
    cancelled.cancel()
    began_s = time.monotonic()
    throttle.wait_for(1.0, cancelled)
    assert time.monotonic() - began_s < 60


def test_a_cancellation_ends_the_waiting() -> None:
    """At once, not when the time is over."""
    throttle, cancelled = Throttle([Pace(1.0)]), Cancellation()
    throttle.wait_for(3600.0, cancelled)
    waiting = threading.Thread(target=throttle.wait_for, args=(1.0, cancelled))
    waiting.start()
    cancelled.cancel()
    waiting.join(timeout=60)
    assert not waiting.is_alive()
