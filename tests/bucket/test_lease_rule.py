"""Which leases count: producers and collectors give the same answer, at the same moment."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from pipelines.bucket.epoch_claim import Claimant
from pipelines.bucket.holder_process import this_holder, this_machine
from pipelines.bucket.holders import find_holders
from pipelines.bucket.lease_rule import CLOCK_SKEW_S, LeaseSightings, lease_counts, producer_counts, unreadable_counts
from pipelines.stores.memory_store import MemoryStore
from pipelines.stores.store import ObjectInfo
from schemas.errors import ClaimedError
from schemas.ids import CryptoHash
from schemas.published.claim import LEASE_TTL_S_MAX, Holder, ProducerLease
from schemas.published.object_layout import EpochLayout

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TTL_S = 60.0
LAYOUT = EpochLayout("testnet", 7, CryptoHash(bytes(range(32))))
_stores = itertools.count(1)


@dataclass(frozen=True)
class StoreWithClock(MemoryStore):
    """A store that says when its objects were stored, once it is set."""

    times: list[datetime] = field(default_factory=list)

    def info(self, name: str) -> ObjectInfo | None:
        """Return what is known of an object."""
        found = MemoryStore.info(self, name)
        return None if found is None else replace(found, modified=self.times[-1] if self.times else None)


@pytest.fixture
def store() -> StoreWithClock:
    """A store of its own."""
    return StoreWithClock(f"lease-rule-{next(_stores)}")


def stored(after_s: float | None) -> ObjectInfo:
    """Return an object that was stored so long before now; None for a store without a clock."""
    return ObjectInfo("name", 1, "version", None if after_s is None else NOW - timedelta(seconds=after_s))


@pytest.mark.parametrize(
    ("expired_s", "stored_s", "unchanged_s", "counts"),
    [
        (-TTL_S, 0.0, 0.0, True),
        (CLOCK_SKEW_S - 0.001, None, 0.0, True),
        (CLOCK_SKEW_S, None, 0.0, False),
        # A holder whose clock is ahead.
        (-1e7, TTL_S + CLOCK_SKEW_S - 0.001, 0.0, True),
        (-1e7, TTL_S + CLOCK_SKEW_S, 0.0, False),
        (-1e7, None, TTL_S, True),
        (-1e7, None, TTL_S + 0.001, False),
    ],
)
def test_a_lease_counts_until_the_first_clock_says_otherwise(
    expired_s: float, stored_s: float | None, unchanged_s: float, counts: bool
) -> None:
    """Its expiry by our clock, its object by the store's, its renewals by a monotonic one."""
    assert lease_counts(NOW - timedelta(seconds=expired_s), TTL_S, stored(stored_s), NOW, unchanged_s) is counts


def test_what_cannot_be_read_counts_for_the_longest_time_to_live() -> None:
    """From when it was stored, or was first seen; without end to an observer that sees neither."""
    assert unreadable_counts(TTL_S, stored(TTL_S + CLOCK_SKEW_S - 1), NOW)
    assert not unreadable_counts(TTL_S, stored(TTL_S + CLOCK_SKEW_S), NOW)
    assert unreadable_counts(TTL_S, stored(None), NOW)
    assert not unreadable_counts(TTL_S, stored(None), NOW, TTL_S + 1)


def test_a_process_that_is_gone_holds_nothing(store: StoreWithClock) -> None:
    """Neither for a producer nor for a collector of its machine, however long its lease has left."""
    ours = this_holder()
    dead = replace(ours, started=ours.started - 1)
    lease = ProducerLease(dead, (0,), NOW, NOW, TTL_S)
    assert not producer_counts(lease, stored(0.0), NOW, this_machine())
    assert producer_counts(lease, stored(0.0), NOW, "another")
    Claimant(store, LAYOUT, (0,), dead, TTL_S, now=lambda: NOW).acquire()
    assert not find_holders(store, LAYOUT, NOW).live
    Claimant(store, LAYOUT, (0,), ours, TTL_S, now=lambda: NOW).acquire()
    assert find_holders(store, LAYOUT, NOW).live


@pytest.mark.parametrize("has_clock", [False, True])
@pytest.mark.parametrize("readable", [False, True])
def test_producers_and_collectors_agree(store: StoreWithClock, readable: bool, has_clock: bool) -> None:
    """At every moment an epoch is either held for both or free for both."""
    if readable:
        Claimant(store, LAYOUT, (0,), Holder("elsewhere", 4711, "ab" * 16), TTL_S, now=lambda: NOW).acquire()
    else:
        store.put(LAYOUT.claim, b"from the future")
    store.times.extend([NOW] if has_clock else [])
    ttl_s = TTL_S if readable else float(LEASE_TTL_S_MAX)
    answers = []
    for after_s in (0.0, ttl_s, ttl_s + CLOCK_SKEW_S - 1, ttl_s + CLOCK_SKEW_S, 10 * ttl_s):
        now = NOW + timedelta(seconds=after_s)
        onlooker = Claimant(store, LAYOUT, (0,), Holder("here", 1, "cd" * 16), TTL_S, LeaseSightings(lambda: 0.0), lambda now=now: now)  # type: ignore[misc]
        try:
            is_held = bool(onlooker.leases(store.info(LAYOUT.claim)))
        except ClaimedError:
            is_held = True
        assert is_held is bool(find_holders(store, LAYOUT, now).live), after_s
        answers.append(is_held)
    assert answers == [True, True, True, not (readable or has_clock), not (readable or has_clock)]
