"""Holds an epoch's claim around its production, and ends the production when the claim is lost.

A producer claims first and looks for the catalogue's mark of a deletion after that; a collector marks first and looks for claims after
that. So of the two at least one sees the other, and no part is deleted that a producer counts on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from pipelines.bucket.chain_catalogue import MARK_STALE_S, read_catalogue
from pipelines.bucket.epoch_claim import LEASE_TTL_S, Claimant, HeldClaim, check_ttl, heartbeat
from pipelines.bucket.holder_process import this_holder
from pipelines.bucket.lease_rule import LeaseSightings
from pipelines.execution.progress import Progress
from pipelines.execution.stage_runner import KeepGoing, go_on
from pipelines.stores.open_store import open_store
from schemas.errors import ClaimedError, ManifestError
from schemas.nearcore.epoch_context import EpochContext
from schemas.published.object_layout import EpochLayout


@dataclass(frozen=True, slots=True)
class ClaimTerms:
    """How an epoch is claimed."""

    ttl_s: float = LEASE_TTL_S
    ignore: bool = False
    """Produce also where another producer holds the epoch."""
    sightings: LeaseSightings = field(default_factory=LeaseSightings)
    """What was seen of others' claims; callers that retry keep it between tries."""

    def __post_init__(self) -> None:
        check_ttl(self.ttl_s)


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """Whether a production goes on under its claim: asked between results, and again before its manifest is written."""

    claim: HeldClaim | None
    """None where the run goes on without one."""
    others_keep_going: KeepGoing
    """What else may end the run."""

    def keep_going(self) -> None:
        """See `KeepGoing`: the heartbeat finds a claim lost, and the run ends here.

        Raises:
            ClaimedError: another producer holds the epoch now.
            Exception: what else ends the run.
        """
        if self.claim is not None:
            self.claim.check()
        self.others_keep_going()

    def confirm(self) -> None:
        """Make sure of the claim in the store, before the manifest is written.

        Raises:
            ClaimedError: another producer holds the epoch now.
            StoreError: the store failed.
        """
        if self.claim is not None:
            self.claim.renew()


@contextmanager
def claimed(
    store_url: str, context: EpochContext, terms: ClaimTerms, progress: Progress, keep_going: KeepGoing = go_on
) -> Iterator[ClaimedRun]:
    """Hold the claim of a context's shards for as long as the block runs; see `claimed_shards`."""
    shard_ids = tuple(shard.shard_id for shard in context.shards)
    with claimed_shards(store_url, EpochLayout.of(context), shard_ids, terms, note=progress.note, keep_going=keep_going) as run:
        yield run


@contextmanager
def claimed_shards(
    store_url: str,
    layout: EpochLayout,
    shard_ids: tuple[int, ...],
    terms: ClaimTerms,
    *,
    note: Callable[[str], None],
    keep_going: KeepGoing = go_on,
) -> Iterator[ClaimedRun]:
    """Hold the claim of an epoch's shards for as long as the block runs; yield what says whether the block is to go on.

    Args:
        note: told what was out of the ordinary, in any thread.
        keep_going: what else may end the block.
    Raises:
        ClaimedError: another producer holds one of the shards, and the terms do not ignore it; or the epoch is being deleted.
        StoreError: the store can't be written: seen here, before anything is read.
    """
    claimant = Claimant(
        store=open_store(store_url),
        layout=layout,
        shard_ids=shard_ids,
        holder=this_holder(),
        ttl_s=terms.ttl_s,
        sightings=terms.sightings,
    )
    try:
        held = claimant.acquire()
    except ClaimedError as error:
        if not terms.ignore:
            raise
        note(f"going on all the same: {error.problem}")
        _refuse_leaving(claimant)
        yield ClaimedRun(None, keep_going)
        return
    with heartbeat(held, terms.ttl_s, note):
        _refuse_leaving(claimant)
        yield ClaimedRun(None if terms.ignore else held, keep_going)


def _refuse_leaving(claimant: Claimant) -> None:
    """Leave an epoch alone whose deletion has begun: a part that is found in place may be gone by the time the manifest lists it.

    Raises:
        ClaimedError: a collection has marked it and may be at work.
        StoreError: the catalogue can't be read.
    """
    try:
        catalogue = read_catalogue(claimant.store, claimant.layout.chain_id)
    except ManifestError:
        # A collector rebuilds it for its mark.
        return
    entry = None if catalogue is None else catalogue.find(claimant.layout)
    since = None if entry is None else entry.leaving_since
    if since is not None and claimant.now() - since < timedelta(seconds=MARK_STALE_S):
        raise ClaimedError(
            problem=f"the epoch is being deleted since {since:%Y-%m-%d %H:%M:%S} UTC",
            where=f"{claimant.store.url}/{claimant.layout.folder}",
            remedy=f"Let statecast gc end, and keep more epochs to keep this one. What a killed gc left counts for {MARK_STALE_S} s.",
        )
