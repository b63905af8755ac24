"""All paces of a transfer are kept, and waiting ends with a cancellation."""

from __future__ import annotations

import threading
import time

from pipelines.fetching.source import Cancellation
from pipelines.fetching.throttle import Throttle
from pipelines.stores.pace import Pace


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
