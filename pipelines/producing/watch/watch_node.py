"""Watches a node and publishes each of its epochs once, as soon as its state snapshot is complete.

One thread looks at the node at every poll; the caller's thread works on epochs, one at a time. What is remembered between two runs is in
the store (manifests, claims) and in the work folder (when an epoch was first seen, which were given up): the process may be killed at any
moment. What to do next is decided in `pipelines.producing.watch.watch_decisions`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from pipelines.bucket.epoch_claim import HeldClaim
from pipelines.execution.progress import Progress
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
from pipelines.producing.watch.watch_metrics import WatchMetrics
from pipelines.producing.watch.watch_poll import NodeView
from pipelines.producing.watch.watch_production import EpochWork
from pipelines.stores.store import Store
from schemas.errors import ClaimedError, IntegrityError, ManifestError, ObjectNotFoundError, StatecastError, StoreError

LEDGER_NAME: Final = "watch.json"
"""The watcher's memory in the work folder."""

STUCK_S: Final = 60.0
"""A watcher whose poll loop has stood still for so long, beside the time between two polls, is not healthy."""

NOTE_RETRY_S: Final = 1.0
"""Longest pause before new epochs are taken note of again, after that failed."""

CLAIMED_RETRY_S_MAX: Final = 30.0
"""Longest pause between two looks at another producer's claim."""


NOT_LOOKED_YET: Final = "the node was not looked at yet"
"""What keeps a watcher from being ready in the beginning."""


