"""The watcher's loop over work that fails, is claimed or damaged, with a clock that moves a minute at each look at the node."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipelines.bucket.epoch_claim import HeldClaim
from pipelines.execution.progress import Progress, SilentProgress, StageProgress
from pipelines.execution.stage_runner import KeepGoing
from pipelines.near.epoch.node_epochs import NodeEpoch, UnreadableEpoch
from pipelines.producing.produce_epoch import EpochResult
from pipelines.producing.publish.epoch_publisher import PublishedEpoch
from pipelines.producing.watch.watch_decisions import WatchedEpoch, WatchLedger
from pipelines.producing.watch.watch_memory import LEDGER_NAME
from pipelines.producing.watch.watch_metrics import WatchMetrics
from pipelines.producing.watch.watch_node import Watcher, WatchSettings
from pipelines.producing.watch.watch_poll import NodeView
from pipelines.stores.memory_store import MemoryStore
from schemas.errors import (
    ClaimedError,
    IntegrityError,
    SourceError,
    StatecastError,
    StateRootMismatchError,
    StoreDeniedError,
    TransientStoreError,
)
from schemas.ids import CryptoHash
from tests.support.list_source import context_of
from tests.support.stored_bytes import stored_bytes

Outcome = StatecastError | None

FAR_S = 1e8
"""A deadline that the clock reaches after hours of polls: time passes with them, however slow the rest of this machine is."""

WAIT_S = 300.0
"""Longer than anything takes on a slow machine."""


def epoch_id(height: int) -> CryptoHash:
    """Return an epoch's id."""
    return CryptoHash(height.to_bytes(32, "big"))


@dataclass
class ScriptedWork:
    """Work whose outcomes are given; without one an attempt succeeds."""

    heights: list[int]
    outcomes: dict[int, list[Outcome]] = field(default_factory=dict)
    looks: list[Outcome] = field(default_factory=list)
    published: set[int] = field(default_factory=set)
    latest: int | None = None
    collect_fails: bool = False
    during: Callable[[ScriptedWork], None] = lambda _: None
    """Called between the first two results of an attempt."""
    now: float = 1_700_000_000.0
    attempts: list[int] = field(default_factory=list)
    discarded: list[int] = field(default_factory=list)
    unreadable: list[tuple[UnreadableEpoch, ...]] = field(default_factory=lambda: [()])
    """What can't be read, by look; the last one stays."""

    def look(self) -> NodeView:
        """A minute passes."""
        self.now += 60
        if self.looks and (error := self.looks.pop(0)) is not None:
            raise error
        epochs = tuple(NodeEpoch(height, epoch_id(height), 80, epoch_id(1000 + height)) for height in self.heights)
        return NodeView(epochs, None, False, self.unreadable.pop(0) if len(self.unreadable) > 1 else self.unreadable[0])

    def snapshot_block(self, sync_hash: CryptoHash) -> CryptoHash | None:
        """The node makes no snapshots."""
        return None

    def latest_published(self) -> int | None:
        """As given."""
        return self.latest

    def find_published(self, wanted: CryptoHash) -> str | None:
        """As given, and what was produced since."""
        return "memory://published" if int.from_bytes(wanted, "big") in self.published else None

    def produce(
        self, wanted: CryptoHash, progress: Progress, keep_going: KeepGoing, on_claim: Callable[[HeldClaim | None], None]
    ) -> EpochResult:
        """Fail as scripted, or publish two parts."""
        height = int.from_bytes(wanted, "big")
        self.attempts.append(height)
        outcomes = self.outcomes.get(height, [])
        if outcomes and (error := outcomes.pop(0)) is not None:
            raise error
        progress.stage(StageProgress("publish", "s0.v1", 0, 2))
        self.during(self)
        progress.stage(StageProgress("publish", "s0.v1", 1, 2, size=10, parts=1))
        keep_going()
        progress.stage(StageProgress("publish", "s0.v1", 2, 2, size=30, parts=2))
        self.published.add(height)
        return EpochResult(context_of(None), "", "memory://published", "", "", (), {}, PublishedEpoch(1, None, ()), 1.0, 0.5)

    def discard(self, epoch_height: int, epoch_id: CryptoHash) -> None:
        """Remember it."""
        self.discarded.append(epoch_height)

    def collect(self) -> int:
        """Delete nothing, or fail."""
        if self.collect_fails:
            raise StoreDeniedError(problem="not yours")
        return 0


