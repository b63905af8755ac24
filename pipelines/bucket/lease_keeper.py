"""Holds a lease of an epoch while it is read: written, renewed by a heartbeat, removed at the end.

All of it happens in a thread of its own, so that it neither slows nor fails the reading: a store that can't be written is reported once
and left alone, one that hangs is not waited for. A lease that could not be removed ends by itself.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from pipelines.bucket.chain_catalogue import read_catalogue
from pipelines.stores.store import Store
from schemas.errors import ManifestError, StatecastError, StoreDeniedError, TransientStoreError
from schemas.published.lease import LEASE_TTL_S, TEXT_LENGTH_MAX, ReaderLease
from schemas.published.object_layout import EpochLayout

HEARTBEATS_PER_TTL: Final = 3
"""A lease is renewed so often within its time to live."""

RETRY_S: Final = 20.0
"""A lease that could not be written is tried again after this."""

END_WAIT_S: Final = 10.0
"""How long the end of the reading waits for the lease to be removed: a few requests to a slow store, of which one may be on its way."""


class LeaseState(StrEnum):
    """The result of the last attempt to hold an epoch."""

    HELD = "held"
    LEAVING = "leaving"
    """The lease is written, but a deletion had begun before: it may have come too late."""
    GONE = "gone"
    """The epoch is not there, or no more: there is nothing to hold."""
    REFUSED = "refused"
    """The store does not let us write."""
    FAILED = "failed"
    """The store failed; the next heartbeat tries again."""


@dataclass(slots=True)
class EpochLease:
    """One reader's lease of one epoch in one store. Its methods are called by one thread at a time."""

    store: Store
    layout: EpochLayout
    purpose: str
    ttl_s: float = LEASE_TTL_S
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    lease_id: str = field(default_factory=lambda: secrets.token_hex(16))
    problem: str = ""
    """What went wrong last."""
    _written: bool = False

    @property
    def name(self) -> str:
        """The lease's object."""
        return self.layout.lease(self.lease_id)

    def renew(self) -> LeaseState:
        """Write the lease, then look whether it came in time."""
        try:
            # A lease beside nothing would be a folder that must be cleared away.
            if self.store.info(self.layout.manifest) is None:
                self.problem = "the epoch has no manifest there"
                return LeaseState.GONE
            now = self.now().replace(microsecond=0)
            lease = ReaderLease(_this_process(), self.purpose, now, now + timedelta(seconds=self.ttl_s))
            self._put(lease)
            return LeaseState.LEAVING if self._is_leaving() else LeaseState.HELD
        except StatecastError as error:
            self.problem = error.problem
            return LeaseState.FAILED if isinstance(error, TransientStoreError) else LeaseState.REFUSED

    def _put(self, lease: ReaderLease) -> None:
        try:
            self.store.put(self.name, lease.to_bytes())
        except StoreDeniedError:
            raise
        except BaseException:
            # The reply may be lost, and the lease there.
            self._written = True
            raise
        self._written = True

    def release(self) -> None:
        """Remove the lease. One that can't be removed ends by itself."""
        if self._written:
            try:
                self.store.delete(self.name)
            except StatecastError as error:
                self.problem = error.problem

    def _is_leaving(self) -> bool:
        try:
            catalogue = read_catalogue(self.store, self.layout.chain_id)
        except ManifestError:
            return False
        entry = None if catalogue is None else catalogue.find(self.layout)
        return entry is not None and entry.leaving_since is not None


@contextmanager
def held_epoch(
    leases: Sequence[EpochLease], tell: Callable[[EpochLease, LeaseState], None] = lambda *_: None, *, end_wait_s: float = END_WAIT_S
) -> Iterator[None]:
    """Hold an epoch in some stores for as long as the block runs. However it ends, the leases are removed.

    Args:
        tell: called, in another thread, whenever the lease's state changes.
        end_wait_s: how long the end of the block waits for all leases to be removed.
    """
    stop = threading.Event()
    threads = [
        threading.Thread(target=_keep, args=(lease, stop, tell), name=f"lease-{lease.lease_id[:8]}", daemon=True) for lease in leases
    ]
    started: list[threading.Thread] = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
        yield
    finally:
        stop.set()
        try:
            _join(started, end_wait_s)
        except KeyboardInterrupt:
            # At the end of a block that was not interrupted: the leases go anyway.
            _join(started, end_wait_s)
            raise


def _join(threads: Sequence[threading.Thread], wait_s: float) -> None:
    for thread in threads:
        thread.join(wait_s / len(threads))


def _keep(lease: EpochLease, stop: threading.Event, tell: Callable[[EpochLease, LeaseState], None]) -> None:
    last: LeaseState | None = None
    try:
        while not stop.is_set():
            state = lease.renew()
            if state is not last:
                tell(lease, state)
            last = state
            if state in (LeaseState.GONE, LeaseState.REFUSED):
                break
            beat_s = lease.ttl_s / HEARTBEATS_PER_TTL
            stop.wait(min(beat_s, RETRY_S) if state is LeaseState.FAILED else beat_s)
    finally:
        # Also after an unexpected error in this thread: no other knows the lease.
        lease.release()


def _this_process() -> str:
    host = "".join(letter for letter in socket.gethostname() if " " <= letter <= "~")
    return f"process {os.getpid()} on {host}"[:TEXT_LENGTH_MAX]
