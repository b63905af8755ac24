"""Watches a node and publishes each of its epochs once, as soon as its state snapshot is complete.

One thread looks at the node at every poll (`node_poller`); the caller's thread works on epochs, one at a time. What is remembered between two runs is in
the store (manifests, claims) and in the work folder (when an epoch was first seen, which were given up): the process may be killed at any
moment. What to do next is decided in `pipelines.producing.watch.watch_decisions`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pipelines.bucket.epoch_claim import HeldClaim
from pipelines.execution.progress import Progress
from pipelines.producing.watch.node_poller import NodePoller
from pipelines.producing.watch.watch_attempt import AttemptProgress, AttemptStopped
from pipelines.producing.watch.watch_decisions import (
    Abandon,
    EpochState,
    Produce,
    WatchedEpoch,
    WatchLedger,
    add_epochs,
    after_failure,
    first_floor,
    is_due_to_stop,
    next_step,
    unknown_epochs,
)
from pipelines.producing.watch.watch_events import OnEvent, WatchEvents, facts_of, one_line
from pipelines.producing.watch.watch_memory import WatchMemory
from pipelines.producing.watch.watch_metrics import WatchMetrics
from pipelines.producing.watch.watch_poll import NodeView
from pipelines.producing.watch.watch_production import EpochWork
from pipelines.stores.store import Store
from schemas.errors import ClaimedError, IntegrityError, StatecastError

NOTE_RETRY_S: Final = 1.0
"""Longest pause before new epochs are recorded again, after that failed."""

CLAIMED_RETRY_S_MAX: Final = 30.0
"""Longest pause between two looks at another producer's claim."""


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How a node is watched."""

    poll_s: float
    deadline_s: float
    """From an epoch's being seen to its being published."""
    claim_ttl_s: float


