"""After a task its process has the memory that it had before: nothing that the task freed is kept for the next one."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from pipelines.execution.executor import TaskNeeds
from pipelines.execution.on_ray import RayExecutor
from pipelines.execution.released_memory import release_memory, run_and_release
from pipelines.kernel import native
from tests.support.memory_tasks import FREED_BYTES, FreedMemoryTask, MemoryUse, anonymous_bytes, is_measurable
from tests.support.ray_cluster import RAY_CPUS, ray_of_two_cores

__all__ = ["ray_of_two_cores"]

pytestmark = pytest.mark.skipif(not is_measurable(), reason="this system does not tell anonymous memory, or its C library gives none back")

LEFT_BYTES_MAX = FREED_BYTES // 4
"""What may come to stay while tasks run: each allocator alone kept more than that."""

KERNEL = "native" if native.is_available() else "reference"


class _WrongData(Exception):
    """What a task of a test fails with."""


class _FailingTask(FreedMemoryTask):
    def run(self) -> MemoryUse:
        super().run()
        raise _WrongData


def _bytes_before_each() -> list[int]:
    """Run tasks one after another; return the memory before each, and after the last."""
    task = FreedMemoryTask(KERNEL)
    return [*(run_and_release(task).bytes_before for _ in range(4)), anonymous_bytes()]


def _bytes_around_failure() -> tuple[int, int]:
    before = run_and_release(FreedMemoryTask(KERNEL)).bytes_before
    with pytest.raises(_WrongData):
        run_and_release(_FailingTask(KERNEL))
    return before, anonymous_bytes()


def _freed_by_the_kernel() -> tuple[int, int, int, int]:
    """Return what the kernel gives back, asked twice, and the memory around it."""
    FreedMemoryTask("native").run()
    release_memory()
    FreedMemoryTask("native").run()
    before = anonymous_bytes()
    given_back, again = native.give_back_memory(), native.give_back_memory()
    return given_back, again, before, anonymous_bytes()


def _in_new_process(work):  # type: ignore[no-untyped-def]
    # No other test's memory, and no other test's threads.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work).result()


def test_tasks_find_no_more_memory_taken_than_the_first_did() -> None:
    """Each begins where the one before began, and so the process ends."""
    first, *later = _in_new_process(_bytes_before_each)
    assert max(later) - first < LEFT_BYTES_MAX


def test_a_task_alone_leaves_what_it_freed_with_the_allocators() -> None:
    """Else the other tests would show nothing."""
    before, after = _in_new_process(_bytes_of_task_alone)
    assert after - before > LEFT_BYTES_MAX


def _bytes_of_task_alone() -> tuple[int, int]:
    before = FreedMemoryTask(KERNEL).run().bytes_before
    return before, anonymous_bytes()


def test_a_task_that_fails_leaves_no_memory_either() -> None:
    """Its worker goes on with other tasks."""
    before, after = _in_new_process(_bytes_around_failure)
    assert after - before < LEFT_BYTES_MAX


@pytest.mark.skipif(not native.is_available(), reason="the native kernel's wheel is not installed")
def test_the_native_kernel_gives_back_all_that_it_keeps() -> None:
    """Once: asked again it has nothing."""
    given_back, again, before, after = _in_new_process(_freed_by_the_kernel)
    assert given_back >= FREED_BYTES and again == 0
    assert before - after > FREED_BYTES // 2


def test_a_worker_of_ray_keeps_no_memory_between_tasks(ray_of_two_cores: RayExecutor) -> None:
    """Some worker runs several tasks, and none finds more taken than before its first."""
    tasks = [FreedMemoryTask(KERNEL)] * (4 * RAY_CPUS)
    uses = sorted((use for _, use in ray_of_two_cores.run(tasks, TaskNeeds(memory_bytes=1 << 20))), key=lambda use: use.began_s)
    before: dict[int, list[int]] = defaultdict(list)
    for use in uses:
        before[use.pid].append(use.bytes_before)
    assert max(map(len, before.values())) > 1
    for first, *later in before.values():
        assert max(later, default=first) - first < LEFT_BYTES_MAX
