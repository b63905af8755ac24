"""Drives the making of an epoch's deltas: after it is published, out of whatever is at hand, shard by shard.

The cheapest way comes first: the two tries where a node still has both, then datasets, and published parts for what has none. A shard
without a way is left out and said so; the epoch is published all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipelines.bucket.published_deltas import listed_deltas, read_delta_statement
from pipelines.bucket.published_epoch import read_manifest, read_statement
from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.delta.shard_records import RecordsInDataset, ShardRecords
from pipelines.dataset.delta.stored_delta import StoredDelta
from pipelines.execution.stage_runner import StageRunner
from pipelines.near.node.node_home import read_node_home
from pipelines.near.node.state_column import StateColumnPlace
from pipelines.near.trie.trie_walk_source import has_state_root
from pipelines.producing.deltas.shard_delta import ComparedRecords, ComparedTries, ComposedDeltas, ShardDelta, Way, child_ranges
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.restoring.part_records import RecordsInParts
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from schemas.errors import EpochNotReadyError, IntegrityError, ManifestError, ObjectNotFoundError, SourceError
from schemas.ids import ZERO_HASH
from schemas.nearcore.epoch_context import ShardContext
from schemas.published.delta_statement import WHOLE_BASE, DeltaEnd
from schemas.published.manifest import Manifest
from schemas.published.manifest_delta import ManifestDelta
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import EpochLayout


@dataclass(frozen=True, slots=True)
class DeltaInputs:
    """What deltas can be made of, besides the published parts."""

    datasets: tuple[ShardDataset, ...] = ()
    """Of any epochs; those of the two in question are taken."""
    node_home: str | None = None
    """A node that may have both tries."""
    read_limit_bytes_per_s: int | None = None
    compose: bool = False
    """Where neither tries nor datasets tell, make a delta of two that follow each other, before whole published parts are read for it."""

    def dataset_of(self, end: DeltaEnd) -> ShardDataset | None:
        """Return the dataset of a state; None where none is of it."""
        for dataset in self.datasets:
            context, shard = dataset.summary.context, dataset.summary.shard
            if (context.epoch_id, shard.shard_uid, shard.state_root) == (end.epoch_id, end.shard_uid, end.state_root):
                return dataset
        return None


@dataclass(frozen=True, slots=True)
class DeltaProduction:
    """The making of deltas to one published epoch."""

    runner: StageRunner
    publisher: EpochPublisher
    inputs: DeltaInputs
    kernel_name: str
    work_url: str

    def run(self, target: EpochLayout, bases: Sequence[EpochLayout]) -> tuple[ManifestDelta, ...]:
        """Make what is missing of the deltas from some epochs and list them in the manifest; return those that were made.

        Raises:
            EpochNotReadyError: the target or a base is not published.
            ManifestError: a manifest can't be parsed.
            StoreError, SignatureError: passed on.
        """
        manifest = self._manifest(target)
        made: list[ManifestDelta] = []
        # The nearest first: others may be made of it.
        for layout in sorted(bases, key=lambda one: -one.epoch_height):
            base = self._manifest(layout)
            made += [delta for shard in manifest.shards if (delta := self._shard(manifest, base, shard, made)) is not None]
        if made:
            self.publisher.list_deltas(target, made)
        return tuple(sorted(made, key=lambda one: one.key))

    def _shard(self, manifest: Manifest, base: Manifest, shard: ManifestShard, made: Sequence[ManifestDelta]) -> ManifestDelta | None:
        """Make one shard's delta; None where it is there, or where there is no way to it."""
        if self._is_there(manifest, base, shard.shard_id):
            return None
        older = next((one for one in base.shards if one.shard_uid in (shard.shard_uid, shard.parent_shard_uid)), None)
        if older is None:
            self._note(shard, base, "the earlier epoch lists neither the shard nor the one that it was split from")
            return None
        is_child = older.shard_uid != shard.shard_uid
        delta = ShardDelta(
            chain_id=manifest.chain_id,
            base=DeltaEnd(base.epoch_height, base.epoch_id, older.shard_uid, older.state_root),
            target=DeltaEnd(manifest.epoch_height, manifest.epoch_id, shard.shard_uid, shard.state_root),
            ranges=child_ranges(manifest.shard_layout, shard.shard_id) if is_child else WHOLE_BASE,
            work_url=self.work_url,
            store_url=self.publisher.store_url,
        )
        for way in self._ways(delta, base, manifest, made):
            try:
                return delta.publish(self.runner, way, self.publisher.signers)
            except (SourceError, IntegrityError, ObjectNotFoundError, ManifestError) as error:
                self._note(shard, base, str(error))
        return None

    def _ways(self, delta: ShardDelta, base: Manifest, manifest: Manifest, made: Sequence[ManifestDelta]) -> Iterator[Way]:
        """Yield the ways to a delta, the cheapest first; what one is made of is looked up when it is its turn."""
        place = self._tries(delta)
        if place is not None:
            yield ComparedTries(place)
        composed = self._composed(delta, base, manifest, made)
        if composed is not None and not all(self.inputs.dataset_of(end) for end in (delta.base, delta.target)):
            yield composed
        older, newer = self._records(delta.base, base), self._records(delta.target, manifest)
        if older is not None and newer is not None:
            yield ComparedRecords(older, newer)

    def _composed(self, delta: ShardDelta, base: Manifest, manifest: Manifest, made: Sequence[ManifestDelta]) -> ComposedDeltas | None:
        """Return two deltas that lead from the base to the target by way of an epoch between; None where there are none.

        Args:
            made: by this run, to the target; not listed yet.
        """
        if not self.inputs.compose or delta.base.shard_uid != delta.target.shard_uid:
            return None
        store, shard_id = open_store(self.publisher.store_url), delta.target.shard_uid.shard_id
        for last in (*listed_deltas(manifest, shard_id), *(one for one in made if one.shard_id == shard_id)):
            between = EpochLayout(manifest.chain_id, last.base_epoch_height, last.base_epoch_id)
            if last.base_epoch_height <= base.epoch_height:
                continue
            stored = read_manifest(store, between)
            first = next(
                (one for one in (() if stored is None else listed_deltas(stored.manifest, shard_id)) if one.base_epoch_id == base.epoch_id),
                None,
            )
            if first is not None:
                statements = (read_delta_statement(store, between, first)[0], read_delta_statement(store, manifest.layout, last)[0])
                steps = tuple(StoredDelta(store.url, statement) for statement in statements)
                # Its ends are what the delta's are to be, or a manifest lists what does not fit together.
                if (steps[0].statement.base, steps[1].statement.target) == (delta.base, delta.target) and (
                    steps[0].statement.target == steps[1].statement.base
                ):
                    return ComposedDeltas(steps)
        return None

    def _tries(self, delta: ShardDelta) -> StateColumnPlace | None:
        """Return the node's State column where it has both roots."""
        if self.inputs.node_home is None or ZERO_HASH in (delta.base.state_root, delta.target.state_root):
            return None
        home = read_node_home(self.inputs.node_home)
        # After a resharding the child's place has the parent's rows as well.
        ends = (delta.base, delta.target)
        if not all(has_state_root(home, ShardContext(delta.target.shard_uid, end.state_root)) for end in ends):
            return None
        return StateColumnPlace(self.inputs.node_home, delta.target.shard_uid, self.inputs.read_limit_bytes_per_s)

    def _records(self, end: DeltaEnd, manifest: Manifest) -> ShardRecords | None:
        dataset = self.inputs.dataset_of(end)
        if dataset is not None:
            return RecordsInDataset(dataset.reference)
        return published_records(open_store(self.publisher.store_url), manifest, end.shard_uid.shard_id, self.kernel_name)

    def _is_there(self, manifest: Manifest, base: Manifest, shard_id: int) -> bool:
        """Tell whether a delta is listed and all its objects are there in their sizes."""
        listed = next((found for found in listed_deltas(manifest, shard_id) if found.base_epoch_id == base.epoch_id), None)
        if listed is None:
            return False
        store, layout = open_store(self.publisher.store_url), manifest.layout
        try:
            statement, _ = read_delta_statement(store, layout, listed)
        except (ManifestError, ObjectNotFoundError):
            return False
        infos = [store.info(f"{layout.folder}/{statement.object_name(index)}") for index in range(len(statement.objects))]
        return all(info is not None and info.size == one.size for info, one in zip(infos, statement.objects, strict=True))

    def _manifest(self, layout: EpochLayout) -> Manifest:
        store = open_store(self.publisher.store_url)
        stored = read_manifest(store, layout)
        if stored is None:
            raise EpochNotReadyError(problem=f"epoch {layout.epoch_height} is not published", where=f"{store.url}/{layout.folder}")
        return stored.manifest

    def _note(self, shard: ManifestShard, base: Manifest, problem: str) -> None:
        self.runner.progress.note(f"no delta of shard {shard.shard_uid} from epoch {base.epoch_height}: {problem}")


def published_records(store: Store, manifest: Manifest, shard_id: int, kernel_name: str) -> RecordsInParts | None:
    """Return a published shard's records out of its parts; None where not all of them are listed, or its statement is not the listed one.

    Raises:
        ManifestError: the statement can't be parsed.
    """
    listed = manifest.shard(shard_id)
    if listed is None or len(listed.parts) != listed.num_parts:
        return None
    found = read_statement(store, manifest.layout, shard_id)
    if found is None or found[1].payload_sha256 != listed.statement_sha256:
        return None
    return RecordsInParts.of_shard(store.url, manifest, found[0], kernel_name)
