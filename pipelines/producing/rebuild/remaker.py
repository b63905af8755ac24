"""Makes lost parts and deltas of a bucket again: out of earlier epochs' parts and deltas there, or of datasets."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

from pipelines.bucket.published_deltas import deltas_in_words, listed_deltas, read_delta_statement
from pipelines.bucket.published_epoch import listed_statement, read_manifest
from pipelines.dataset.delta.shard_records import ShardRecords
from pipelines.execution.stage_runner import StageRunner
from pipelines.fetching.documents import DocumentReader
from pipelines.fetching.epoch_target import StoredObject
from pipelines.fetching.fetch_part import parts_to_fetch
from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.object_source import ObjectStoreSource
from pipelines.fetching.part_rebuilding import RebuildWay, WantedShard
from pipelines.fetching.source_account import open_account
from pipelines.fetching.throttle import Throttle
from pipelines.keeping.remaking import Remade
from pipelines.kernel.trie_kernel import Kernel
from pipelines.producing.deltas.shard_delta import ComparedRecords, ComposedDeltas, ShardDelta, Way
from pipelines.producing.rebuild.base_states import BaseState, published_states
from pipelines.producing.rebuild.fetched_rebuild import BaseRebuilder
from pipelines.producing.rebuild.rebuild_published import published_state, published_steps
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from pipelines.trust.policy import TrustPolicy
from schemas.errors import EpochNotReadyError, IntegrityError, ManifestError, ObjectNotFoundError, StatecastError
from schemas.ids import PartId
from schemas.published.delta_statement import DeltaEnd, DeltaStatement
from schemas.published.manifest import Manifest
from schemas.published.manifest_delta import ManifestDelta
from schemas.published.object_layout import EpochLayout
from schemas.published.shard_statement import ShardStatement

ANYBODY: Final = TrustPolicy(insecure=True)
"""What is made has the digests that the epoch's own statement says, whoever named the ways to it."""

BASES_MAX: Final = 64
"""Most epochs below a damaged one that are looked at as bases."""

WAYS_MAX: Final = 8
"""Most ways that are tried, one after the other: the last delta of one that failed is not taken again."""


