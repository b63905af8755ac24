"""What a watcher does next: a pure function of what it has seen and of the clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.near.epoch.node_epochs import NodeEpoch
from pipelines.producing.watch.watch_decisions import (
    LEDGER_EPOCHS_MAX,
    RETRY_S,
    RETRY_S_MAX,
    SNAPSHOT_WAIT_S,
    Abandon,
    EpochState,
    Produce,
    Step,
    Wait,
    WatchedEpoch,
    WatchLedger,
    add_epochs,
    after_failure,
    first_floor,
    is_due_to_stop,
    next_step,
    unknown_epochs,
)
from pipelines.producing.watch.watch_poll import NodeView
from schemas.errors import ManifestError, SourceError, StateRootMismatchError
from schemas.ids import CryptoHash

DEADLINE_S = 1800.0
SEEN_AT = 1_700_000_000.0


def epoch_hash(number: int) -> CryptoHash:
    """Return a hash of its own for a number."""
    return CryptoHash(number.to_bytes(32, "big"))


def watched(height: int, first_seen: float = SEEN_AT) -> WatchedEpoch:
    """Return an epoch whose snapshot is named by its height."""
    return WatchedEpoch(height, epoch_hash(height), first_seen, epoch_hash(1000 + height))


def at_node(height: int) -> NodeEpoch:
    """Return an epoch as the node has it."""
    return NodeEpoch(height, epoch_hash(height), 80, epoch_hash(2000 + height))


def view(complete: int | None) -> NodeView:
    """Return a look at a node whose complete snapshot is that of an epoch."""
    return NodeView((), None if complete is None else epoch_hash(1000 + complete), True)


def decide(ledger: WatchLedger, now: float, complete: int | None = None, makes_snapshots: bool = True) -> Step:
    """Decide with the deadline of these tests."""
    return next_step(ledger, view(complete), makes_snapshots, now, DEADLINE_S)


ONE = WatchLedger(6, (watched(7),))
TWO = WatchLedger(6, (watched(7), watched(8, SEEN_AT + 600)))


def test_an_epoch_is_produced_as_soon_as_its_snapshot_is_complete() -> None:
    """No wait beyond that."""
    assert decide(ONE, SEEN_AT, complete=7) == Produce(ONE.epochs[0])


@pytest.mark.parametrize("complete", [None, 6])
def test_an_epoch_waits_for_its_snapshot_but_not_for_ever(complete: int | None) -> None:
    """None is complete, or an older epoch's still: after a while whatever flat state there is must do."""
    ready = SEEN_AT + SNAPSHOT_WAIT_S
    assert decide(ONE, ready - 0.1, complete) == Wait(ready)
    assert decide(ONE, ready, complete) == Produce(ONE.epochs[0])


def test_a_node_that_makes_no_snapshots_is_not_waited_for() -> None:
    """Its hot store or its State column has the state."""
    assert decide(ONE, SEEN_AT, makes_snapshots=False) == Produce(ONE.epochs[0])


def test_the_newest_epoch_goes_first() -> None:
    """An older one follows when the newest is done; its own snapshot is gone, so it waits for none."""
    now = SEEN_AT + 700
    assert decide(TWO, now, complete=8) == Produce(TWO.epochs[1])
    done = TWO.with_epoch(replace(TWO.epochs[1], state=EpochState.PUBLISHED))
    assert decide(done, now, complete=8) == Produce(TWO.epochs[0])


def test_an_older_epoch_is_not_held_up_by_the_newest_ones_snapshot() -> None:
    """While the newest one waits, the older one is worked on."""
    assert decide(TWO, SEEN_AT + 601, complete=None) == Produce(TWO.epochs[0])


def test_an_epoch_is_given_up_when_its_deadline_has_passed_and_not_before() -> None:
    """To the second, whatever else could be done."""
    failed = ONE.with_epoch(replace(ONE.epochs[0], retry_at=SEEN_AT + 10_000))
    assert decide(failed, SEEN_AT + DEADLINE_S - 0.1, complete=7) == Wait(SEEN_AT + DEADLINE_S)
    assert decide(failed, SEEN_AT + DEADLINE_S, complete=7) == Abandon(failed.epochs[0])
    assert decide(ONE, SEEN_AT + DEADLINE_S, complete=7) == Abandon(ONE.epochs[0])


