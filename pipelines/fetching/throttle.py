"""Waits that keep several paces at once and that a cancellation ends."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.fetching.source import Cancellation
from pipelines.stores.pace import Pace


class Throttle:
    """Several paces that all must be kept: a source's and the fetch's."""

    def __init__(self, paces: Sequence[Pace] = ()) -> None:
        self._paces = tuple(paces)

    def wait_for(self, amount: float, cancelled: Cancellation) -> None:
        """Return when the amount may pass, or at once after a cancellation."""
        delay_s = max((pace.book(amount) for pace in self._paces), default=0.0)
        if delay_s > 0:
            cancelled.wait(delay_s)