@dataclass
class Run:
    """What a watcher said and counted until an event ended it."""

    events: list[tuple[str, Mapping[str, Any]]]
    metrics: WatchMetrics

    def kinds(self) -> list[str]:
        """Kinds of events, in order."""
        return [kind for kind, _ in self.events]


def run_until(
    work: ScriptedWork, last: str, times: int = 1, memory: MemoryStore | None = None, deadline_s: float = FAR_S, poll_s: float = 0.005
) -> Run:
    """Run a watcher until it has told an event so often; some minutes of real time are the bound."""
    stop, events, metrics = threading.Event(), list[tuple[str, Mapping[str, Any]]](), WatchMetrics()

    def on_event(kind: str, message: str, facts: Mapping[str, Any]) -> None:
        assert message
        events.append((kind, facts))
        if [kind for kind, _ in events].count(last) == times:
            stop.set()
            watcher.wake()

    store = MemoryStore(uuid.uuid4().hex) if memory is None else memory
    settings = WatchSettings(poll_s=poll_s, deadline_s=deadline_s, claim_ttl_s=60)
    watcher = Watcher(work, store, settings, metrics, on_event, lambda _: SilentProgress(), stop, now=lambda: work.now)
    bound = threading.Timer(WAIT_S, stop.set)
    bound.start()
    watcher.run()
    bound.cancel()
    assert events[-1][0] == last or last in [kind for kind, _ in events], events
    return Run(events, metrics)


def test_a_failure_is_retried_until_it_heals() -> None:
    """Two failures, then the epoch is published; both are counted by their kind."""
    work = ScriptedWork([7], {7: [SourceError(problem="no"), StoreDeniedError(problem="no")]})
    run = run_until(work, "epoch_published")
    assert run.kinds() == ["epoch_seen", "epoch_failed", "epoch_failed", "epoch_published"]
    assert [facts["error"]["kind"] for kind, facts in run.events if kind == "epoch_failed"] == ["source", "store_denied"]
    samples = {sample.labels["kind"]: sample.value for family in run.metrics.collect() for sample in family.samples if sample.labels}
    assert {kind: count for kind, count in samples.items() if count} == {"source": 1, "store_denied": 1}
    assert work.discarded == []


def test_an_epoch_that_does_not_heal_is_given_up_and_the_next_one_is_published() -> None:
    """Never before its deadline, which counts from its being seen."""
    work = ScriptedWork([7], {7: [SourceError(problem="no")] * 1000})
    begun = work.now
    run = run_until(work, "epoch_abandoned", deadline_s=1800)
    assert work.now - begun >= 1800
    assert run.metrics.epochs_abandoned == 1
    assert work.discarded == [7]
    work.heights.append(8)
    memory = MemoryStore(uuid.uuid4().hex)
    memory.put(LEDGER_NAME, WatchLedger(7).to_bytes())
    assert run_until(work, "epoch_published", memory=memory).metrics.height_published == 8


def test_a_restart_does_not_begin_the_deadline_anew() -> None:
    """It is remembered when an epoch was first seen, and what was given up stays given up."""
    work, memory = ScriptedWork([7], {7: [SourceError(problem="no")] * 1000}), MemoryStore(uuid.uuid4().hex)
    run_until(work, "epoch_failed", memory=memory)
    first_seen = WatchLedger.parse(stored_bytes(memory, LEDGER_NAME), "").epochs[0].first_seen
    work.now = first_seen + 1700
    assert "epoch_seen" not in run_until(work, "epoch_abandoned", memory=memory, deadline_s=1800).kinds()
    attempts = len(work.attempts)
    work.heights.append(8)
    run_until(work, "epoch_published", memory=memory)
    assert work.attempts[attempts:] == [8]


