"""How long answers took, from the request to the last byte: counts by upper bounds, as Prometheus has them."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

BOUNDS_S: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""A stock node waits 10 s."""


@dataclass(slots=True)
class AnswerTimes:
    """Seconds of answers that went out whole."""

    total_s: float = 0.0
    _counts: list[int] = field(init=False, default_factory=lambda: [0] * (len(BOUNDS_S) + 1))

    def add(self, seconds: float) -> None:
        """Take an answer."""
        self.total_s += seconds
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1

    def up_to(self) -> tuple[tuple[str, int], ...]:
        """Return each bound, the last without end, and how many answers took no longer."""
        bounds = (*map(str, BOUNDS_S), "+Inf")
        return tuple((bound, sum(self._counts[: number + 1])) for number, bound in enumerate(bounds))
