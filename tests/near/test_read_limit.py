"""The limit on reading from a node's disk."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.near.node.read_limit import BURST_S, ReadLimit


class Clock:
    """A clock that only sleeping and the test move."""

    def __init__(self) -> None:
        self.now = 0.0

    def read(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        assert seconds > 0
        self.now += seconds


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 2)), min_size=1, max_size=30))
def test_no_more_than_the_limit_is_read_in_any_time(steps: list[tuple[int, float]]) -> None:
    """All bytes up to any moment fit the rate and one burst."""
    clock = Clock()
    limit = ReadLimit(1000, clock.read, clock.sleep)
    spent = 0
    for byte_count, pause_s in steps:
        limit.spend(byte_count)
        spent += byte_count
        assert spent <= 1000 * (clock.now + BURST_S) + 1e-3
        clock.now += pause_s


def test_reading_below_the_limit_never_sleeps() -> None:
    """A reader that is slow anyway is not slowed down."""
    clock = Clock()
    limit = ReadLimit(1000, clock.read, clock.sleep)
    for _ in range(50):
        clock.now += 0.1
        before = clock.now
        limit.spend(100)
        assert clock.now == before
