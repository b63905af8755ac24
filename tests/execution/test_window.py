"""The sliding window of tasks under way."""

from __future__ import annotations

import pytest

from pipelines.execution.window import window_size

GIB = 1 << 30


@pytest.mark.parametrize(
    ("cpus", "memory_bytes", "task_memory_bytes", "expected"),
    [
        (2, 0, GIB, 4),
        (2, 100 * GIB, GIB, 4),
        (64, 10 * GIB, GIB, 14),
        (0.5, 100 * GIB, GIB, 1),
        (8, GIB, 2 * GIB, 1),
        (8, GIB, 0, 16),
    ],
)
def test_the_window_is_two_tasks_a_core_but_no_more_than_memory_holds(
    cpus: float, memory_bytes: float, task_memory_bytes: int, expected: int
) -> None:
    """A window never exceeds two tasks a core, nor the tasks that fit into the memory share, and is never empty."""
    actual = window_size(cpus, memory_bytes, task_memory_bytes)

    assert expected == actual
