"""The claim of an epoch in a store: made, renewed by a heartbeat, taken over when its holder is gone, released.

A claim keeps a second producer from doing the same work at the same time. Nothing rests on it: whatever happens to it, two producers
publish the same bytes and the store decides whose manifest is which revision. On a server that takes no notice of
``If-None-Match`` and ``If-Match``, two producers may both believe that they hold it, and then both produce.

Whose lease no longer counts, `pipelines.bucket.lease_rule` decides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from pipelines.bucket.holder_process import this_holder
from pipelines.bucket.lease_rule import LeaseSightings, producer_counts, unreadable_counts
from pipelines.stores.compare_and_swap import swapped
from pipelines.stores.store import ObjectInfo, Store
from schemas.errors import (
    ClaimedError,
    InvalidInputError,
    ManifestError,
    ObjectExistsError,
    ObjectNotFoundError,
    StatecastError,
    StoreError,
)
from schemas.published.claim import CLAIM_BYTES_MAX, LEASE_TTL_S_MAX, LEASES_MAX, Claim, Holder, ProducerLease, format_time
from schemas.published.object_layout import EpochLayout

LEASE_TTL_S: Final = 600.0
"""How long a lease counts without being renewed, by default."""

LEASE_TTL_S_MIN: Final = 1.0
"""Shortest lease that can be asked for: it must outlast a request to the store."""

HEARTBEATS_PER_TTL: Final = 3
"""A lease is renewed so often within its time to live."""

JOIN_S_MAX: Final = 5.0
"""Longest wait for a heartbeat that is under way when the claim is released, and again for its thread."""

_REMEDY = "Wait for it, or pass --ignore-claim: the result is right either way."


@dataclass(frozen=True, slots=True)
class Claimant:
    """A producer that wants an epoch's claim, and its terms."""

    store: Store
    layout: EpochLayout
    shard_ids: tuple[int, ...]
    holder: Holder
    ttl_s: float = LEASE_TTL_S
    sightings: LeaseSightings = field(default_factory=LeaseSightings)
    """Kept by a waiting producer from one attempt to the next."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    join_s_max: float = JOIN_S_MAX

    def __post_init__(self) -> None:
        check_ttl(self.ttl_s)

    @property
    def where(self) -> str:
        """The claim's place, for people."""
        return f"{self.store.url}/{self.layout.claim}"

    def acquire(self) -> HeldClaim:
        """Take the claim. This is the first write of a production, so a store that refuses writes shows here.

        Raises:
            ClaimedError: another producer holds it.
            StoreError: the store can't be written.
        """
        held = HeldClaim(self, self._moment())
        _held.add(held)
        try:
            held.renew()
        except BaseException:
            # The reply may be lost, and the claim there: it would not be renewed, and a retry is another run.
            held.release()
            raise
        return held

    def _moment(self) -> datetime:
        # Whole milliseconds, as they are stored.
        moment = self.now()
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def leases(self, info: ObjectInfo | None) -> tuple[ProducerLease, ...]:
        """Return the leases that count in the stored claim, ours included.

        Args:
            info: what is stored; None where nothing is.
        Raises:
            ClaimedError: it can't be read, and was not observed for long enough.
            StoreError: the store can't be read.
        """
        if info is None:
            return ()
        try:
            claim = Claim.parse(self.store.get(self.layout.claim, 0, CLAIM_BYTES_MAX + 1), self.where)
        except ObjectNotFoundError:
            return ()
        except ManifestError as error:
            if not unreadable_counts(LEASE_TTL_S_MAX, info, self.now(), self.sightings.unchanged_s(self.layout.claim, info.version)):
                return ()
            raise ClaimedError(
                problem=f"the claim can't be read, so another producer may hold it: {error.problem}",
                where=self.where,
                remedy=f"It is left alone for {LEASE_TTL_S_MAX} s. Delete it, or pass --ignore-claim, if no other producer is at work on this epoch.",
            ) from error
        return tuple(lease for lease in claim.leases if self._counts(lease, info))

    def _counts(self, lease: ProducerLease, info: ObjectInfo) -> bool:
        is_ours = lease.holder.run_id == self.holder.run_id
        return is_ours or producer_counts(lease, info, self.now(), self.holder.machine, self.sightings)


