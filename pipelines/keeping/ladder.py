"""By which steps the epochs of a store are had: whole, or rebuilt of a whole one and deltas. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping

from schemas.published.object_layout import EpochLayout


def find_steps(
    target: EpochLayout, bases: Mapping[EpochLayout, Collection[EpochLayout]], whole: Collection[EpochLayout]
) -> tuple[EpochLayout, ...] | None:
    """Return the fewest steps to an epoch: a whole epoch, then those that each delta leads to, without the epoch itself; None where none lead there.

    Args:
        bases: by epoch, those that deltas of all its shards lead from.
        whole: epochs of which all parts are there. The nearest in steps is taken, of several the highest.
    """
    waiting: deque[tuple[EpochLayout, ...]] = deque([(target,)])
    seen = {target}
    while waiting:
        way = waiting.popleft()
        for base in sorted(bases.get(way[0], ()), key=lambda one: (one.epoch_height, str(one.epoch_id)), reverse=True):
            if base in seen:
                continue
            seen.add(base)
            longer = (base, *way)
            if base in whole:
                return longer[:-1]
            waiting.append(longer)
    return None
