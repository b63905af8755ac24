"""After a stage a process has the memory that it had before: nothing that its tasks freed is kept for the next stage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import pytest

from pipelines.execution.executor import TaskNeeds
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.on_ray import RayExecutor
from pipelines.execution.released_memory import TaskOfStage
from pipelines.kernel import native
from tests.support.memory_tasks import FREED_BYTES, FreedMemoryTask, MemoryUse, anonymous_bytes, is_measurable
from tests.support.ray_cluster import RAY_CPUS, ray_of_two_cores

__all__ = ["ray_of_two_cores"]

pytestmark = pytest.mark.skipif(not is_measurable(), reason="this system does not tell anonymous memory, or its C library gives none back")

LEFT_BYTES_MAX = FREED_BYTES // 3
"""What may accumulate while tasks run: each allocator alone kept more than that."""

NEEDS = TaskNeeds(memory_bytes=1 << 20)

STAGES_MAX = 20
"""How many stages are run until a worker has tasks of two."""

KERNEL = "native" if native.is_available() else "reference"


class _WrongData(Exception):
    """What a task of a test fails with."""


class _FailingTask(FreedMemoryTask):
    def run(self) -> MemoryUse:
        super().run()
        raise _WrongData


def _bytes_before_each() -> list[int]:
    """Run tasks of one stage after another; return the memory before each, and after the last has released its own."""
    tasks = [TaskOfStage(FreedMemoryTask(KERNEL), stage, releases=stage == 3) for stage in range(4)]
    return [*(task.run().bytes_before for task in tasks), anonymous_bytes()]


def _bytes_in_one_stage() -> tuple[int, int]:
    """Run two tasks of one stage; return the memory before each."""
    first, second = (TaskOfStage(FreedMemoryTask(KERNEL), 0, releases=False).run().bytes_before for _ in range(2))
    return first, second


def _bytes_around_failure() -> tuple[int, int]:
    before = TaskOfStage(FreedMemoryTask(KERNEL), 0, releases=True).run().bytes_before
    with pytest.raises(_WrongData):
        TaskOfStage(_FailingTask(KERNEL), 0, releases=True).run()
    return before, anonymous_bytes()


def _bytes_around_stage() -> tuple[int, int]:
    first, *_ = (use.bytes_before for _, use in InProcessExecutor().run([FreedMemoryTask(KERNEL)] * 3, NEEDS))
    return first, anonymous_bytes()


Found = TypeVar("Found")


def _in_new_process(work: Callable[[], Found]) -> Found:
    # No other test's memory, and no other test's threads.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work).result()


def test_a_stage_finds_no_more_memory_taken_than_the_first_did() -> None:
    """Each begins where the one before began, and so the process ends."""
    first, *later = _in_new_process(_bytes_before_each)
    assert max(later) - first < LEFT_BYTES_MAX


@pytest.mark.slow
def test_a_stages_next_task_finds_what_the_one_before_freed() -> None:
    """It takes the same again, and to get it again from the system costs time; and else the other tests would show nothing."""
    first, second = _in_new_process(_bytes_in_one_stage)
    assert second - first > LEFT_BYTES_MAX


def test_a_task_that_fails_leaves_no_memory_either() -> None:
    """Its worker may be idle then as well."""
    before, after = _in_new_process(_bytes_around_failure)
    assert after - before < LEFT_BYTES_MAX


def test_a_stage_in_this_process_leaves_no_memory() -> None:
    """Where the driver runs the tasks itself."""
    before, after = _in_new_process(_bytes_around_stage)
    assert after - before < LEFT_BYTES_MAX


def test_a_worker_of_ray_begins_each_stage_without_the_memory_of_the_one_before(ray_of_two_cores: RayExecutor) -> None:
    """Before its first task of a stage it has no more than before its first of all."""
    before: dict[int, list[int]] = defaultdict(list)
    for _ in range(STAGES_MAX):
        uses = [use for _, use in ray_of_two_cores.run([FreedMemoryTask(KERNEL)] * (3 * RAY_CPUS), NEEDS)]
        for pid in {use.pid for use in uses}:
            before[pid].append(min((use for use in uses if use.pid == pid), key=lambda use: use.began_s).bytes_before)
        # Nearly always the second stage already has a worker of the first.
        if max(map(len, before.values())) > 1:
            break
    first, second = next(sizes[:2] for sizes in before.values() if len(sizes) > 1)
    assert second - first < LEFT_BYTES_MAX
