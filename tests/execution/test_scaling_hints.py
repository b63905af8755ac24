"""The requests that an autoscaler gets."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.execution.executor import TaskNeeds
from pipelines.execution.scaling_hints import HINT_INTERVAL_S, HINTED_TASKS_MAX, Bundles, ScalingHints

NEEDS = TaskNeeds(memory_bytes=100)


@dataclass(slots=True)
class Autoscaler:
    """Takes requests, and has a clock."""

    requests: list[Bundles] = field(default_factory=list)
    now_s: float = 1000.0

    def hints(self) -> ScalingHints:
        """Return hints that come here."""
        return ScalingHints(self.requests.append, lambda: self.now_s)

    @property
    def sizes(self) -> list[int]:
        """How many bundles each request had."""
        return [len(request) for request in self.requests]


def test_a_stage_asks_for_a_core_and_memory_for_each_task() -> None:
    """As Ray is asked for each of them."""
    autoscaler = Autoscaler()
    autoscaler.hints().ask("build", NEEDS, 3)
    assert autoscaler.requests == [[{"CPU": 1.0, "memory": 100.0}] * 3]


def test_a_stage_asks_for_no_more_than_can_be_had() -> None:
    """However many tasks are left."""
    autoscaler = Autoscaler()
    autoscaler.hints().ask("build", NEEDS, 10 * HINTED_TASKS_MAX)
    assert autoscaler.sizes == [HINTED_TASKS_MAX]


def test_the_request_shrinks_with_the_tasks_that_are_left() -> None:
    """But is not renewed with every task."""
    autoscaler = Autoscaler()
    hints = autoscaler.hints()
    for left in (100, 99, 98):
        hints.ask("build", NEEDS, left)
    assert autoscaler.sizes == [100]
    autoscaler.now_s += HINT_INTERVAL_S
    hints.ask("build", NEEDS, 90)
    assert autoscaler.sizes == [100, 90]


def test_the_same_request_is_not_made_twice() -> None:
    """However late."""
    autoscaler = Autoscaler()
    hints = autoscaler.hints()
    hints.ask("build", NEEDS, 5)
    autoscaler.now_s += HINT_INTERVAL_S
    hints.ask("build", NEEDS, 5)
    assert autoscaler.sizes == [5]


def test_the_end_of_a_stage_withdraws_its_request() -> None:
    """At once, and only its own."""
    autoscaler = Autoscaler()
    hints = autoscaler.hints()
    hints.ask("one", NEEDS, 5)
    hints.ask("other", NEEDS, 2)
    hints.withdraw("one")
    hints.withdraw("other")
    assert autoscaler.sizes == [5, 7, 2, 0]


def test_nothing_is_withdrawn_that_was_never_asked() -> None:
    """A stage of unknown length, or at the node's disk, says nothing."""
    autoscaler = Autoscaler()
    hints = autoscaler.hints()
    hints.ask("export", TaskNeeds(100, node_disk=True), 50)
    hints.ask("other", NEEDS, 0)
    hints.withdraw("export")
    hints.withdraw("other")
    hints.withdraw("third")
    assert autoscaler.requests == []
