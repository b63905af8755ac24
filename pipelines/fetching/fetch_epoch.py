"""Drives a fetch: what to believe, what is here, what is missing, and last the manifest's final name. Also says what it would do.

What was accepted is remembered in the folder before the first part is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from random import Random

from pipelines.bittorrent.library import import_libtorrent
from pipelines.bittorrent.published_torrent import TORRENT_BYTES_MAX, read_torrent
from pipelines.bittorrent.torrents import recompose_torrent
from pipelines.bucket.lease_keeper import EpochLease, LeaseState, held_epoch
from pipelines.bucket.published_deltas import judged_delta_statement
from pipelines.fetching.believed_epoch import BelievedEpoch, BelievedShard, EpochBeliever, FetchSources
from pipelines.fetching.epoch_location import parse_epoch_url
from pipelines.fetching.epoch_target import EpochTarget
from pipelines.fetching.fetch_folder import FetchFolder
from pipelines.fetching.fetch_part import FetchPart
from pipelines.fetching.fetch_progress import FetchWatcher
from pipelines.fetching.fetch_result import (
    FetchPlan,
    FetchResult,
    FetchShard,
    PlannedSource,
    SourceReport,
    report_source,
)
from pipelines.fetching.fetch_settings import FetchSettings
from pipelines.fetching.near_peer_source import near_peer_settings, open_near_sources
from pipelines.fetching.part_fetch import PartFetch
from pipelines.fetching.part_rebuilding import RebuildWay, WantedShard
from pipelines.fetching.past_revision import judge_past_revision
from pipelines.fetching.preference import priority_score
from pipelines.fetching.source import Cancellation, EpochOnOffer
from pipelines.fetching.source_from_url import TORRENT, unique_urls
from pipelines.fetching.throttle import Throttle
from pipelines.fetching.verifier import Verifier
from pipelines.stores.open_store import open_store
from pipelines.stores.pace import Pace
from pipelines.stores.read_only import is_written
from schemas.errors import (
    EpochNotReadyError,
    FetchError,
    IntegrityError,
    InvalidInputError,
    ManifestError,
    ObjectNotFoundError,
    SourceError,
)
from schemas.published.catalogue import CATALOGUE_BYTES_MAX, Catalogue
from schemas.published.dsse import ENVELOPE_BYTES_MAX, parse_envelope
from schemas.published.latest_pointer import LatestPointer
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import EpochLayout, catalogue_name


@dataclass(slots=True)
class EpochFetch:
    """One fetch of one epoch."""

    settings: FetchSettings
    watcher: FetchWatcher
    random: Random = field(default_factory=Random)
    target: EpochTarget | None = None
    """Where the epoch goes; None for the folder that the settings name."""
    _sources: FetchSources = field(init=False)

    def __post_init__(self) -> None:
        self._sources = FetchSources(self.settings, self.watcher, self.random)

    def plan(self) -> FetchPlan:
        """Say what would be fetched from where. Reads documents and what is here, writes nothing.

        Raises:
            As `run`.
        """
        target = self._target()
        try:
            located = self._sources.open()
            epoch = next(EpochBeliever(self.settings, self._sources, target).believed(located))
            target.look(epoch)
            return self._planned(epoch, target)
        finally:
            self._sources.close()

    def run(self) -> FetchResult:
        """Fetch, verify and put in place.

        Raises:
            ManifestError: the trust policy does not hold; its subclasses say why.
            EpochNotReadyError: no source has the epoch, or its publisher lacks parts of it.
            FetchError: no source could give some object; what could be had is in place.
            IntegrityError: a publisher's part is no part of its state root.
            ClaimedError, StoreError: the target is in use, or can't be written.
            InvalidInputError: what is wanted is not said, or not there.
        """
        began_s = time.monotonic()
        target = self._target()
        with ExitStack() as stack:
            stack.callback(self._sources.close)
            located = self._sources.open()
            stack.enter_context(target.opened())
            failure: FetchError | IntegrityError | None = None
            tried: set[str] = set()
            for epoch in EpochBeliever(self.settings, self._sources, target).believed(located):
                if failure is not None:
                    # No proof covers stored bytes, so that only now it shows whether a manifest says them right.
                    self._sources.warn(
                        f"what the manifest before lists can't be had: {failure}; that of {epoch.manifest.source_id} is followed"
                    )
                is_latest = located.layout is None and self.settings.epoch == "latest"
                try:
                    shards = self._bring(epoch, target, is_latest=is_latest, keep_others=failure is not None)
                except (FetchError, IntegrityError) as error:
                    failure = failure or error
                    tried |= {part.object_name for part in epoch.parts}
                else:
                    for name in sorted(tried - {part.object_name for part in epoch.parts}):
                        target.remove(name)
                    return self._result(epoch, shards, seconds=time.monotonic() - began_s)
            assert failure is not None, "where nothing holds, an error says so"
            raise failure

    def _target(self) -> EpochTarget:
        return FetchFolder(self.settings.into) if self.target is None else self.target

    def _bring(self, epoch: BelievedEpoch, target: EpochTarget, *, is_latest: bool, keep_others: bool) -> tuple[FetchShard, ...]:
        """Put all of an epoch in place; the manifest and the pointer last.

        Args:
            keep_others: as in `PartFetch.reuse`.
        """
        if target.look(epoch):
            shards = tuple(FetchShard.of(shard, {part.object_name for part in shard.parts}) for shard in epoch.shards)
            if epoch.manifest.signers:
                target.remember(epoch.accepted)
            target.point_at(epoch, lambda there: self._is_newer(there, epoch, is_latest=is_latest), self._sources.warn)
            return shards
        with ExitStack() as stack:
            stack.enter_context(self._held(epoch.layout))
            stack.enter_context(target.entered(epoch))
            if epoch.manifest.signers:
                target.remember(epoch.accepted)
            for shard in epoch.shards:
                target.write(epoch.layout.shard_statement(shard.shard_id), shard.statement.envelope.to_bytes())
                if shard.header is not None:
                    target.write(epoch.layout.state_header(shard.shard_id), shard.header)
            self._bring_deltas(epoch, target)
            verifier = Verifier(min(self.settings.verify_workers, max(len(epoch.parts), 1)), in_threads=self.settings.verify_in_threads)
            stack.callback(verifier.close)
            shards = self._fetch_parts(epoch, target, verifier, keep_others=keep_others)
            self._bring_torrents(epoch, target)
            self._bring_tables_statement(epoch, target)
            self._bring_revisions(epoch, target)
            target.publish(epoch)
            target.point_at(epoch, lambda there: self._is_newer(there, epoch, is_latest=is_latest), self._sources.warn)
            return shards

    @contextmanager
    def _held(self, layout: EpochLayout) -> Iterator[None]:
        """Hold leases of the epoch in the stores that were named; whatever becomes of them, the fetch goes on."""
        told: list[tuple[str, LeaseState, str]] = []

        def tell(lease: EpochLease, state: LeaseState) -> None:
            told.append((lease.store.url, state, lease.problem))

        leases = []
        for url in self._store_urls() if self.settings.hold_lease else ():
            with suppress(InvalidInputError):
                leases.append(EpochLease(open_store(url), layout, "fetch"))
        try:
            with held_epoch(leases, tell, end_wait_s=self.settings.limits.lease_end_wait_s):
                yield
        finally:
            # Told here, since a watcher hears of one thing at a time.
            for source, state, problem in told:
                self.watcher.event("lease", {"source": source, "state": str(state), "problem": problem})
                if state is LeaseState.LEAVING:
                    self._sources.warn(f"{source} is deleting this epoch: the lease may have come too late")

    def _store_urls(self) -> list[str]:
        urls = [self.settings.url, *(url for url in self.settings.source_urls if url != TORRENT)]
        return unique_urls(parse_epoch_url(url).root for url in urls if is_written(url))

    def source_reports(self) -> tuple[SourceReport, ...]:
        """Return what came from each source so far; also after an error."""
        return tuple(report_source(account) for account in self._sources.accounts.values())

    def _fetch_parts(self, epoch: BelievedEpoch, target: EpochTarget, verifier: Verifier, *, keep_others: bool) -> tuple[FetchShard, ...]:
        settings, sources = self.settings, self._sources
        fetch = PartFetch(
            target, sources.sources, sources.accounts, verifier, settings.kernel_name, settings.limits, self.random, self.watcher
        )
        reused = fetch.reuse(epoch.parts, keep_others=keep_others)
        if reused:
            self.watcher.event("reused", {"parts": len(reused), "bytes": sum(part.size for part in reused)})
        here = {part.object_name for part in reused}
        missing = [part for part in epoch.parts if part.object_name not in here]
        if missing and (TORRENT in settings.source_urls or settings.near_peers):
            shard_ids = tuple(sorted({part.shard_id for part in missing}))
            manifest = epoch.manifest.manifest
            web_seeds = sources.web_addresses(epoch.manifest, manifest.web_seeds)
            trackers = sources.web_addresses(epoch.manifest, manifest.trackers)
            offer = EpochOnOffer(epoch.layout, manifest, shard_ids, target.scratch, self._torrent_reader(epoch), web_seeds, trackers)
            if TORRENT in settings.source_urls:
                assert settings.open_torrent is not None
                sources.add(settings.open_torrent(offer))
            wanted = {part.object_name: part for part in missing}
            if settings.near_peers:
                rate = settings.limits.requests_per_s_per_source
                asking = near_peer_settings(epoch.layout.chain_id, rate, settings.near_listening)
                for source in open_near_sources(settings.near_peers, offer, wanted, asking):
                    sources.add(source)
        done = _Rebuilt(reused)
        for shard, way in self._ways(epoch, missing):
            self._rebuild(shard, way, target, fetch, done)
        try:
            fetch.run(done.left_of(missing), done.parts)
        except FetchError as error:
            if settings.rebuilder is None:
                if self._is_thin(epoch, missing):
                    remedy = "Its parts are kept as deltas alone: give --base, an earlier epoch or the bucket itself."
                    raise error.at(error.where, remedy) from None
                raise
            # What no source has whole is rebuilt whatever that costs, also where no catalogue has said so.
            done.fetched += fetch.reuse(done.left_of(missing), keep_others=keep_others)
            ways = list(self._ways(epoch, done.left_of(missing), at_any_cost=True))
            if not ways:
                raise
            self._sources.warn(f"not all parts can be had whole, and are rebuilt: {error.problem}")
            for shard, way in ways:
                self._rebuild(shard, way, target, fetch, done)
            fetch.run(done.left_of(missing), done.parts)
        made = {part.object_name for part in done.rebuilt}
        return tuple(FetchShard.of(shard, here, made, done.ways.get(shard.shard_id)) for shard in epoch.shards)

    def _is_thin(self, epoch: BelievedEpoch, missing: Sequence[FetchPart]) -> bool:
        """Tell whether an epoch's parts are only had by deltas: the sources' catalogue says so, which nobody signs, and no source has the smallest."""
        layout = epoch.layout
        name = catalogue_name(layout.chain_id)
        try:
            _, catalogue = self._sources.reader.read_judged(
                name, CATALOGUE_BYTES_MAX, lambda data: Catalogue.parse(data, name), is_needed=False
            )
        except FetchError:
            return False
        entry = catalogue.find(layout)
        if entry is None or not entry.steps or not missing:
            return False
        smallest = min(missing, key=lambda part: part.size)
        try:
            self._sources.reader.read_verified(smallest.object_name, smallest.size, smallest.sha256)
        except FetchError:
            return True
        return False

    def _ways(
        self, epoch: BelievedEpoch, missing: Sequence[FetchPart], *, at_any_cost: bool = False
    ) -> Iterator[tuple[WantedShard, RebuildWay]]:
        """Yield the shards whose missing parts are had for fewer bytes by rebuilding them; or at any cost, where they can't be had else."""
        rebuilder = self.settings.rebuilder
        is_thin = at_any_cost or (rebuilder is not None and self._is_thin(epoch, missing))
        for shard in epoch.shards if rebuilder is not None else ():
            parts = tuple(part for part in missing if part.shard_id == shard.shard_id)
            if not parts:
                continue
            wanted = WantedShard(epoch.manifest.manifest, shard.statement.statement, parts, is_thin)
            assert rebuilder is not None
            way, problem = rebuilder.find_way(wanted, self._sources.reader)
            if way is not None:
                yield wanted, way
            elif problem:
                self._sources.warn(problem)

    def _rebuild(self, wanted: WantedShard, way: RebuildWay, target: EpochTarget, fetch: PartFetch, done: _Rebuilt) -> None:
        """Rebuild a shard's missing parts by the first way that leads there."""
        other: RebuildWay | None = way
        while other is not None and not self._rebuild_by(other, wanted, target, fetch, done):
            assert self.settings.rebuilder is not None, "who knows ways"
            other = self.settings.rebuilder.find_other_way(wanted, self._sources.reader)

    def _rebuild_by(self, way: RebuildWay, wanted: WantedShard, target: EpochTarget, fetch: PartFetch, done: _Rebuilt) -> bool:
        """Rebuild a shard's missing parts, and fetch whole those that can't be; where nothing can, a warning says why.

        Args:
            done: takes up what is in place then.
        Returns:
            Whether the way led there.
        """
        assert self.settings.rebuilder is not None, "who knows ways"
        shard_id = wanted.statement.shard_id
        by_id = {part.part_id.idx: part for part in wanted.missing}
        of_shard = {part.part_id.idx: part for part in (*done.parts, *wanted.missing) if part.shard_id == shard_id}
        try:
            rebuilding = self.settings.rebuilder.open(wanted, self._sources.reader, target.scratch)
            failed = rebuilding.build()
            in_place = {part.object_name for part in done.fetched}
            whole = [by_id[idx] for idx in failed if idx in by_id and by_id[idx].object_name not in in_place]
            if whole:
                fetch.run(whole, done.parts)
                done.fetched += whole
            files = rebuilding.finish({idx: target.placed(of_shard[idx]) for idx in failed})
        except (
            FetchError,
            IntegrityError,
            ManifestError,
            EpochNotReadyError,
            SourceError,
            InvalidInputError,
            ObjectNotFoundError,
        ) as error:
            self._sources.warn(f"shard {shard_id} can't be rebuilt, and its parts are fetched whole: {error}")
            return False
        landed: SimpleQueue[BaseException | None] = SimpleQueue()
        for idx, path in files.items():
            target.land_part(path, by_id[idx], landed.put)
        for _ in files:
            problem = landed.get()
            if problem is not None:
                raise problem
        made = [by_id[idx] for idx in sorted(files)]
        done.rebuilt += made
        done.ways[shard_id] = way
        facts = {"parts": len(made), "bytes": sum(part.size for part in made), "delta_bytes": way.size}
        self.watcher.event("rebuilt", {"shard_id": shard_id, **facts})
        return True

    def _bring_torrents(self, epoch: BelievedEpoch, target: EpochTarget) -> None:
        """Also put the shards' torrents in place, so that they can be seeded; parts do not need them, so a fault is a warning."""
        manifest = epoch.manifest.manifest
        for shard in epoch.shards:
            name = epoch.layout.torrent(shard.shard_id)
            if shard.listed.torrent is None:
                continue

            def judge(data: bytes, listed: ManifestShard = shard.listed, name: str = name) -> bytes:
                # Another publisher's torrent has web seeds and trackers of its own, which no info hash covers.
                return recompose_torrent(read_torrent(data, listed, name), manifest.web_seeds, manifest.trackers)

            try:
                import_libtorrent()
                data = self._sources.reader.read_judged(name, TORRENT_BYTES_MAX, judge, is_needed=False)[1]
            except InvalidInputError:
                self._sources.warn("torrents are left out: libtorrent, which would check them, is not installed (extra p2p)")
                return
            except FetchError as error:
                self._sources.warn(f"the torrent of shard {shard.shard_id} is left out: {error.problem}")
            else:
                target.write(name, data)

    def _torrent_reader(self, epoch: BelievedEpoch) -> Callable[[str, int], bytes]:
        """Return what reads a torrent file from the first source that has the one that the manifest names."""
        listed_by_name = {epoch.layout.torrent(shard.shard_id): shard.listed for shard in epoch.shards}

        def read(name: str, bytes_max: int) -> bytes:
            def judge(data: bytes) -> bytes:
                read_torrent(data, listed_by_name[name], name)
                return data

            return self._sources.reader.read_judged(name, bytes_max, judge, is_needed=False)[1]

        return read

    def _bring_deltas(self, epoch: BelievedEpoch, target: EpochTarget) -> None:
        """Put deltas in place, where the target keeps them, each one's statement last; an epoch is whole without them, so a fault is a warning."""
        layout, reader, limit = epoch.layout, self._sources.reader, self.settings.limits.bytes_per_s
        throttle = Throttle([] if limit is None else [Pace(limit)])
        for listed in target.missing_deltas(epoch):
            name = layout.delta_statement(listed.base_epoch_id, listed.shard_id)
            try:
                _, (statement, envelope) = reader.read_judged(
                    name,
                    ENVELOPE_BYTES_MAX,
                    lambda data, listed=listed, name=name: judged_delta_statement(data, layout, listed, name),  # type: ignore[misc]
                    is_needed=False,
                )
                for index, one in enumerate(statement.objects):
                    object_name = layout.delta(listed.base_epoch_id, listed.shard_id, index)
                    if target.held(object_name, one.size, one.sha256) is not None:
                        continue
                    throttle.wait_for(one.size, Cancellation())
                    found = reader.read_verified(object_name, one.size, one.sha256)
                    for source_id, problem in found.other_bytes.items():
                        self._sources.accounts[source_id].ban(problem)
                    target.write(object_name, found.data)
            except FetchError as error:
                self._sources.warn(
                    f"the delta of shard {listed.shard_id} from epoch {listed.base_epoch_height} is left out: {error.problem} {error.where}"
                )
            else:
                target.write(name, envelope.to_bytes())
                facts = {"shard_id": listed.shard_id, "base_epoch_height": listed.base_epoch_height}
                self.watcher.event("delta", {**facts, "objects": listed.objects, "bytes": listed.size})

    def _bring_tables_statement(self, epoch: BelievedEpoch, target: EpochTarget) -> None:
        """Put the statement of the epoch's tables in place, where the target keeps it; the tables stay where they are. A fault is a warning."""
        named = epoch.manifest.manifest.tables
        if named is None or not target.lacks_tables_statement(epoch):
            return
        name = epoch.layout.tables_statement

        def judge(data: bytes) -> bytes:
            if parse_envelope(data, name).payload_sha256 != named.statement_sha256:
                raise ManifestError(problem="it is not the tables statement that the manifest names by its sha256", where=name)
            return data

        try:
            _, data = self._sources.reader.read_judged(name, ENVELOPE_BYTES_MAX, judge, is_needed=False)
        except FetchError as error:
            self._sources.warn(f"the statement of the epoch's tables is left out: {error.problem}")
        else:
            target.write(name, data)

    def _bring_revisions(self, epoch: BelievedEpoch, target: EpochTarget) -> None:
        """Put earlier revisions of the manifest in place, where the target keeps them; nothing rests on them, so a fault is a warning."""
        policy, reader = self.settings.policy, self._sources.reader
        for revision in target.missing_revisions(epoch):
            name = epoch.layout.manifest_revision(revision)
            try:
                _, data = reader.read_judged(
                    name,
                    ENVELOPE_BYTES_MAX,
                    lambda data, revision=revision: judge_past_revision(policy, data, epoch.layout, revision),  # type: ignore[misc]
                    is_needed=False,
                )
            except FetchError as error:
                self._sources.warn(f"revision {revision} of the manifest is left out: {error.problem}")
            else:
                target.write(name, data)

    def _is_newer(self, there: LatestPointer, epoch: BelievedEpoch, *, is_latest: bool) -> bool:
        """Tell whether a pointer is to stay where it is: one at a newer epoch, where this epoch was asked for by name, or a pinned key has signed as new a one.

        An epoch height that nobody signed must not keep it from ever moving again.
        """
        if there.epoch_id == epoch.layout.epoch_id or there.epoch_height < epoch.layout.epoch_height:
            return False
        keys = self.settings.policy.keys
        newest = None if keys is None else epoch.accepted.newest_epoch_height(keys.keys)
        return not is_latest or (newest is not None and newest >= there.epoch_height)

    def _planned(self, epoch: BelievedEpoch, target: EpochTarget) -> FetchPlan:
        here = {part.object_name for part in epoch.parts if target.has(part)}
        first_asked: dict[str, list[int]] = {source.source_id: [] for source in self._sources.sources}
        if TORRENT in self.settings.source_urls:
            first_asked[TORRENT] = []
        missing = [part for part in epoch.parts if part.object_name not in here]
        ways = {wanted.statement.shard_id: way for wanted, way in self._ways(epoch, missing)}
        for part in missing:
            if part.shard_id not in ways:
                scores = {source_id: priority_score(source_id, part.shard_id, part.part_id.idx) for source_id in first_asked}
                first_asked[min(scores, key=lambda source_id: scores[source_id])].append(part.size)
        return FetchPlan(
            layout=epoch.layout,
            revision=epoch.manifest.manifest.revision,
            shards=tuple(_planned_shard(shard, here, ways.get(shard.shard_id)) for shard in epoch.shards),
            sources=tuple(PlannedSource(source_id, len(sizes), sum(sizes)) for source_id, sizes in first_asked.items()),
            warnings=tuple(self._sources.warnings),
        )

    def _result(self, epoch: BelievedEpoch, shards: tuple[FetchShard, ...], *, seconds: float) -> FetchResult:
        manifest = epoch.manifest
        return FetchResult(
            layout=epoch.layout,
            revision=manifest.manifest.revision,
            manifest_source=manifest.source_id,
            manifest_signers=tuple(map(str, manifest.signers)),
            sync_hash_is_proven=manifest.blocks is not None and manifest.blocks.sync_hash_is_proven,
            tied_to_chain=manifest.blocks is not None,
            shards=shards,
            sources=self.source_reports(),
            warnings=tuple(self._sources.warnings),
            seconds=seconds,
        )


@dataclass(slots=True)
class _Rebuilt:
    """What is in place while shards are rebuilt."""

    reused: Sequence[FetchPart]
    """What was here before."""
    rebuilt: list[FetchPart] = field(default_factory=list)
    fetched: list[FetchPart] = field(default_factory=list)
    """Whole, in place of parts that could not be rebuilt."""
    ways: dict[int, RebuildWay] = field(default_factory=dict)
    """Of each shard that was rebuilt, by shard id."""

    @property
    def parts(self) -> list[FetchPart]:
        """All that is in place."""
        return [*self.reused, *self.rebuilt, *self.fetched]

    def left_of(self, parts: Sequence[FetchPart]) -> list[FetchPart]:
        """Return those of some parts that are not in place."""
        in_place = {part.object_name for part in self.parts}
        return [part for part in parts if part.object_name not in in_place]


def _planned_shard(shard: BelievedShard, here: set[str], way: RebuildWay | None) -> FetchShard:
    rebuilt = {part.object_name for part in shard.parts if part.object_name not in here} if way is not None else set()
    return FetchShard.of(shard, here, rebuilt, way)
