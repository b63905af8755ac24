"""Which leases of an epoch still count: a producer's in the claim, a reader's beside the objects. One rule for every observer.

A lease counts until the first of these holds:

- the holder's process is gone for certain: it ran on this very machine since its last boot (producers alone tell);
- its expiry is past by `CLOCK_SKEW_S`;
- the object that it is in was not written for its time to live and `CLOCK_SKEW_S`, by the store's clock, where it has one: a holder
  whose clock is ahead writes an expiry that is far away, but each renewal is a new object;
- the observer has seen it unchanged for all of its time to live by its own monotonic clock, which needs no assumption on clocks.

What can't be read may be a newer version's. It counts as a lease of the longest time to live that was written when it was stored, or
when it was first seen; where the store has no clock, an observer that looks once never sees it end.

No I/O but a look at this machine's processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pipelines.bucket.holder_process import is_gone
from pipelines.stores.store import ObjectInfo
from schemas.published.claim import ProducerLease, format_time

CLOCK_SKEW_S: Final = 300.0
"""How far the clocks of producers, readers, collectors and stores are assumed to differ at most. Long, since a collection that takes
a reader's clock for right deletes what is being read; a producer that waits for longer loses some minutes."""


@dataclass(slots=True)
class LeaseSightings:
    """What one onlooker has seen of others' leases, and for how long each has stayed the same."""

    monotonic: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)

    def unchanged_s(self, key: str, content: str) -> float:
        """Return for how long this content has been seen under a key; a sight of other content begins again."""
        now = self.monotonic()
        known = self._seen.get(key)
        if known is None or known[0] != content:
            self._seen[key] = known = (content, now)
        return now - known[1]


def lease_counts(expires: datetime, ttl_s: float, stored: ObjectInfo, now: datetime, unchanged_s: float = 0.0) -> bool:
    """Return whether a lease that was read counts.

    Args:
        ttl_s: its time to live.
        stored: the object that it is in.
        now: by the observer's clock, with a time zone.
        unchanged_s: for how long the onlooker has seen it as it is.
    """
    return now < expires + timedelta(seconds=CLOCK_SKEW_S) and _is_fresh(ttl_s, stored, now, unchanged_s)


def unreadable_counts(ttl_s_max: float, stored: ObjectInfo, now: datetime, unchanged_s: float = 0.0) -> bool:
    """Return whether what can't be read counts as a lease.

    Args:
        ttl_s_max: the longest time to live that it could have.
    """
    return _is_fresh(ttl_s_max, stored, now, unchanged_s)


def producer_counts(lease: ProducerLease, stored: ObjectInfo, now: datetime, machine: str, sightings: LeaseSightings | None = None) -> bool:
    """Return whether a lease in a claim counts.

    Args:
        machine: the observer's, as `holder_process.this_machine` has it.
        sightings: of an observer that looks repeatedly.
    """
    if is_gone(lease.holder, machine):
        return False
    unchanged_s = 0.0 if sightings is None else sightings.unchanged_s(lease.holder.run_id, format_time(lease.renewed))
    return lease_counts(lease.expires, lease.ttl_s, stored, now, unchanged_s)


def _is_fresh(ttl_s: float, stored: ObjectInfo, now: datetime, unchanged_s: float) -> bool:
    """Return whether an object may have been written within a time to live, by the store's clock and by the observer's."""
    is_stale = stored.modified is not None and now >= stored.modified + timedelta(seconds=ttl_s + CLOCK_SKEW_S)
    return not is_stale and unchanged_s <= ttl_s