def test_after_an_epoch_is_given_up_the_next_one_is_worked_on() -> None:
    """Its deadline counts from when it was seen itself."""
    now = SEEN_AT + DEADLINE_S
    ledger = TWO.with_epoch(replace(TWO.epochs[0], state=EpochState.ABANDONED))
    assert decide(TWO, now, complete=8) == Abandon(TWO.epochs[0])
    assert decide(ledger, now, complete=8) == Produce(TWO.epochs[1])


def test_with_nothing_to_do_there_is_nothing_to_wait_for() -> None:
    """Only something new at the node changes that."""
    done = ONE.with_epoch(replace(ONE.epochs[0], state=EpochState.PUBLISHED))
    assert decide(done, SEEN_AT, complete=7) == Wait(None)
    assert decide(WatchLedger(6), SEEN_AT) == Wait(None)


def test_an_attempt_ends_at_its_deadline_only_for_a_newer_epoch() -> None:
    """Where nothing newer waits it may as well finish."""
    late = SEEN_AT + DEADLINE_S
    assert not is_due_to_stop(ONE, ONE.epochs[0], late, DEADLINE_S)
    assert not is_due_to_stop(TWO, TWO.epochs[0], late - 1, DEADLINE_S)
    assert is_due_to_stop(TWO, TWO.epochs[0], late, DEADLINE_S)
    assert not is_due_to_stop(TWO, TWO.epochs[1], late + 600, DEADLINE_S)


def test_pauses_between_attempts_double_up_to_a_limit() -> None:
    """An epoch that goes on failing is tried again and again, until its deadline."""
    epoch, pauses = watched(7), []
    for _ in range(8):
        epoch = after_failure(epoch, SourceError(problem="no"), SEEN_AT)
        pauses.append(epoch.retry_at - SEEN_AT)
    assert pauses[:3] == [RETRY_S, 2 * RETRY_S, 4 * RETRY_S]
    assert pauses[-1] == RETRY_S_MAX
    assert epoch.failures == 8


def test_wrong_records_are_read_again_after_the_longest_pause() -> None:
    """At once the same bytes would give the same answer."""
    assert after_failure(watched(7), StateRootMismatchError(problem="no"), SEEN_AT).retry_at == SEEN_AT + RETRY_S_MAX


def test_a_watcher_without_memory_begins_at_what_is_published() -> None:
    """Else with the newest epoch of the node: the older ones are a backfill's."""
    nodes = [at_node(5), at_node(6), at_node(7)]
    assert first_floor(nodes, 5) == 5
    assert first_floor(nodes, None) == 6
    assert [epoch.epoch_height for epoch in unknown_epochs(WatchLedger(5), nodes)] == [6, 7]


def test_an_epoch_is_entered_once() -> None:
    """Known ones, and those that a full ledger has forgotten, are not new."""
    assert unknown_epochs(ONE, [at_node(6), at_node(7)]) == ()
    full = add_epochs(WatchLedger(0), [watched(height) for height in range(1, LEDGER_EPOCHS_MAX + 9)])
    assert len(full.epochs) == LEDGER_EPOCHS_MAX
    assert unknown_epochs(full, [at_node(3), at_node(8)]) == ()
    assert [epoch.epoch_height for epoch in unknown_epochs(full, [at_node(500)])] == [500]


def test_a_ledger_survives_its_stored_form() -> None:
    """All but the pauses after failures."""
    ledger = TWO.with_epoch(replace(TWO.epochs[0], state=EpochState.ABANDONED))
    assert WatchLedger.parse(ledger.to_bytes(), "watch.json") == ledger
    assert WatchLedger.parse(WatchLedger(-1).to_bytes(), "watch.json") == WatchLedger(-1)


@pytest.mark.parametrize(
    "data", [b"", b"{}", ONE.to_bytes().replace(b"waiting", b"working"), ONE.to_bytes().replace(b"watch:v1", b"watch:v2")]
)
def test_a_ledger_of_another_form_is_refused(data: bytes) -> None:
    """It is not taken for an empty one."""
    with pytest.raises(ManifestError):
        WatchLedger.parse(data, "watch.json")
