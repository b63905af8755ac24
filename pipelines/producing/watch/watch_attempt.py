"""The progress of one attempt at an epoch: shown, measured, and the place where the attempt is ended. It decides nothing itself."""

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
    """One attempt's progress: shown, measured, and ended where the watcher says so."""

    shown: Progress
    metrics: WatchMetrics
    epoch: WatchedEpoch
    is_over: Callable[[WatchedEpoch], bool]
    now: Callable[[], float]
    _published: dict[str, tuple[int, int]] = field(default_factory=dict)

    def stage(self, progress: StageProgress) -> None:
        """Pass a step on.

        Raises:
            AttemptStopped: the attempt ends here.
        """
        if progress.stage == "publish":
            parts, size = self._published.get(progress.shard, (0, 0))
            self._published[progress.shard] = (progress.parts, progress.size)
            self.metrics.parts(progress.parts - parts, progress.size - size, self.now() - self.epoch.first_seen)
        self.shown.stage(progress)
        if self.is_over(self.epoch):
            raise AttemptStopped

    def note(self, message: str) -> None:
        """Pass a line on."""
        self.shown.note(message)
