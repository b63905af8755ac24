"""What every executor does: all results, in bounded numbers, the first error out, in this process and on a real Ray."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import pytest
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.execution.executor import TASK_RETRIES_MAX, Executor, Task, TaskNeeds
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.in_threads import ThreadExecutor
from pipelines.execution.on_ray import RayExecutor
from pipelines.execution.small_work_first import SmallWorkFirst
from pipelines.execution.window import TASKS_PER_SLOT
from schemas.errors import PartialResultError, StateRootMismatchError
from tests.execution.ray_tasks import ArrayTask, DyingTask, FailingTask, PidTask, SquareTask, WitnessTask
from tests.support.ray_cluster import RAY_CPUS, ray_of_two_cores

__all__ = ["ray_of_two_cores"]

R = TypeVar("R")

ENDLESS = 1_000_000
"""More tasks than end before an error comes, however slow the machine."""

CPUS = RAY_CPUS
NEEDS = TaskNeeds(memory_bytes=1 << 20)


@pytest.fixture
def on_ray(ray_of_two_cores: RayExecutor) -> RayExecutor:
    """Tasks on Ray."""
    return ray_of_two_cores


@pytest.fixture(params=["in process", "in threads", "on Ray", "small work first", "on Ray from the first task"])
def executor(request: pytest.FixtureRequest) -> Executor:
    """Each executor."""
    match request.param:
        case "in process":
            return InProcessExecutor()
        case "in threads":
            return ThreadExecutor(2)
        case "on Ray":
            return cast("RayExecutor", request.getfixturevalue("on_ray"))
        case "small work first":
            return SmallWorkFirst(_never)
        case _:
            return SmallWorkFirst(partial(request.getfixturevalue, "on_ray"), small_work_s=0)


def _never() -> Executor:
    raise AssertionError("the work is small")


def test_every_result_comes_with_its_index(executor: Executor) -> None:
    """In any order, each once."""
    results = dict(executor.run((SquareTask(number) for number in range(20)), NEEDS))
    assert results == {number: number * number for number in range(20)}


def test_no_tasks_no_results(executor: Executor) -> None:
    """An empty stage ends at once."""
    assert list(executor.run([], NEEDS)) == []


def test_tasks_are_taken_only_as_there_is_room(executor: Executor) -> None:
    """The iterable is never read further ahead than the window."""
    taken: list[int] = []

    def tasks() -> Iterator[SquareTask]:
        for number in range(30):
            taken.append(number)
            yield SquareTask(number)

    ended = 0
    for _ in executor.run(tasks(), NEEDS):
        ended += 1
        assert len(taken) <= ended + CPUS * TASKS_PER_SLOT
    assert ended == 30


def test_a_tasks_error_comes_out_as_itself(executor: Executor, tmp_path: Path) -> None:
    """Its class, its fields, its exit code; and wrong data is never tried again."""
    with pytest.raises(StateRootMismatchError, match="another root") as caught:
        list(executor.run([FailingTask(str(tmp_path), "integrity")], NEEDS))
    assert (caught.value.expected, caught.value.actual, caught.value.exit_code) == ("a", "b", 20)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_fault_of_our_own_comes_out_as_itself(executor: Executor, tmp_path: Path) -> None:
    """Not wrapped, in one line, and not tried again."""
    with pytest.raises(ZeroDivisionError) as caught:
        list(executor.run([FailingTask(str(tmp_path), "bug")], NEEDS))
    assert type(caught.value) is ZeroDivisionError
    assert str(caught.value) == "a fault of our own"
    assert len(list(tmp_path.iterdir())) == 1


def test_after_an_error_no_task_begins(executor: Executor, tmp_path: Path) -> None:
    """What was not taken by then is never taken."""
    taken: list[int] = []

    def tasks() -> Iterator[FailingTask | SquareTask]:
        yield FailingTask(str(tmp_path), "bug")
        for number in range(ENDLESS):
            taken.append(number)
            yield SquareTask(number)

    with pytest.raises(ZeroDivisionError):
        list(executor.run(tasks(), NEEDS))
    assert len(taken) < ENDLESS


@pytest.mark.parametrize("kind", [list, iter])
def test_what_is_more_than_small_runs_elsewhere_and_stays_there(kind: Callable[[list[PidTask]], Iterable[PidTask]]) -> None:
    """The task that takes the last of the time is the last here; nothing is run twice, and the other executor is closed with this one."""
    opened: list[_Elsewhere] = []

    def elsewhere() -> _Elsewhere:
        opened.append(_Elsewhere())
        return opened[-1]

    executor = SmallWorkFirst(elsewhere, small_work_s=1e-9)
    assert [index for index, _ in executor.run(kind([PidTask()] * 5), NEEDS)] == [0, 1, 2, 3, 4]
    assert [index for index, _ in executor.run(kind([PidTask()] * 2), NEEDS)] == [0, 1]
    executor.close()
    assert [(one.ran, one.closed) for one in opened] == [([4, 2], True)]


class _Elsewhere:
    """Counts what it runs."""

    description = "elsewhere"

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.closed = False

    def run(self, tasks: Iterable[Task[R]], needs: TaskNeeds) -> Iterator[tuple[int, R]]:
        waiting = list(tasks)
        self.ran.append(len(waiting))
        return InProcessExecutor().run(waiting, needs)

    def close(self) -> None:
        self.closed = True


def test_ray_runs_tasks_elsewhere(on_ray: RayExecutor) -> None:
    """In workers, not in the driver."""
    pids = {pid for _, pid in on_ray.run([PidTask()] * 8, NEEDS)}
    assert os.getpid() not in pids


def test_no_worker_imports_pandas(on_ray: RayExecutor) -> None:
    """pyarrow would, at the first Python value that it is given."""
    assert [imported for _, imported in on_ray.run([ArrayTask()] * RAY_CPUS, NEEDS)] == [False] * RAY_CPUS


def test_no_more_tasks_run_than_there_are_cores(on_ray: RayExecutor, tmp_path: Path) -> None:
    """Each task takes a core."""
    running = [count for _, count in on_ray.run([WitnessTask(str(tmp_path), number) for number in range(12)], NEEDS)]
    assert max(running) <= CPUS


def test_a_transient_fault_is_tried_again(executor: Executor, tmp_path: Path) -> None:
    """The store has a transient fault; the third attempt goes right."""
    assert list(executor.run([FailingTask(str(tmp_path), "transient")], NEEDS)) == [(0, 7)]


def test_a_worker_that_dies_is_replaced(on_ray: RayExecutor, tmp_path: Path) -> None:
    """Its task runs again elsewhere; all results come."""
    tasks = [DyingTask(str(tmp_path), number, deaths=1 if number == 1 else 0) for number in range(4)]
    assert dict(on_ray.run(tasks, NEEDS)) == {number: number for number in range(4)}


@pytest.mark.slow
def test_a_task_that_always_kills_its_worker_ends_the_run(on_ray: RayExecutor, tmp_path: Path) -> None:
    """After the named number of retries, with an error that says that nothing is lost."""
    with pytest.raises(PartialResultError, match="workers died") as caught:
        list(on_ray.run([DyingTask(str(tmp_path), 0, deaths=100)], NEEDS))
    assert caught.value.exit_code == 3
    assert len(list(tmp_path.iterdir())) == TASK_RETRIES_MAX + 1


def test_the_executors_name_where_they_run(executor: Executor) -> None:
    """For people."""
    assert "this process" in executor.description


def test_ray_still_has_the_private_option_that_tasks_are_placed_with() -> None:
    """A machine that has no room passes a task on; Ray says that nowhere in public, so an upgrade must find its successor."""
    taken = inspect.signature(NodeAffinitySchedulingStrategy).parameters
    assert "_spill_on_unavailable" in taken, "pipelines/execution/on_ray.py places tasks with it"