@dataclass(frozen=True, slots=True)
class PublishedRemaker:
    """A `pipelines.keeping.remaking.Remaker` over one bucket."""

    runner: StageRunner
    kernel: Kernel
    store_url: str
    scratch: Path
    """A folder of this machine that is removed afterwards."""
    datasets: tuple[BaseState, ...] = ()
    """States that are at hand besides."""

    def remake_parts(self, manifest: Manifest, shard_id: int, lost: Collection[int]) -> Remade:
        """See `Remaker.remake_parts`: by the way of fewest bytes, and by the next one where a part can't be had by that."""
        store, reader = open_store(self.store_url), self._reader()
        statement, listed = self._statement(store, manifest, shard_id), manifest.shard(shard_id)
        assert listed is not None, "its parts are listed"
        parts = tuple(part for part in parts_to_fetch(manifest, listed, statement) if part.part_id.idx in lost)
        states = (*self.datasets, *self._states_below(store, manifest))
        failures: list[str] = []
        deltas = manifest.deltas
        for number in range(WAYS_MAX):
            # Of what is at hand no byte has to be moved first, and no way is too long.
            known = tuple(replace(state, remote_size=0) for state in states)
            rebuilder = BaseRebuilder(store.url, self.runner, self.kernel, ANYBODY, states=known)
            wanted = WantedShard(replace(manifest, deltas=deltas), statement, parts, is_thin=True)
            way, why = rebuilder.find_way(wanted, reader)
            if way is None:
                raise EpochNotReadyError(problem=failures[0] if failures else why, where=manifest.layout.shard_folder(shard_id))
            scratch = self.scratch / f"parts-{manifest.epoch_id}-{shard_id}-{number}"
            try:
                rebuilding = rebuilder.open(wanted, reader, scratch)
                failed = rebuilding.build()
                whole = {
                    idx: StoredObject(store.url, manifest.layout.state_part(shard_id, PartId(idx, listed.num_parts)))
                    for idx in failed
                    if idx not in lost
                }
                if len(whole) < len(failed):
                    raise IntegrityError(problem=f"{len(failed) - len(whole)} lost parts can't be rebuilt by {_described(way)}")
                if rebuilding.finish(whole):
                    return Remade(str(scratch / "rebuilt"), _described(way))
                raise IntegrityError(problem="this machine's zstd would store the parts in other bytes than the publisher's")
            except StatecastError as error:
                failures.append(str(error))
                if not way.steps:
                    states = tuple(state for state in states if state.where != way.base)
                last = way.steps[-1].base_epoch_height if way.steps else None
                deltas = tuple(one for one in deltas if (one.shard_id, one.base_epoch_height) != (shard_id, last))
        raise EpochNotReadyError(problem=failures[0], where=manifest.layout.shard_folder(shard_id))

    def remake_delta(self, manifest: Manifest, listed: ManifestDelta) -> Remade:
        """See `Remaker.remake_delta`: the two states are compared, or two deltas that lead there are composed."""
        store = open_store(self.store_url)
        statement, _ = read_delta_statement(store, manifest.layout, listed)
        into = self.scratch / f"delta-{manifest.epoch_id}-{listed.shard_id}-{listed.base_epoch_id}"
        failures: list[str] = []
        for number, (way, source) in enumerate(self._ways(store, manifest, statement, failures)):
            delta = ShardDelta(
                chain_id=statement.chain_id,
                base=statement.base,
                target=statement.target,
                ranges=statement.base_ranges,
                work_url=str(self.scratch / "work"),
                store_url=str(into / str(number)),
            )
            try:
                made = delta.write(self.runner, way)
            except StatecastError as error:
                failures.append(str(error))
                continue
            if made.objects == statement.objects:
                return Remade(delta.store_url, source)
            failures.append(f"made of {source} it has other bytes")
        problem = "; ".join(failures) or "neither the parts of both epochs nor other deltas are there"
        raise EpochNotReadyError(problem=problem, where=manifest.layout.folder)

    def _ways(self, store: Store, manifest: Manifest, statement: DeltaStatement, failures: list[str]) -> Sequence[tuple[Way, str]]:
        ways: list[tuple[Way, str]] = []
        shard_id, base = statement.shard_id, statement.base
        layout = EpochLayout(manifest.chain_id, base.epoch_height, base.epoch_id)
        try:
            older = self._records(store, layout, base)
            newer = self._records(store, manifest.layout, statement.target)
            ways.append((ComparedRecords(older, newer), f"the records of epochs {base.epoch_height} and {manifest.epoch_height}"))
        except (EpochNotReadyError, IntegrityError, ManifestError, ObjectNotFoundError) as error:
            failures.append(str(error))
        for last in listed_deltas(manifest, shard_id):
            between = EpochLayout(manifest.chain_id, last.base_epoch_height, last.base_epoch_id)
            if last.base_epoch_height <= base.epoch_height:
                continue
            try:
                epochs = [found.manifest for one in (layout, between) if (found := read_manifest(store, one)) is not None]
                steps = tuple(published_steps(store.url, [*epochs, manifest], shard_id)) if len(epochs) == 2 else ()
            except (EpochNotReadyError, ManifestError, ObjectNotFoundError):
                continue
            if steps:
                ways.append((ComposedDeltas(steps), f"the deltas over epoch {between.epoch_height}"))
        return ways

    def _records(self, store: Store, layout: EpochLayout, end: DeltaEnd) -> ShardRecords:
        """Return the records of a state: of a dataset, of its parts, or of an earlier epoch's and deltas."""
        for state in self.datasets:
            if state.end == end:
                return state.records
        stored = read_manifest(store, layout)
        if stored is None:
            raise EpochNotReadyError(problem=f"epoch {layout.epoch_height} is not there any more", where=layout.manifest)
        return published_state(store, stored.manifest, end.shard_uid.shard_id, self.kernel.name)

    def _states_below(self, store: Store, manifest: Manifest) -> list[BaseState]:
        """Return the states of epochs that deltas lead from, over whatever epochs between, of which some part is there."""
        waiting, seen = deque([manifest]), {manifest.layout}
        while waiting and len(seen) <= BASES_MAX:
            epoch = waiting.popleft()
            for one in epoch.deltas:
                layout = EpochLayout(epoch.chain_id, one.base_epoch_height, one.base_epoch_id)
                if layout in seen or layout.epoch_height >= epoch.epoch_height:
                    continue
                seen.add(layout)
                try:
                    stored = read_manifest(store, layout)
                except ManifestError:
                    continue
                if stored is not None:
                    waiting.append(stored.manifest)
        bases = sorted(seen - {manifest.layout}, key=lambda one: -one.epoch_height)
        found = published_states(store, bases, self.kernel.name)
        return [state for state in found if any(True for _ in store.list(state.where.removeprefix(f"{store.url}/")))]

    def _statement(self, store: Store, manifest: Manifest, shard_id: int) -> ShardStatement:
        listed = manifest.shard(shard_id)
        found = None if listed is None else listed_statement(store, manifest.layout, listed)
        if found is None:
            raise ManifestError(problem="the shard's statement is missing or wrong", where=manifest.layout.shard_statement(shard_id))
        return found[0]

    def _reader(self) -> DocumentReader:
        """Return what reads the bucket's deltas; another reader's faults are none of its."""
        source, limits = ObjectStoreSource(open_store(self.store_url, retry=None), Throttle([])), FetchLimits()
        return DocumentReader([source], {source.source_id: open_account(source.source_id, source.traits, limits)}, limits, Random())


def _described(way: RebuildWay) -> str:
    return f"{way.base} and {deltas_in_words(len(way.steps))}" if way.steps else way.base
