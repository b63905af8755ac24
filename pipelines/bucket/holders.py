"""The holders of an epoch in a store: readers by their leases, producers by the claim.

Which of them count, `pipelines.bucket.lease_rule` decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pipelines.bucket.holder_process import this_machine
from pipelines.bucket.lease_rule import lease_counts, producer_counts, unreadable_counts
from pipelines.stores.store import ObjectInfo, Store
from schemas.errors import InvalidInputError, ManifestError, ObjectNotFoundError
from schemas.published.claim import CLAIM_BYTES_MAX, LEASE_TTL_S_MAX, Claim
from schemas.published.lease import LEASE_BYTES_MAX, LEASE_TTL_MAX_S, ReaderLease
from schemas.published.object_layout import EpochLayout, ObjectKind, parse_object_name

LITTER_AFTER_S: Final = 86_400
"""A lease that ended so long ago is stale: it may be deleted without a race with its renewal."""


@dataclass(frozen=True, slots=True)
class Holders:
    """An epoch's holders, and what earlier holders left."""

    live: tuple[str, ...]
    """In words, for people."""
    litter: tuple[str, ...] = ()
    """Names of leases that ended long ago."""

    @property
    def description(self) -> str:
        """The first holders in words; empty for none."""
        more = f" and {len(self.live) - 2} more" if len(self.live) > 2 else ""
        return ", ".join(self.live[:2]) + more


def find_holders(store: Store, layout: EpochLayout, now: datetime) -> Holders:
    """List and read an epoch's leases and its claim.

    Raises:
        StoreError: the store can't be read.
    """
    # A folder is listed, so that the store's clock comes with it; the claim lies in the epoch's own folder, among the parts.
    claim = store.info(layout.claim)
    infos = [*store.list(layout.leases_folder), *([] if claim is None else [claim])]
    return judge_holders(store, infos, now)


def judge_holders(store: Store, infos: Iterable[ObjectInfo], now: datetime) -> Holders:
    """Read leases and claims among listed objects; the others are skipped.

    Raises:
        StoreError: the store can't be read.
    """
    live: list[str] = []
    litter: list[str] = []
    for info in infos:
        parsed = parse_object_name(info.name)
        kind = None if parsed is None else parsed.kind
        if kind not in (ObjectKind.LEASE, ObjectKind.CLAIM):
            continue
        try:
            if kind is ObjectKind.CLAIM:
                live += _live_producers(store, info, now)
                continue
            lease = ReaderLease.parse(store.get(info.name, 0, LEASE_BYTES_MAX + 1), f"{store.url}/{info.name}")
        except ObjectNotFoundError:
            continue
        except (ManifestError, InvalidInputError):
            if unreadable_counts(LEASE_TTL_S_MAX if kind is ObjectKind.CLAIM else LEASE_TTL_MAX_S, info, now):
                live.append(f"a {kind} that can't be read ({info.name.rpartition('/')[2]})")
            elif kind is ObjectKind.LEASE:
                litter.append(info.name)
            continue
        if lease_counts(lease.expires, (lease.expires - lease.renewed).total_seconds(), info, now):
            live.append(f"a {lease.purpose} of {lease.holder}")
        elif now - lease.expires > timedelta(seconds=LITTER_AFTER_S):
            litter.append(info.name)
    return Holders(tuple(live), tuple(litter))


def _live_producers(store: Store, info: ObjectInfo, now: datetime) -> list[str]:
    claim = Claim.parse(store.get(info.name, 0, CLAIM_BYTES_MAX + 1), f"{store.url}/{info.name}")
    machine = this_machine()
    return [str(lease.holder) for lease in claim.leases if producer_counts(lease, info, now, machine)]