class OnEvent(Protocol):
    """Told what happens, from two threads."""

    def __call__(self, kind: str, message: str, facts: Mapping[str, Any]) -> None:
        """Take note of an event: its kind, a sentence for people, and plain JSON values."""
        ...


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
    memory: Store
    """Where the ledger is kept."""
    settings: WatchSettings
    metrics: WatchMetrics
    on_event: OnEvent
    open_progress: Callable[[WatchedEpoch], Progress]
    """Called for each attempt at an epoch."""
    stop: threading.Event
    """Set from elsewhere to end the watcher; `wake` afterwards."""
    now: Callable[[], float] = time.time
    _ledger: WatchLedger | None = None
    _view: NodeView | None = None
    _makes_snapshots: bool = False
    _beat_s: float = field(default_factory=time.monotonic)
    _poll_problem: str = NOT_LOOKED_YET
    _problem: str = ""
    """Why epochs could not be taken note of, or the store be read."""
    _note_again_s: float = 0.0
    """Monotonic time before which epochs are not taken note of again, after that failed."""
    _claim: HeldClaim | None = None
    _told: dict[str, str] = field(default_factory=dict)
    """What was said last of each thing that is said only when it changes."""
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _poll_failure: BaseException | None = None
    """What nobody foresaw, and what ended the poll loop."""

    def run(self) -> None:
        """Watch until told to stop.

        Raises:
            StoreError: the work folder can't be read.
            BaseException: whatever else ended the poll loop: without it nothing new would ever be seen.
        """
        self._ledger = self._recalled()
        poller = threading.Thread(target=self._poll_until_stopped, name="watch-poll", daemon=True)
        poller.start()
        try:
            while not self.stop.is_set():
                self._work_once()
        finally:
            self.stop.set()
            self.wake()
            poller.join(self.settings.poll_s)
        if self._poll_failure is not None:
            raise self._poll_failure

    def wake(self) -> None:
        """End whatever the watcher waits for."""
        with self._changed:
            self._changed.notify_all()

    @property
    def stuck(self) -> bool:
        """Whether the poll loop stands still."""
        return time.monotonic() - self._beat_s > STUCK_S + 2 * self.settings.poll_s

    @property
    def problem(self) -> str:
        """Why the watcher could not publish an epoch if there were one now; empty where it could."""
        return self._poll_problem or self._problem

    def release_claim(self) -> None:
        """Give up the claim that is held, if one is: for an end that does not wait for the attempt under way."""
        if self._claim is not None:
            self._claim.release()

    def _poll_until_stopped(self) -> None:
        try:
            while not self.stop.is_set():
                self._poll_once()
                self.stop.wait(self.settings.poll_s)
        except BaseException as failure:
            # A thread's end is seen by nobody: the caller's thread ends too, and says why.
            self._poll_failure = failure
            self.stop.set()
            self.wake()

    def _poll_once(self) -> None:
        self._beat_s = time.monotonic()
        try:
            view = self.work.look()
        except StatecastError as error:
            self._note_poll_failure("the node can't be read, and is asked again and again", error)
            return
        finally:
            self._beat_s = time.monotonic()
        if view.unreadable:
            self._note_poll_failure("an epoch of the node can't be read; the others are published", view.unreadable[0].failure)
        elif self._poll_problem:
            if self._poll_problem != NOT_LOOKED_YET:
                self.on_event("poll_recovered", "the node can be read again", {})
            self._poll_problem = ""
        self.metrics.polled_at = time.time()
        with self._changed:
            news = self._view != view
            self._view = view
            self._makes_snapshots |= view.has_snapshot_folder or view.complete_snapshot is not None
            if news:
                self._changed.notify_all()

    def _note_poll_failure(self, what: str, error: StatecastError) -> None:
        # The node may be down, or be making its database anew: an outage is told once, however its problem changes.
        if not self._poll_problem or self._poll_problem == NOT_LOOKED_YET:
            self.metrics.failed(error.kind)
            self.on_event("poll_failed", f"{what}: {_line(error)}", {"error": error.to_json()})
        self._poll_problem = error.problem

    def _work_once(self) -> None:
        with self._changed:
            view = self._view
        self._take_note(view)
        ledger = self._ledger
        step = None if ledger is None else next_step(ledger, view, self._makes_snapshots, self.now(), self.settings.deadline_s)
        if isinstance(step, Produce):
            self._attempt(step.epoch)
        elif isinstance(step, Abandon):
            self._abandon(step.epoch)
        else:
            until = self.settings.poll_s if step is None or step.until is None else step.until - self.now()
            with self._changed:
                if self._view is view and not self.stop.is_set():
                    self._changed.wait(max(0.01, min(until, self.settings.poll_s)))

    def _take_note(self, view: NodeView | None) -> None:
        """Enter the epochs of a view into the ledger."""
        if view is None or not view.epochs:
            return
        self.metrics.seen(view.epochs[-1].epoch_height)
        ledger = self._ledger
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
            self._remember(add_epochs(ledger, found))
        except StatecastError as error:
            self._problem = error.problem
            if self._tell_once("note", error.problem, "failed", f"new epochs can't be taken note of: {_line(error)}", error.to_json()):
                self.metrics.failed(error.kind)
            self._note_again_s = time.monotonic() + min(self.settings.poll_s, NOTE_RETRY_S)
            return
        self._problem = ""
        for epoch in found:
            self._tell("epoch_seen", f"the node has the sync hash of epoch {epoch.epoch_height}", epoch)

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
            self._tell("attempt_stopped", f"epoch {epoch.epoch_height} is left as it is; what is done of it stays", epoch)
            return
        except ClaimedError as error:
            pause_s = min(CLAIMED_RETRY_S_MAX, self.settings.poll_s, self.settings.claim_ttl_s / 2)
            self._remember(self._known().with_epoch(replace(epoch, retry_at=self.now() + pause_s)))
            self._tell_once("claim", error.problem.partition(" until ")[0], "waiting_for_other_producer", _line(error), _facts(epoch))
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
        self._told.pop("claim", None)
        self._problem = ""
        self._remember(self._known().with_epoch(replace(epoch, state=EpochState.PUBLISHED)))
        self.metrics.published(epoch.epoch_height, by_us=by_us)
        self._tell("epoch_published" if by_us else "epoch_found_published", message, epoch, facts)
        try:
            if not by_us:
                self.work.discard(epoch.epoch_height, epoch.epoch_id)
            collected = self.work.collect()
        except StatecastError as error:
            self.metrics.failed(error.kind)
            self._tell("failed", f"the epoch is published, but cleaning up failed: {_line(error)}", epoch, {"error": error.to_json()})
            return
        if collected:
            self._tell("epochs_collected", f"{collected} old epochs are deleted", epoch, {"epochs": collected})

    def _fail(self, epoch: WatchedEpoch, error: StatecastError) -> None:
        self._problem = error.problem if error.exit_code == 30 else self._problem
        changed = after_failure(epoch, error, self.now())
        self._remember(self._known().with_epoch(changed))
        self.metrics.failed(error.kind)
        again_s = max(0.0, changed.retry_at - self.now())
        message = f"epoch {epoch.epoch_height} failed, next attempt in {again_s:.0f} s: {_line(error)}"
        self._tell(
            "epoch_failed", message, epoch, {"error": error.to_json(), "failures": changed.failures, "retry_in_s": round(again_s, 3)}
        )
        if isinstance(error, IntegrityError):
            self._discard(epoch)

    def _abandon(self, epoch: WatchedEpoch) -> None:
        # Another producer may have come to its end, or this one was killed behind its manifest. Who can't look can't wait for it.
        with suppress(StatecastError):
            if self._is_published(epoch):
                return
        self._remember(self._known().with_epoch(replace(epoch, state=EpochState.ABANDONED)))
        with_s = self.settings.deadline_s
        message = f"epoch {epoch.epoch_height} is given up: its deadline of {with_s:.0f} s has passed; statecast produce --epoch still can"
        self.metrics.epochs_abandoned += 1
        self._tell("epoch_abandoned", message, epoch, {"deadline_s": with_s, "failures": epoch.failures})
        self._discard(epoch)

    def _discard(self, epoch: WatchedEpoch) -> None:
        try:
            self.work.discard(epoch.epoch_height, epoch.epoch_id)
        except StatecastError as error:
            self._tell("failed", f"the work folder can't be cleaned: {_line(error)}", epoch, {"error": error.to_json()})

    def _keep_going(self, epoch: WatchedEpoch) -> None:
        """Take note of what is new at the node while an attempt runs, and end the attempt where that is due.

        Raises:
            AttemptStopped: the watcher is being stopped, or the epoch's deadline has passed and a newer epoch waits.
        """
        with self._changed:
            view = self._view
        self._take_note(view)
        if self.stop.is_set() or is_due_to_stop(self._known(), epoch, self.now(), self.settings.deadline_s):
            raise AttemptStopped

    def _on_claim(self, claim: HeldClaim | None) -> None:
        self._claim = claim
        self.metrics.claim_held = claim is not None

    def _known(self) -> WatchLedger:
        assert self._ledger is not None, "epochs are worked on when they are in the ledger"
        return self._ledger

    def _remember(self, ledger: WatchLedger) -> None:
        self._ledger = ledger
        self.metrics.epochs_behind = len(ledger.waiting)
        try:
            self.memory.put(LEDGER_NAME, ledger.to_bytes())
        except StoreError as error:
            # A restart would count deadlines anew, and nothing worse.
            self._tell_once("memory", error.problem, "failed", f"the work folder can't be written: {_line(error)}", error.to_json())

    def _recalled(self) -> WatchLedger | None:
        try:
            ledger = WatchLedger.parse(self.memory.get(LEDGER_NAME), f"{self.memory.url}/{LEDGER_NAME}")
        except ObjectNotFoundError:
            return None
        except ManifestError as error:
            self.on_event("memory_lost", f"what was remembered can't be read, and is forgotten: {_line(error)}", error.to_json())
            return None
        self.metrics.epochs_behind = len(ledger.waiting)
        for epoch in ledger.epochs:
            if epoch.state is EpochState.PUBLISHED:
                self.metrics.published(epoch.epoch_height, by_us=False)
        return ledger

    def _tell(self, kind: str, message: str, epoch: WatchedEpoch, facts: Mapping[str, Any] | None = None) -> None:
        self.on_event(kind, message, {**_facts(epoch), **(facts or {})})

    def _tell_once(self, topic: str, state: str, kind: str, message: str, facts: Mapping[str, Any]) -> bool:
        """Tell an event unless its topic is in this state already; an empty state is told to nobody. Return whether it changed."""
        if self._told.get(topic, "") == state:
            return False
        self._told[topic] = state
        if state:
            self.on_event(kind, message, facts)
        return True


def _facts(epoch: WatchedEpoch) -> dict[str, Any]:
    return {"epoch_height": epoch.epoch_height, "epoch_id": str(epoch.epoch_id)}


def _line(error: StatecastError) -> str:
    return " ".join(str(error).split())
