"""Which epochs a seeder lets go. A pure function."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.published.object_layout import EpochLayout


@dataclass(frozen=True, slots=True)
class HeldEpoch:
    """An epoch that is on the disk, whole or in part."""

    layout: EpochLayout
    is_complete: bool
    """Every shard that is wanted of it is seeded."""


def epochs_to_drop(held: Iterable[HeldEpoch], epochs_kept: int) -> tuple[EpochLayout, ...]:
    """Return the epochs that may go: those with enough complete ones above them, lowest first.

    So an epoch stays while the next one is produced, and while it is still on its way here: for that time there is room for one
    epoch more than is kept.

    Args:
        epochs_kept: at least 1.
    """
    assert epochs_kept >= 1
    newest_first = sorted(held, key=lambda epoch: (epoch.layout.epoch_height, str(epoch.layout.epoch_id)), reverse=True)
    complete_above = 0
    dropped = []
    for epoch in newest_first:
        if complete_above >= epochs_kept:
            dropped.append(epoch.layout)
        complete_above += epoch.is_complete
    return tuple(reversed(dropped))
