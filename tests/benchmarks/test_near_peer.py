"""The benchmark of the peer of nearcore's network beside the mirror, at its smallest."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.near_peer import ASKERS, measure


@pytest.mark.slow
def test_both_ways_are_measured(tmp_path: Path) -> None:
    """Every asker gets its part, and each figure is one."""
    floor_mb_per_s, figures = measure(2, 1, 2, tmp_path)
    assert floor_mb_per_s > 0 and figures[0].times_mirror == 1.0 and len(figures) == 2
    assert all(figure.parts_per_s > 0 and figure.mb_per_s > 0 and set(figure.wait_s) == set(ASKERS) for figure in figures)
    assert all(0 < median <= longest for figure in figures for median, longest in figure.wait_s.values())
