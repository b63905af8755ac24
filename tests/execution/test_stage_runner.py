"""The check that may end a run while its stages work, and when it is called."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pipelines.execution.executor import TaskNeeds
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.stage_runner import Amount, StageRunner
from tests.support.whole_productions import Told


@dataclass
class Count:
    """A task that counts the times it ran."""

    runs: list[int] = field(default_factory=list)

    def run(self) -> int:
        """Count one more."""
        self.runs.append(len(self.runs))
        return self.runs[-1]


class EndedError(Exception):
    """What ends a run in these tests."""


@dataclass
class EndAfter:
    """Lets a run go on so many times, then ends it."""

    times: int

    def __call__(self) -> None:
        """Count down."""
        if self.times == 0:
            raise EndedError
        self.times -= 1


@pytest.mark.parametrize(("times", "tasks_run"), [(0, 0), (1, 1), (2, 2), (3, 3)])
def test_a_run_is_asked_before_a_stage_and_after_each_result(times: int, tasks_run: int) -> None:
    """The error passes as it is, no further task begins, and what was done is reported."""
    task, told = Count(), Told()
    runner = StageRunner(InProcessExecutor(), told, EndAfter(times))
    with pytest.raises(EndedError):
        runner.run("build", "s0.v1", [task] * 3, TaskNeeds(0), lambda _: Amount())
    assert len(task.runs) == tasks_run
    assert [step.done for step in told.stages] == list(range(tasks_run + 1 if times else 0))


def test_a_run_that_is_not_stopped_ends_by_itself() -> None:
    """Its results are in the tasks' order."""
    runner = StageRunner(InProcessExecutor(), Told())
    assert runner.run("build", "s0.v1", [Count()] * 3, TaskNeeds(0), lambda _: Amount()) == [0, 1, 2]
