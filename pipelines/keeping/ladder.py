"""By which steps the epochs of a store are had: whole, or rebuilt of a whole one and deltas. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from schemas.published.catalogue import STEPS_MAX
from schemas.published.object_layout import EpochLayout


def find_steps(
    target: EpochLayout, bases_of: Callable[[EpochLayout], Collection[EpochLayout]], is_whole: Callable[[EpochLayout], bool]
) -> tuple[EpochLayout, ...] | None:
    """Return the fewest steps to an epoch: a whole epoch, then those that each delta leads to, without the epoch itself; None where none lead there.

    Args:
        bases_of: returns the epochs that deltas of all shards of an epoch lead from.
        is_whole: tells whether all parts of an epoch are there. The nearest in steps is taken, of several the highest. More than `STEPS_MAX`
            steps are none.
    """
    waiting: deque[tuple[EpochLayout, int]] = deque([(target, 0)])
    after: dict[EpochLayout, EpochLayout] = {}
    seen = {target}
    while waiting:
        epoch, count = waiting.popleft()
        if count == STEPS_MAX:
            return None
        for base in sorted(bases_of(epoch), key=lambda one: (one.epoch_height, str(one.epoch_id)), reverse=True):
            if base in seen:
                continue
            seen.add(base)
            after[base] = epoch
            if is_whole(base):
                return _way(base, target, after)
            waiting.append((base, count + 1))
    return None


def _way(base: EpochLayout, target: EpochLayout, after: dict[EpochLayout, EpochLayout]) -> tuple[EpochLayout, ...]:
    way = []
    while base != target:
        way.append(base)
        base = after[base]
    return tuple(way)
