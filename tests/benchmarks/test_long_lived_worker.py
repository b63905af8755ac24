"""A worker that lives through a whole production: it never takes more than the stages say, and keeps nothing of them."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from benchmarks.long_lived_worker import WHOLE_RUN, StageMemory, measure_worker, print_tables
from benchmarks.synthetic_state import synthetic_state
from pipelines.kernel.native import is_available

pytestmark = [
    pytest.mark.skipif(not is_available(), reason="the benchmark measures the native kernel, whose wheel is not installed"),
    pytest.mark.skipif(
        sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
        reason="this system does not tell anonymous memory, or its C library gives none back",
    ),
]

RECORDS = 250_000
"""Enough for a dataset file of full size and parts of nearly full size, which are what bounds a task."""

LOADED_BYTES_MAX = 70 << 20
"""Libraries and caches that come with the first task of a stage and stay."""


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StageMemory]:
    """Return the stages' figures."""
    folder = tmp_path_factory.mktemp("worker")
    state = synthetic_state(folder, RECORDS)
    return {figure.stage: figure for figure in measure_worker(state, folder / "run", released=True)}


def test_no_stage_takes_more_than_it_says(figures: dict[str, StageMemory]) -> None:
    """What Ray and the window are told is at least what a process was seen to take, all of its memory counted."""
    assert set(figures) >= {"export", "structure", "build", "publish"}
    taken = {stage: (figure.peak_bytes, figure.declared_bytes) for stage, figure in figures.items() if stage != WHOLE_RUN}
    assert {stage: pair for stage, pair in taken.items() if pair[0] > pair[1]} == {}


def test_no_stage_leaves_what_it_took(figures: dict[str, StageMemory]) -> None:
    """Build and publish take more than what may stay, and after each stage that is gone."""
    assert min(figures[stage].anonymous_bytes for stage in ("build", "publish")) > LOADED_BYTES_MAX
    assert max(figure.left_bytes for figure in figures.values()) < LOADED_BYTES_MAX


def test_the_tables_name_every_stage(figures: dict[str, StageMemory], capsys: pytest.CaptureFixture[str]) -> None:
    """Each in a row of its own."""
    print_tables(list(figures.values()))
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row for row in rows if row != "stage"] == [*figures] and WHOLE_RUN in rows


def test_figures_of_a_state_leave_nothing_behind(tmp_path: Path) -> None:
    """But the state."""
    state = synthetic_state(tmp_path, 2_000)
    measure_worker(state, tmp_path / "run", released=False)
    assert [path.name for path in tmp_path.iterdir()] == [state.home.name]