@dataclass(slots=True)
class Watcher:
    """A watcher: everything that it needs, and what it has seen."""

    work: EpochWork
    memory_store: Store
    """Where the ledger is kept."""
    settings: WatchSettings
    metrics: WatchMetrics
    on_event: OnEvent
    open_progress: Callable[[WatchedEpoch], Progress]
    """Called for each attempt at an epoch."""
    stop: threading.Event
    """Set from elsewhere to end the watcher; `wake` afterwards."""
    now: Callable[[], float] = time.time
    _poller: NodePoller = field(init=False)
    _events: WatchEvents = field(init=False)
    _memory: WatchMemory = field(init=False)
    _problem: str = ""
    """Why epochs could not be recorded, or the store be read."""
    _note_again_s: float = 0.0
    """Monotonic time before which epochs are not recorded again, after that failed."""

    def __post_init__(self) -> None:
        self._poller = NodePoller(self.work, self.settings.poll_s, self.metrics, self.on_event, self.stop)
        self._events = WatchEvents(self.on_event)
        self._memory = WatchMemory(self.memory_store, self.metrics, self._events)

    def run(self) -> None:
        """Watch until told to stop.

        Raises:
            StoreError: the work folder can't be read.
            BaseException: whatever else ended the poll loop: without it nothing new would ever be seen.
        """
        self._memory.recall()
        with self._poller.polling():
            while not self.stop.is_set():
                self._work_once()

    def wake(self) -> None:
        """End whatever the watcher waits for."""
        self._poller.wake()

    @property
    def stuck(self) -> bool:
        """Whether the poll loop stands still."""
        return self._poller.stuck

    @property
    def problem(self) -> str:
        """Why the watcher could not publish an epoch if there were one now; empty where it could."""
        return self._poller.problem or self._problem

    def _work_once(self) -> None:
        view = self._poller.view
        self._take_note(view)
        ledger = self._memory.ledger
        step = None if ledger is None else next_step(ledger, view, self._poller.makes_snapshots, self.now(), self.settings.deadline_s)
        if isinstance(step, Produce):
            self._attempt(step.epoch)
        elif isinstance(step, Abandon):
            self._abandon(step.epoch)
        else:
            until = self.settings.poll_s if step is None or step.until is None else step.until - self.now()
            self._poller.wait_for_news(view, max(0.01, min(until, self.settings.poll_s)))

    def _take_note(self, view: NodeView | None) -> None:
        """Enter the epochs of a view into the ledger."""
        if view is None or not view.epochs:
            return
        self.metrics.seen(view.epochs[-1].epoch_height)
        ledger = self._memory.ledger
        if ledger is not None and not unknown_epochs(ledger, view.epochs):
            return
        # Not at each step of a production: it must not wait for a node or a store that is away.
        if time.monotonic() < self._note_again_s:
            return
        try:
            if ledger is None:
                latest = self.work.latest_published()
                if latest is not None:
                    self.metrics.published(latest, by_us=False)
                ledger = WatchLedger(first_floor(view.epochs, latest))
            found = [
                WatchedEpoch(epoch.epoch_height, epoch.epoch_id, round(self.now(), 3), self.work.snapshot_block(epoch.sync_hash))
                for epoch in unknown_epochs(ledger, view.epochs)
                if epoch.sync_hash is not None
            ]
            self._memory.remember(add_epochs(ledger, found))
        except StatecastError as error:
            self._problem = error.problem
            if self._events.tell_once(
                "note", error.problem, "failed", f"new epochs can't be taken note of: {one_line(error)}", error.to_json()
            ):
                self.metrics.failed(error.kind)
            self._note_again_s = time.monotonic() + min(self.settings.poll_s, NOTE_RETRY_S)
            return
        self._problem = ""
        for epoch in found:
            self._events.tell("epoch_seen", f"the node has the sync hash of epoch {epoch.epoch_height}", epoch)

    def _attempt(self, epoch: WatchedEpoch) -> None:
        self.metrics.begin_epoch()
        try:
            if self._is_published(epoch):
                return
            self.metrics.producing = True
            progress = AttemptProgress(self.open_progress(epoch), self.metrics, epoch, self.now)
            result = self.work.produce(epoch.epoch_id, progress, lambda: self._keep_going(epoch), self._on_claim)
        except AttemptStopped:
            # A passed deadline is what the next step finds.
            self._events.tell("attempt_stopped", f"epoch {epoch.epoch_height} is left as it is; what is done of it stays", epoch)
            return
        except ClaimedError as error:
            pause_s = min(CLAIMED_RETRY_S_MAX, self.settings.poll_s, self.settings.claim_ttl_s / 2)
            self._memory.change(replace(epoch, retry_at=self.now() + pause_s))
            self._events.tell_once(
                "claim", error.problem.partition(" until ")[0], "waiting_for_other_producer", one_line(error), facts_of(epoch)
            )
            return
        except StatecastError as error:
            self._fail(epoch, error)
            return
        finally:
            self.metrics.producing = False
        facts = {
            "epoch_url": result.epoch_url,
            "manifest_revision": result.manifest_revision,
            "parts": result.part_count,
            "bytes": result.stored_size,
            "seconds": round(result.seconds, 3),
            "snapshot_needed_s": round(result.exported_s, 3),
            "seconds_since_seen": round(self.now() - epoch.first_seen, 3),
        }
        message = f"epoch {epoch.epoch_height} is published, manifest revision {result.manifest_revision}, {result.part_count} parts"
        self._settle(epoch, by_us=True, message=message, facts=facts)

    def _is_published(self, epoch: WatchedEpoch) -> bool:
        """Settle an epoch that is published already; tell whether it is."""
        url = self.work.find_published(epoch.epoch_id)
        if url is not None:
            message = f"epoch {epoch.epoch_height} is published already at {url}"
            self._settle(epoch, by_us=False, message=message, facts={"epoch_url": url})
        return url is not None

    def _settle(self, epoch: WatchedEpoch, *, by_us: bool, message: str, facts: Mapping[str, Any]) -> None:
        self._events.forget("claim")
        self._problem = ""
        self._memory.change(replace(epoch, state=EpochState.PUBLISHED))
        self.metrics.published(epoch.epoch_height, by_us=by_us)
        self._events.tell("epoch_published" if by_us else "epoch_found_published", message, epoch, facts)
        try:
            if not by_us:
                self.work.discard(epoch.epoch_height, epoch.epoch_id)
            collected = self.work.collect()
        except StatecastError as error:
            self.metrics.failed(error.kind)
            self._events.tell(
                "failed", f"the epoch is published, but cleaning up failed: {one_line(error)}", epoch, {"error": error.to_json()}
            )
            return
        if collected:
            self._events.tell("epochs_collected", f"{collected} old epochs are deleted", epoch, {"epochs": collected})

    def _fail(self, epoch: WatchedEpoch, error: StatecastError) -> None:
        self._problem = error.problem if error.exit_code == 30 else self._problem
        changed = after_failure(epoch, error, self.now())
        self._memory.change(changed)
        self.metrics.failed(error.kind)
        again_s = max(0.0, changed.retry_at - self.now())
        message = f"epoch {epoch.epoch_height} failed, next attempt in {again_s:.0f} s: {one_line(error)}"
        self._events.tell(
            "epoch_failed", message, epoch, {"error": error.to_json(), "failures": changed.failures, "retry_in_s": round(again_s, 3)}
        )
        if isinstance(error, IntegrityError):
            self._discard(epoch)

    def _abandon(self, epoch: WatchedEpoch) -> None:
        # Another producer may have finished, or this one was killed after its manifest. A watcher that can't read the store can't wait for it.
        with suppress(StatecastError):
            if self._is_published(epoch):
                return
        self._memory.change(replace(epoch, state=EpochState.ABANDONED))
        with_s = self.settings.deadline_s
        message = f"epoch {epoch.epoch_height} is given up: its deadline of {with_s:.0f} s has passed; statecast produce --epoch still can"
        self.metrics.epochs_abandoned += 1
        self._events.tell("epoch_abandoned", message, epoch, {"deadline_s": with_s, "failures": epoch.failures})
        self._discard(epoch)

    def _discard(self, epoch: WatchedEpoch) -> None:
        try:
            self.work.discard(epoch.epoch_height, epoch.epoch_id)
        except StatecastError as error:
            self._events.tell("failed", f"the work folder can't be cleaned: {one_line(error)}", epoch, {"error": error.to_json()})

    def _keep_going(self, epoch: WatchedEpoch) -> None:
        """Record what is new at the node while an attempt runs, and end the attempt where that is due.

        Raises:
            AttemptStopped: the watcher is being stopped, or the epoch's deadline has passed and a newer epoch waits.
        """
        self._take_note(self._poller.view)
        if self.stop.is_set() or is_due_to_stop(self._memory.known(), epoch, self.now(), self.settings.deadline_s):
            raise AttemptStopped

    def _on_claim(self, claim: HeldClaim | None) -> None:
        self.metrics.claim_held = claim is not None
