"""Rates are kept, over threads too, and what a pause earns is bounded."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.stores.pace import Pace


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def test_amounts_are_booked_one_behind_the_other() -> None:
    """Each waits until those before it are paid for."""
    pace = Pace(10.0, clock=Clock())
    assert [pace.book(5), pace.book(10), pace.book(1)] == [0.0, 0.5, 1.5]


def test_time_that_passed_is_not_saved_up() -> None:
    """A pause does not earn a burst where none was asked for."""
    clock = Clock()
    pace = Pace(10.0, clock=clock)
    pace.book(10)
    clock.now_s += 60
    assert [pace.book(10), pace.book(10)] == [0.0, 1.0]


def test_what_has_passed_is_waited_for_itself() -> None:
    """Its size was not known before, so the next one must not pass until it is paid for."""
    pace = Pace(10.0, clock=Clock())
    assert [pace.book_passed(5), pace.book_passed(10), pace.book(1)] == [0.5, 1.5, 1.5]


@given(st.floats(0, 2), st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 2)), min_size=1, max_size=30))
def test_no_more_than_the_rate_and_one_burst_passes_in_any_time(burst_s: float, steps: list[tuple[int, float]]) -> None:
    """All that has passed up to any moment fits the rate and one burst."""
    clock = Clock()
    pace = Pace(1000, burst_s=burst_s, clock=clock)
    passed = 0
    for amount, pause_s in steps:
        clock.now_s += pace.book_passed(amount)
        passed += amount
        assert passed <= 1000 * (clock.now_s - 100.0 + burst_s) + 1e-3
        clock.now_s += pause_s


def test_who_is_slower_than_the_rate_never_waits() -> None:
    """With a burst as large as each amount."""
    clock = Clock()
    pace = Pace(1000, burst_s=0.25, clock=clock)
    for _ in range(50):
        clock.now_s += 0.1
        assert pace.book_passed(100) == 0


def test_a_burst_is_there_from_the_beginning_and_once() -> None:
    """Then the rate alone counts, until a pause."""
    clock = Clock()
    pace = Pace(100, burst_s=0.25, clock=clock)
    assert [pace.book_passed(25), pace.book_passed(25)] == [0.0, 0.25]
    clock.now_s += 3600
    assert [pace.book_passed(25), pace.book_passed(25)] == [0.0, pytest.approx(0.25)]


def test_threads_share_a_rate_and_none_gets_the_time_of_another() -> None:
    """Whatever order they come in, their waits are those of one behind the other."""
    pace, start = Pace(10.0, clock=Clock()), threading.Barrier(4)
    waits: list[float] = []

    def work() -> None:
        start.wait()
        waits.extend(pace.book(1) for _ in range(250))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == pytest.approx([number / 10 for number in range(1000)])