class HeldClaim:
    """A claim that is ours, as far as is known. Its methods may be called from several threads."""

    def __init__(self, claimant: Claimant, acquired: datetime) -> None:
        self._claimant = claimant
        self._acquired = acquired
        self._lost: ClaimedError | None = None
        self._released = False
        self._removed = False
        self._maybe_written = False
        # An interrupt may leave it taken by the thread that releases the claim after all.
        self._lock = threading.RLock()

    def renew(self) -> None:
        """Say in the store that we are at work.

        Raises:
            ClaimedError: another producer holds the claim now.
            StoreError: the store failed.
        """
        with self._lock:
            if self._released:
                return
            try:
                self._renew()
            except ClaimedError as error:
                self._lost = error
                raise

    def check(self) -> None:
        """Raise if the heartbeat found the claim lost; no I/O.

        Raises:
            ClaimedError: another producer holds the claim now.
        """
        if self._lost is not None:
            raise self._lost

    def release(self) -> None:
        """Give the claim up. One that can't be given up expires; so does one whose renewal hangs for longer than ``join_s_max``.

        Where this is interrupted it is called again.
        """
        if not self._lock.acquire(timeout=self._claimant.join_s_max):
            return
        try:
            self._released = True
            if self._maybe_written and not self._removed:
                with suppress(StatecastError):
                    self._remove()
            self._removed = True
            _held.discard(self)
        finally:
            self._lock.release()

    def _renew(self) -> None:
        claimant = self._claimant

        def renewed(info: ObjectInfo | None) -> tuple[bytes, None]:
            others = tuple(lease for lease in claimant.leases(info) if lease.holder.run_id != claimant.holder.run_id)
            taken = next((lease for lease in others if lease.overlaps(claimant.shard_ids)), None)
            if taken is not None:
                raise ClaimedError(
                    problem=f"{taken.holder} holds the epoch until {format_time(taken.expires)}", where=claimant.where, remedy=_REMEDY
                )
            ours = ProducerLease(claimant.holder, claimant.shard_ids, self._acquired, claimant._moment(), round(claimant.ttl_s, 3))
            data = Claim(claimant.layout, (*others, ours)[-LEASES_MAX:]).to_bytes()
            self._maybe_written = True
            return data, None

        try:
            swapped(claimant.store, claimant.layout.claim, renewed)
        except ObjectExistsError as error:
            raise ClaimedError(problem=error.problem, where=claimant.where, remedy=_REMEDY) from error

    def _remove(self) -> None:
        claimant = self._claimant

        def without_ours(info: ObjectInfo | None) -> tuple[bytes | None, None]:
            leases = claimant.leases(info)
            others = tuple(lease for lease in leases if lease.holder.run_id != claimant.holder.run_id)
            if len(others) == len(leases):
                return None, None
            if not others:
                # A producer that adds a lease just now adds it again at its next heartbeat.
                claimant.store.delete(claimant.layout.claim)
                return None, None
            return Claim(claimant.layout, others).to_bytes(), None

        swapped(claimant.store, claimant.layout.claim, without_ours)


_held: set[HeldClaim] = set()
"""The claims of this process that are not given up."""


def release_held_claims() -> None:
    """Give up every claim of this process: where it ends early, and nobody knows how far the owners of claims have come."""
    for held in tuple(_held):
        held.release()


def remove_dead_claim(store: Store, layout: EpochLayout) -> None:
    """Remove a claim in which no lease counts any more: of a producer that was killed between its manifest and its release.

    What can't be removed stays and is harmless.
    """
    with suppress(StatecastError):
        info = store.info(layout.claim)
        if info is not None and not Claimant(store, layout, (), this_holder()).leases(info):
            store.delete(layout.claim)


@contextmanager
def heartbeat(claim: HeldClaim, ttl_s: float, note: Callable[[str], None]) -> Iterator[None]:
    """Renew a claim in a thread of its own for as long as the block runs, then release it.

    Args:
        note: told once when the claim is lost, and each time that a renewal fails.
    """
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(ttl_s / HEARTBEATS_PER_TTL):
            try:
                claim.renew()
            except ClaimedError as error:
                note(f"the claim is lost: {error.problem}")
                return
            except StoreError as error:
                note(f"the claim can't be renewed: {error.problem}")

    thread = threading.Thread(target=beat, name="claim-heartbeat", daemon=True)
    try:
        thread.start()
        yield
    finally:
        stop.set()
        claim.release()
        if thread.ident is not None:
            thread.join(JOIN_S_MAX)


def check_ttl(ttl_s: float) -> None:
    """Refuse a time to live that is too short to be renewed or too long to be waited for.

    Raises:
        InvalidInputError: it is.
    """
    if not LEASE_TTL_S_MIN <= ttl_s <= LEASE_TTL_S_MAX:
        raise InvalidInputError(problem=f"a claim lives from {LEASE_TTL_S_MIN:.0f} to {LEASE_TTL_S_MAX} seconds", where=f"{ttl_s:g} s")