def test_wrong_records_are_read_from_the_node_again() -> None:
    """What an integrity failure leaves in the work folder is removed before the next attempt."""
    work = ScriptedWork([7], {7: [StateRootMismatchError(problem="no")]})
    run_until(work, "epoch_published")
    assert (work.attempts, work.discarded) == ([7, 7], [7])


def test_another_producer_is_waited_for_and_told_once() -> None:
    """Its claim is no failure; what it has published counts as published, not by us."""
    claimed = [ClaimedError(problem=f"process 1 on other holds the epoch until {minute}") for minute in range(3)]
    work = ScriptedWork([7], {7: [*claimed, None]})
    run = run_until(work, "epoch_published")
    assert run.kinds() == ["epoch_seen", "waiting_for_other_producer", "epoch_published"]
    work = ScriptedWork([7], {7: [claimed[0]]}, during=lambda _: None)
    work.published.add(7)
    run = run_until(work, "epoch_found_published")
    assert (run.metrics.epochs_published, run.metrics.height_published, run.metrics.epochs_behind) == (0, 7, 0)


def test_an_attempt_is_ended_for_a_newer_epoch_when_its_deadline_passes() -> None:
    """In the middle of its parts; the newer one is published next."""

    def grow(work: ScriptedWork) -> None:
        if work.attempts == [7]:
            work.heights.append(8)
            work.now += FAR_S
            # The other thread looks at the node in its own time.
            seen = threading.Event()
            work.during = lambda _: None
            original = work.look

            def look() -> NodeView:
                seen.set()
                return original()

            work.look = look  # type: ignore[method-assign]
            assert seen.wait(WAIT_S)
            seen.clear()
            assert seen.wait(WAIT_S)

    run = run_until(ScriptedWork([7], during=grow), "epoch_published")
    assert run.kinds() == ["epoch_seen", "epoch_seen", "attempt_stopped", "epoch_abandoned", "epoch_published"]
    assert run.events[-1][1]["epoch_height"] == 8


def test_a_node_that_can_not_be_read_is_told_once() -> None:
    """Even if its problem changes; the recovery is reported, and the next outage."""
    away, locked = SourceError(problem="gone"), SourceError(problem="locked")
    work = ScriptedWork([7], looks=[away, away, locked, locked, None, locked], outcomes={7: [away] * 1000})
    run = run_until(work, "poll_recovered", times=2)
    assert [kind for kind in run.kinds() if kind.startswith("poll")] == ["poll_failed", "poll_recovered"] * 2


def test_an_epoch_that_can_not_be_read_is_told_and_the_others_are_published() -> None:
    """Once, and it keeps the watcher from being well until it is gone."""
    hidden = UnreadableEpoch(epoch_id(8), 8, epoch_id(1008), IntegrityError(problem="V6 is no known version"))
    run = run_until(ScriptedWork([7], unreadable=[(hidden,)]), "epoch_published")
    assert [kind for kind in run.kinds() if kind.startswith("poll")] == ["poll_failed"]
    assert next(facts["error"]["kind"] for kind, facts in run.events if kind == "poll_failed") == "integrity"
    gone = run_until(
        ScriptedWork([7], unreadable=[(hidden,), (hidden,), ()], outcomes={7: [SourceError(problem="away")] * 1000}), "poll_recovered"
    )
    assert [kind for kind in gone.kinds() if kind.startswith("poll")] == ["poll_failed", "poll_recovered"]


def test_parts_are_counted_and_timed() -> None:
    """From the epoch's being seen, by the watcher's clock."""
    metrics = run_until(ScriptedWork([7]), "epoch_published").metrics
    assert (metrics.parts_published, metrics.published_bytes, metrics.epochs_published, metrics.producing) == (2, 30, 1, False)
    assert 0 <= metrics.first_part_s <= metrics.last_part_s


def test_an_epoch_stays_published_when_cleaning_up_fails() -> None:
    """That is reported and counted, and the epoch is not made again."""
    run = run_until(ScriptedWork([7], collect_fails=True), "failed")
    assert run.kinds() == ["epoch_seen", "epoch_published", "failed"]


