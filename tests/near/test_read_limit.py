"""The limit on reading from a node's disk."""

from __future__ import annotations

import time

import pytest

from pipelines.near.node.read_limit import BURST_S, keep_read_limit, process_read_limit
from pipelines.stores.pace import Pace


def test_a_process_has_one_pace_a_limit_with_a_short_burst() -> None:
    """All sources of a process share the rate; what is read within the burst costs no wait, what is beyond is waited for."""
    limit = process_read_limit(1000)
    assert process_read_limit(1000) is limit
    assert process_read_limit(1001) is not limit
    assert limit.book_passed(1000 * BURST_S) == 0
    assert 0 < limit.book_passed(1000 * 3600) <= 3600


def test_reading_beyond_the_limit_sleeps_for_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """And never where there is no limit, or where it is kept anyway."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    keep_read_limit(None, 1 << 40)
    limit = Pace(1000, burst_s=BURST_S, clock=lambda: 0.0)
    keep_read_limit(limit, 250)
    assert slept == []
    keep_read_limit(limit, 500)
    assert slept == [0.5]
