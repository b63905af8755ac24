"""Which epochs of a store may be deleted. A pure plan over known facts; deletes nothing.

An epoch goes when enough complete ones are above it and it is old enough, and never while it is held. What a killed producer or
a killed deletion left, a folder without a manifest, goes by rules of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from schemas.errors import InvalidInputError
from schemas.published.object_layout import EpochLayout

ORPHANS_AFTER_S: Final = 2 * 86_400
"""How long nothing must have changed in a folder without a manifest before it counts as an orphan, by default."""

SECONDS_A_DAY: Final = 86_400


KEEP_DAYS_MAX: Final = 36_500
"""Longest age that can be asked for: times of day end not far beyond."""


class Verdict(StrEnum):
    """What is to be done about an epoch."""

    KEEP = "keep"
    COLLECT = "collect"


class EpochPhase(StrEnum):
    """How an epoch's folder looks."""

    PUBLISHED = "published"
    """It has a manifest."""
    DAMAGED = "damaged"
    """It has a manifest that can't be read."""
    UNPUBLISHED = "unpublished"
    """It has no manifest: not yet, or a producer was killed."""
    LEAVING = "leaving"
    """It has no manifest, and the catalogue says that a deletion has begun."""


@dataclass(frozen=True, slots=True)
class StoredEpoch:
    """What is known of an epoch's folder."""

    layout: EpochLayout
    phase: EpochPhase
    is_complete: bool = False
    """Its manifest offers every part of every shard."""
    created: datetime | None = None
    """Of its manifest."""
    changed: datetime | None = None
    """When the newest of its objects was stored; None where the store does not say. Without leases and claims."""
    leaving_since: datetime | None = None
    """When a deletion began, by the catalogue."""
    held_by: str = ""
    """Holders of live leases or claims in words; empty for none."""


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """What is to be kept."""

    keep_epochs: int
    """So many complete epochs, the newest, and all that are among them; at least 1."""
    keep_days: float | None = None
    """Also whatever was published in so many days."""
    orphans_after_s: float = ORPHANS_AFTER_S

    def __post_init__(self) -> None:
        if self.keep_epochs < 1:
            raise InvalidInputError(problem="at least one epoch is kept", where=f"--keep-epochs {self.keep_epochs}")
        if self.keep_days is not None and not 0 <= self.keep_days <= KEEP_DAYS_MAX:
            raise InvalidInputError(problem=f"a number of days is from 0 to {KEEP_DAYS_MAX}", where=f"--keep-days {self.keep_days}")
        if not 0 <= self.orphans_after_s <= KEEP_DAYS_MAX * SECONDS_A_DAY:
            raise InvalidInputError(
                problem=f"a duration is from 0 to {KEEP_DAYS_MAX} days", where=f"--orphans-after {self.orphans_after_s:g} s"
            )


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done about one epoch, and why."""

    layout: EpochLayout
    phase: EpochPhase
    verdict: Verdict
    reason: str


def plan_retention(
    epochs: Sequence[StoredEpoch], rule: RetentionRule, pointed_at: Sequence[EpochLayout], now: datetime
) -> tuple[Decision, ...]:
    """Decide about every epoch; lowest first, which is the order to delete in.

    Args:
        epochs: in any order.
        pointed_at: what the latest pointer names: never deleted.
        now: with a time zone.
    """
    newest_first = sorted(epochs, key=lambda epoch: (epoch.layout.epoch_height, str(epoch.layout.epoch_id)), reverse=True)
    complete_above = 0
    decisions = []
    for epoch in newest_first:
        verdict, reason = _decide(epoch, rule, complete_above, epoch.layout in pointed_at, now)
        decisions.append(Decision(epoch.layout, epoch.phase, verdict, reason))
        complete_above += epoch.is_complete
    return tuple(reversed(decisions))


def _decide(epoch: StoredEpoch, rule: RetentionRule, complete_above: int, is_pointed_at: bool, now: datetime) -> tuple[Verdict, str]:
    if epoch.held_by:
        return Verdict.KEEP, f"held by {epoch.held_by}"
    if epoch.phase in (EpochPhase.UNPUBLISHED, EpochPhase.LEAVING):
        return _decide_unpublished(epoch, rule, now)
    if is_pointed_at:
        return Verdict.KEEP, "the latest pointer names it"
    if epoch.is_complete and not complete_above:
        return Verdict.KEEP, "it is the newest complete epoch"
    if complete_above < rule.keep_epochs:
        return Verdict.KEEP, f"newer complete epochs: {complete_above}, kept: {rule.keep_epochs}"
    if rule.keep_days is not None:
        if epoch.created is None:
            return Verdict.KEEP, "its age is not known"
        if now - epoch.created < timedelta(days=rule.keep_days):
            return Verdict.KEEP, f"it was published less than {rule.keep_days:g} days ago"
    return Verdict.COLLECT, f"newer complete epochs: {complete_above}, kept: {rule.keep_epochs}"


def _decide_unpublished(epoch: StoredEpoch, rule: RetentionRule, now: datetime) -> tuple[Verdict, str]:
    # A later write is of a producer that began again: then it is a folder like any other without a manifest.
    if epoch.leaving_since is not None and (epoch.changed is None or epoch.changed <= epoch.leaving_since):
        return Verdict.COLLECT, "an earlier deletion of it was not finished"
    if epoch.changed is None:
        return Verdict.KEEP, "it has no manifest, and the store does not say how old its objects are"
    if now - epoch.changed < timedelta(seconds=rule.orphans_after_s):
        return Verdict.KEEP, "it has no manifest yet"
    return Verdict.COLLECT, f"it has no manifest, and nothing changed in it since {epoch.changed:%Y-%m-%d %H:%M} UTC"
