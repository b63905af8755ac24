"""Which epochs may be deleted: by count, by age, and never while they are held."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.keeping.retention import EpochPhase, RetentionRule, StoredEpoch, Verdict, plan_retention
from schemas.errors import InvalidInputError
from schemas.ids import CryptoHash
from schemas.published.object_layout import EpochLayout

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def layout(height: int) -> EpochLayout:
    """An epoch of a height."""
    return EpochLayout("testnet", height, CryptoHash(bytes([height % 256]) * 32))


def stored(height: int, **changes: object) -> StoredEpoch:
    """A complete epoch, published as many days ago as its height is below 100."""
    created = NOW - timedelta(days=100 - height)
    epoch = StoredEpoch(layout(height), EpochPhase.PUBLISHED, is_complete=True, created=created, changed=created)
    return replace(epoch, **changes)  # type: ignore[arg-type]


def collected(epochs: list[StoredEpoch], rule: RetentionRule, pointed_at: int | None = None) -> list[int]:
    """Return the heights that are to go."""
    decisions = plan_retention(epochs, rule, [] if pointed_at is None else [layout(pointed_at)], NOW)
    assert [decision.layout.epoch_height for decision in decisions] == sorted(epoch.layout.epoch_height for epoch in epochs)
    return [decision.layout.epoch_height for decision in decisions if decision.verdict is Verdict.COLLECT]


def test_the_newest_epochs_are_kept() -> None:
    """As many as were asked for, whatever their order in the store."""
    epochs = [stored(height) for height in (93, 91, 95, 92, 94)]
    assert collected(epochs, RetentionRule(2)) == [91, 92, 93]


def test_incomplete_epochs_do_not_count() -> None:
    """An epoch that is still produced pushes no complete one out."""
    epochs = [stored(91), stored(92), stored(93, is_complete=False), stored(94, is_complete=False)]
    assert collected(epochs, RetentionRule(1)) == [91]


def test_an_incomplete_epoch_goes_when_enough_complete_ones_are_above_it() -> None:
    """It will not be finished."""
    assert collected([stored(91, is_complete=False), stored(92), stored(93)], RetentionRule(2)) == [91]


def test_age_keeps_what_count_would_let_go() -> None:
    """Both must speak for a deletion."""
    epochs = [stored(height) for height in (90, 95, 96, 97, 98)]
    assert collected(epochs, RetentionRule(1, keep_days=4.5)) == [90, 95]


def test_an_epoch_of_unknown_age_stays_where_age_counts() -> None:
    """A damaged manifest does not say when it was published."""
    epochs = [stored(91, phase=EpochPhase.DAMAGED, is_complete=False, created=None), stored(92)]
    assert collected(epochs, RetentionRule(1, keep_days=1)) == []
    assert collected(epochs, RetentionRule(1)) == [91]


def test_a_held_epoch_stays() -> None:
    """Whatever else speaks against it, without a manifest too."""
    epochs = [
        stored(90, phase=EpochPhase.UNPUBLISHED, is_complete=False, held_by="a producer"),
        stored(91, phase=EpochPhase.LEAVING, is_complete=False, leaving_since=NOW, held_by="a producer"),
        stored(92, held_by="a fetch"),
        stored(99),
    ]
    assert collected(epochs, RetentionRule(1)) == []


def test_what_the_latest_pointer_names_stays() -> None:
    """Readers are sent there."""
    assert collected([stored(91), stored(92), stored(93)], RetentionRule(1), pointed_at=91) == [92]


def test_a_folder_without_a_manifest_waits() -> None:
    """It goes when nothing changed in it for long enough; one of unknown age never does."""
    epochs = [
        stored(1, phase=EpochPhase.UNPUBLISHED, is_complete=False, changed=NOW - timedelta(days=2)),
        stored(2, phase=EpochPhase.UNPUBLISHED, is_complete=False, changed=NOW - timedelta(days=2, seconds=-1)),
        stored(3, phase=EpochPhase.UNPUBLISHED, is_complete=False, changed=None),
    ]
    assert collected(epochs, RetentionRule(5)) == [1]


def test_a_killed_deletion_is_finished_at_once() -> None:
    """Unless something was put into the folder since: then it waits as any folder without a manifest."""
    marked = NOW - timedelta(minutes=1)
    epochs = [
        stored(1, phase=EpochPhase.LEAVING, is_complete=False, leaving_since=marked, changed=marked),
        stored(2, phase=EpochPhase.LEAVING, is_complete=False, leaving_since=marked, changed=marked + timedelta(seconds=1)),
        stored(3, phase=EpochPhase.LEAVING, is_complete=False, leaving_since=marked, changed=None),
    ]
    assert collected(epochs, RetentionRule(5)) == [1, 3]


@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), unique_by=lambda item: item[0]), st.integers(1, 5))
def test_the_newest_complete_epoch_never_goes(heights: list[tuple[int, bool]], keep_epochs: int) -> None:
    """And so many complete ones stay as were asked for, or all that there are."""
    epochs = [stored(height, is_complete=complete) for height, complete in heights]
    gone = set(collected(epochs, RetentionRule(keep_epochs)))
    complete = sorted((height for height, is_complete in heights if is_complete), reverse=True)
    assert not gone & set(complete[:keep_epochs])
    assert gone >= set(complete[keep_epochs:])


@pytest.mark.parametrize(
    ("keep_epochs", "keep_days", "orphans_after_s"),
    [(0, None, 1), (1, -1, 1), (1, float("nan"), 1), (1, 1e12, 1), (1, float("inf"), 1), (1, None, -1), (1, None, 1e15)],
)
def test_a_rule_that_keeps_nothing_is_refused(keep_epochs: int, keep_days: float | None, orphans_after_s: float) -> None:
    """Also one that reckons with times beyond all calendars: a collection never empties a bucket."""
    with pytest.raises(InvalidInputError):
        RetentionRule(keep_epochs, keep_days, orphans_after_s)
