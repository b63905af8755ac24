"""One attempt at an epoch: its progress, shown and measured, and what ends it early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipelines.execution.progress import Progress, StageProgress
from pipelines.producing.watch.watch_decisions import WatchedEpoch
from pipelines.producing.watch.watch_metrics import WatchMetrics


class AttemptStopped(Exception):
    """An attempt ends early: the watcher is being stopped, or the epoch's deadline has passed."""


@dataclass(slots=True)
class AttemptProgress:
    """One attempt's progress: shown and measured."""

    shown: Progress
    metrics: WatchMetrics
    epoch: WatchedEpoch
    now: Callable[[], float]
    _published: dict[str, tuple[int, int]] = field(default_factory=dict)

    def stage(self, progress: StageProgress) -> None:
        """Pass a step on."""
        if progress.stage == "publish":
            parts, size = self._published.get(progress.shard, (0, 0))
            self._published[progress.shard] = (progress.parts, progress.size)
            self.metrics.parts(progress.parts - parts, progress.size - size, self.now() - self.epoch.first_seen)
        self.shown.stage(progress)

    def note(self, message: str) -> None:
        """Pass a line on."""
        self.shown.note(message)
