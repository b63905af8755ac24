"""Which epochs of a store may be deleted. A pure plan over known facts; deletes nothing.

An epoch goes when enough complete ones are above it and it is old enough, and never while it is held. What a killed producer or
a killed deletion left, a folder without a manifest, goes by rules of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from pipelines.bucket.published_deltas import deltas_in_words
from pipelines.keeping.ladder import find_steps
from schemas.errors import InvalidInputError
from schemas.published.object_layout import EpochLayout

ORPHANS_AFTER_S: Final = 2 * 86_400
"""How long nothing must have changed in a folder without a manifest before it counts as an orphan, by default."""

SECONDS_A_DAY: Final = 86_400


KEEP_DAYS_MAX: Final = 36_500
"""Longest age that can be asked for: times of day end not far beyond."""


NEVER_S: Final = KEEP_DAYS_MAX * SECONDS_A_DAY
"""An age that nothing reaches."""


class Verdict(StrEnum):
    """What is to be done about an epoch."""

    KEEP = "keep"
    THIN = "thin"
    """Its parts go: they are rebuilt of another epoch's parts and deltas when they are wanted."""
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
    is_whole: bool = True
    """Every part that its manifest lists is there."""
    is_half_thin: bool = False
    """A collection of its parts was not finished."""
    bases: frozenset[EpochLayout] = frozenset()
    """Epochs that deltas of all its shards lead from, whose objects are all there."""


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """What is to be kept."""

    keep_epochs: int
    """So many complete epochs, the newest, and all that are among them; at least 1."""
    keep_days: float | None = None
    """Also whatever was published in so many days."""
    orphans_after_s: float = ORPHANS_AFTER_S
    full_every: int | None = None
    """Whole parts stay of epochs whose height is a multiple of it, where deltas lead to the others; None: of all."""

    def __post_init__(self) -> None:
        if self.keep_epochs < 1:
            raise InvalidInputError(problem="at least one epoch is kept", where=f"--keep-epochs {self.keep_epochs}")
        if self.full_every is not None and self.full_every < 1:
            raise InvalidInputError(problem="at least every epoch is whole", where=f"--full-every {self.full_every}")
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
    steps: tuple[EpochLayout, ...] = ()
    """Of an epoch without its parts, now or after this: a whole one, then those that each delta leads to, up to the one before."""


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
    return _with_ladder(tuple(reversed(decisions)), {epoch.layout: epoch for epoch in epochs}, rule, pointed_at)


def _with_ladder(
    decisions: Sequence[Decision], epochs: Mapping[EpochLayout, StoredEpoch], rule: RetentionRule, pointed_at: Sequence[EpochLayout]
) -> tuple[Decision, ...]:
    """Keep what epochs without parts are rebuilt of, and let parts go that can be rebuilt of what stays."""
    found = {decision.layout: decision for decision in decisions}
    bases = {layout: epoch.bases for layout, epoch in epochs.items()}
    published = {layout for layout, epoch in epochs.items() if epoch.phase is EpochPhase.PUBLISHED}
    whole = {layout for layout in published if epochs[layout].is_whole}
    # The highest first: of two that could be had by each other, neither is; deltas lead up alone.
    for layout in sorted(published - whole, key=lambda one: -one.epoch_height):
        if found[layout].verdict is Verdict.COLLECT:
            continue
        steps = find_steps(layout, lambda one: bases.get(one, frozenset()), whole.__contains__)
        if steps is None:
            continue
        if epochs[layout].is_half_thin and rule.full_every is not None and not epochs[layout].held_by:
            reason = "an earlier collection of its parts was not finished"
            found[layout] = replace(found[layout], verdict=Verdict.THIN, reason=reason, steps=steps)
        else:
            found[layout] = replace(found[layout], steps=steps)
        for needed in steps:
            if found[needed].verdict is Verdict.COLLECT:
                found[needed] = replace(found[needed], verdict=Verdict.KEEP, reason=f"epoch {layout.epoch_height} is rebuilt of it")
    if rule.full_every is None:
        return tuple(found[decision.layout] for decision in decisions)
    # What others are rebuilt of already stays whole: another way would have to be proved first.
    staying = {step for decision in found.values() if decision.verdict is not Verdict.COLLECT for step in decision.steps[:1]}
    newest = max((one for one in published if epochs[one].is_complete), key=lambda one: one.epoch_height, default=None)
    kept_whole = {layout for layout in whole if found[layout].verdict is Verdict.KEEP}
    candidates = {
        layout
        for layout in kept_whole - staying - {newest, *pointed_at}
        if layout.epoch_height % rule.full_every and epochs[layout].is_complete and not epochs[layout].held_by
    }
    kept = {layout for layout in published if found[layout].verdict is not Verdict.COLLECT}
    kept_bases = {layout: bases[layout] & kept for layout in kept}
    full = kept_whole - candidates
    for layout in sorted(candidates, key=lambda one: one.epoch_height):
        steps = find_steps(layout, lambda one: kept_bases.get(one, frozenset()), full.__contains__)
        if steps is None:
            full.add(layout)
        else:
            had = f"had from epoch {steps[0].epoch_height} by {deltas_in_words(len(steps))}"
            reason = f"whole parts stay of heights that {rule.full_every} divides; this is {had}"
            found[layout] = replace(found[layout], verdict=Verdict.THIN, reason=reason, steps=steps)
    return tuple(found[decision.layout] for decision in decisions)


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
