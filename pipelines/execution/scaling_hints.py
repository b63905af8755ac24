"""Tells an autoscaler how much a run can use, so that machines come before tasks queue up and go when few are left. No Ray.

A cluster has one such request at a time: all stages of this process share one, and the last driver's counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pipelines.execution.executor import TaskNeeds

HINTED_TASKS_MAX = 1024
"""Most tasks that room is asked for at once."""

HINT_INTERVAL_S = 10.0
"""A request that only gets smaller is renewed no more often than this."""

Bundles = list[dict[str, float]]
"""One dict a task: resource to amount."""


def bundles_for(needs: TaskNeeds, tasks_left: int) -> Bundles:
    """Return the room that a stage can use.

    Nothing for tasks at the NEAR node's disk: no autoscaler makes another machine that sees it.
    """
    if needs.node_disk:
        return []
    bundle = {"CPU": 1.0, **({"memory": float(needs.memory_bytes)} if needs.memory_bytes else {})}
    return [dict(bundle) for _ in range(min(tasks_left, HINTED_TASKS_MAX))]


@dataclass(slots=True)
class ScalingHints:
    """The one request of this process, made of what its running stages ask for."""

    post: Callable[[Bundles], None]
    monotonic: Callable[[], float] = time.monotonic
    _asked: dict[object, Bundles] = field(default_factory=dict)
    _posted: int = 0
    _posted_at_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, stage: object, needs: TaskNeeds, tasks_left: int) -> None:
        """Ask for room for a stage's tasks, in place of what it asked for before."""
        with self._lock:
            self._asked[stage] = bundles_for(needs, tasks_left)
            wanted = sum(map(len, self._asked.values()))
            soon = self.monotonic() - self._posted_at_s < HINT_INTERVAL_S
            if wanted > self._posted or (wanted < self._posted and not soon):
                self._post()

    def withdraw(self, stage: object) -> None:
        """Ask for nothing more for a stage."""
        with self._lock:
            if self._asked.pop(stage, []):
                self._post()

    def _post(self) -> None:
        bundles = [bundle for asked in self._asked.values() for bundle in asked][:HINTED_TASKS_MAX]
        self.post(bundles)
        self._posted, self._posted_at_s = len(bundles), self.monotonic()