@pytest.mark.parametrize(("latest", "expected"), [(None, [8]), (6, [8, 7])])
def test_a_new_watcher_goes_on_after_what_is_published(latest: int | None, expected: list[int]) -> None:
    """Without anything published it begins with the newest; else it does all that is newer, the newest first."""
    work = ScriptedWork([5, 6, 7, 8], latest=latest)
    run_until(work, "epoch_published", times=len(expected))
    assert work.attempts == expected


def test_memory_that_can_not_be_read_is_forgotten() -> None:
    """It is reported, and the watcher goes on as a new one."""
    memory = MemoryStore(uuid.uuid4().hex)
    memory.put(LEDGER_NAME, b"{")
    assert run_until(ScriptedWork([7]), "epoch_published", memory=memory).kinds() == ["memory_lost", "epoch_seen", "epoch_published"]


def test_an_epoch_that_is_published_is_not_given_up() -> None:
    """A watcher that was away until after the deadline looks before it gives up."""
    work, memory = ScriptedWork([7]), MemoryStore(uuid.uuid4().hex)
    work.published.add(7)
    memory.put(LEDGER_NAME, WatchLedger(6, (WatchedEpoch(7, epoch_id(7), work.now - 4000),)).to_bytes())
    run = run_until(work, "epoch_found_published", memory=memory, deadline_s=1800)
    assert run.kinds() == ["epoch_found_published"]
    assert (run.metrics.epochs_abandoned, run.metrics.height_published, work.attempts) == (0, 7, [])


def test_an_epoch_is_given_up_if_the_store_cannot_be_read() -> None:
    """A store that is away does not keep it."""
    work, memory = ScriptedWork([7]), MemoryStore(uuid.uuid4().hex)

    def away(wanted: CryptoHash) -> str | None:
        raise TransientStoreError(problem="away")

    work.find_published = away  # type: ignore[method-assign]
    memory.put(LEDGER_NAME, WatchLedger(6, (WatchedEpoch(7, epoch_id(7), work.now - 4000),)).to_bytes())
    assert run_until(work, "epoch_abandoned", memory=memory, deadline_s=1800).metrics.epochs_abandoned == 1


def test_a_production_does_not_wait_for_epochs_that_can_not_be_taken_note_of() -> None:
    """They are asked for again now and then, not after each of its results."""
    asked: list[CryptoHash] = []

    def steps(work: ScriptedWork) -> None:
        work.during = lambda _: None
        work.heights.append(8)
        assert seen.wait(WAIT_S)
        for _ in range(50):
            asking[0]()
        assert 1 <= len(asked) < 25

    class Work(ScriptedWork):
        def snapshot_block(self, sync_hash: CryptoHash) -> CryptoHash | None:
            if sync_hash == epoch_id(1008):
                asked.append(sync_hash)
                raise SourceError(problem="gone")
            return None

        def produce(
            self, wanted: CryptoHash, progress: Progress, keep_going: KeepGoing, on_claim: Callable[[HeldClaim | None], None]
        ) -> EpochResult:
            asking.append(keep_going)
            return super().produce(wanted, progress, keep_going, on_claim)

        def look(self) -> NodeView:
            view = super().look()
            if len(view.epochs) == 2:
                looks.append(1)
                # By the third look the first one's view is in the watcher's hands.
                if len(looks) == 3:
                    seen.set()
            return view

    asking, looks, seen = list[KeepGoing](), list[int](), threading.Event()
    run_until(Work([7], during=steps), "epoch_published", poll_s=0.2)
    assert asked


def test_a_poll_loop_that_ends_unforeseen_ends_the_watcher() -> None:
    """A watcher that sees nothing new any more does not run on as if it did."""
    work = ScriptedWork([7], looks=[KeyError("a fault of ours")])  # type: ignore[list-item]
    with pytest.raises(KeyError, match="a fault of ours"):
        run_until(work, "epoch_published")
