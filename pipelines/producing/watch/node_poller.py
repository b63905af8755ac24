"""Looks at a node at every poll, in a thread of its own, and keeps what it saw last."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from pipelines.producing.watch.watch_events import OnEvent, one_line
from pipelines.producing.watch.watch_metrics import WatchMetrics
from pipelines.producing.watch.watch_poll import NodeView
from pipelines.producing.watch.watch_production import EpochWork
from schemas.errors import StatecastError

STUCK_S: Final = 60.0
"""A poller that has stood still for so long, beside the time between two polls, is not healthy."""

NOT_LOOKED_YET: Final = "the node was not looked at yet"
"""What keeps a watcher from being ready in the beginning."""


@dataclass(slots=True)
class NodePoller:
    """What is seen of a node. All but `polling` may be called from several threads."""

    work: EpochWork
    poll_s: float
    metrics: WatchMetrics
    on_event: OnEvent
    stop: threading.Event
    """Set from elsewhere to end the polling; `wake` afterwards."""
    problem: str = NOT_LOOKED_YET
    """Why the node, or one of its epochs, can't be read; empty where it can."""
    makes_snapshots: bool = False
    """Whether a state snapshot was ever seen."""
    _view: NodeView | None = None
    _beat_s: float = field(default_factory=time.monotonic)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _failure: BaseException | None = None
    """The unexpected error that ended the polling."""

    @contextmanager
    def polling(self) -> Iterator[None]:
        """Poll for as long as the block runs, whose end sets `stop`.

        Raises:
            BaseException: what ended the polling early: without it nothing new would ever be seen. `stop` is set then.
        """
        thread = threading.Thread(target=self._poll_until_stopped, name="watch-poll", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.stop.set()
            self.wake()
            thread.join(self.poll_s)
        if self._failure is not None:
            raise self._failure

    @property
    def view(self) -> NodeView | None:
        """What was seen last; the same object until something else is."""
        with self._changed:
            return self._view

    @property
    def stuck(self) -> bool:
        """Whether the polling stands still."""
        return time.monotonic() - self._beat_s > STUCK_S + 2 * self.poll_s

    def wait_for_news(self, view: NodeView | None, seconds: float) -> None:
        """Wait until something else than this view is seen, until `wake`, or for so long."""
        with self._changed:
            if self._view is view and not self.stop.is_set():
                self._changed.wait(seconds)

    def wake(self) -> None:
        """End `wait_for_news`."""
        with self._changed:
            self._changed.notify_all()

    def _poll_until_stopped(self) -> None:
        try:
            while not self.stop.is_set():
                self._poll_once()
                self.stop.wait(self.poll_s)
        except BaseException as failure:
            # Nothing observes a thread's end: the caller's thread ends too, and says why.
            self._failure = failure
            self.stop.set()
            self.wake()

    def _poll_once(self) -> None:
        self._beat_s = time.monotonic()
        try:
            view = self.work.look()
        except StatecastError as error:
            self._note_failure("the node can't be read, and is asked again and again", error)
            return
        finally:
            self._beat_s = time.monotonic()
        if view.unreadable:
            self._note_failure("an epoch of the node can't be read; the others are published", view.unreadable[0].failure)
        elif self.problem:
            if self.problem != NOT_LOOKED_YET:
                self.on_event("poll_recovered", "the node can be read again", {})
            self.problem = ""
        self.metrics.polled_at = time.time()
        with self._changed:
            news = self._view != view
            self._view = view
            self.makes_snapshots |= view.has_snapshot_folder or view.complete_snapshot is not None
            if news:
                self._changed.notify_all()

    def _note_failure(self, what: str, error: StatecastError) -> None:
        # The node may be down, or be making its database again: an outage is reported once, even if its problem changes.
        if not self.problem or self.problem == NOT_LOOKED_YET:
            self.metrics.failed(error.kind)
            self.on_event("poll_failed", f"{what}: {one_line(error)}", {"error": error.to_json()})
        self.problem = error.problem
