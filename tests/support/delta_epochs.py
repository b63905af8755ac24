"""Published epochs of one small shard whose records differ, and the deltas between them; all in this process."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipelines.bucket.published_deltas import listed_deltas, read_delta_statement
from pipelines.bucket.published_epoch import read_manifest, read_statement
from pipelines.dataset.delta.applied_records import AppliedRecords
from pipelines.dataset.delta.stored_delta import StoredDelta
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.deltas.make_deltas import DeltaInputs, DeltaProduction, published_records
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.producing.publish.shard_publisher import ProducedShard
from pipelines.producing.rebuild.rebuild_shard import RebuildTarget, ShardRebuild
from pipelines.stores.open_store import open_store
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import ShardContext
from schemas.nearcore.shard_layout import SINGLE_SHARD, ShardLayout
from schemas.nearcore.state_part import Encoding
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout
from tests.support.list_source import context_of
from tests.support.productions import header_of, publish_tasks, signer, small_shard
from tests.support.records import Pairs
from tests.support.whole_productions import Told


@dataclass(slots=True)
class DeltaEpochs:
    """A store in memory with epochs of one shard, by height."""

    store_url: str = field(default_factory=lambda: f"memory://{uuid.uuid4().hex}")
    work_url: str = field(default_factory=lambda: f"memory://{uuid.uuid4().hex}")
    kernel_name: str = "auto"
    told: Told = field(default_factory=Told)

    @property
    def publisher(self) -> EpochPublisher:
        """Who publishes."""
        return EpochPublisher(self.store_url, signer(), Encoding.V1, 1)

    @property
    def runner(self) -> StageRunner:
        """Runs stages in this process."""
        return StageRunner(InProcessExecutor(), self.told)

    def publish(self, epoch_height: int, pairs: Pairs, num_parts: int = 3) -> Manifest:
        """Publish records as an epoch, in parts of version 1."""
        return self.publish_shards(epoch_height, SINGLE_SHARD, {0: pairs}, num_parts)

    def publish_shards(
        self, epoch_height: int, layout: ShardLayout, pairs: Mapping[int, Pairs], num_parts: int = 3, parent: ShardUId | None = None
    ) -> Manifest:
        """Publish an epoch of several shards.

        Args:
            pairs: by shard id.
            parent: of all shards.
        """
        built = {uid: small_shard(pairs[uid.shard_id], num_parts) for uid in layout.shard_uids}
        shards = tuple(ShardContext(uid, one.state_root, parent_shard_uid=parent) for uid, one in built.items())
        epoch_id = CryptoHash(hashlib.sha256(f"epoch {epoch_height}".encode()).digest())
        context = replace(context_of(None), epoch_height=epoch_height, epoch_id=epoch_id, shard_layout=layout, shards=shards)
        published = []
        for shard, one in zip(shards, built.values(), strict=True):
            # Built as a shard of its own, published as one of the epoch's.
            state = replace(one.state, shard_uid=shard.shard_uid)
            parts = tuple(task.run() for task in publish_tasks(one, self.store_url, of_epoch=context, shard_id=shard.shard_id))
            published.append(self.publisher.put_shard(context, ProducedShard(state, parts, header_of(None))))
        self.publisher.finish(context, published, layout.shard_ids)
        return self.manifest(epoch_height)

    def layout(self, epoch_height: int) -> EpochLayout:
        """Return an epoch's names."""
        epoch_id = CryptoHash(hashlib.sha256(f"epoch {epoch_height}".encode()).digest())
        return EpochLayout(context_of(None).chain_id, epoch_height, epoch_id)

    def manifest(self, epoch_height: int) -> Manifest:
        """Return an epoch's newest manifest."""
        stored = read_manifest(open_store(self.store_url), self.layout(epoch_height))
        assert stored is not None
        return stored.manifest

    def make_delta(self, base: int, target: int, inputs: DeltaInputs | None = None) -> StoredDelta:
        """Make the delta between two published epochs and list it."""
        production = DeltaProduction(self.runner, self.publisher, inputs or DeltaInputs(), self.kernel_name, self.work_url)
        production.run(self.layout(target), [self.layout(base)])
        return self.delta(base, target)

    def delta(self, base: int, target: int) -> StoredDelta:
        """Return a listed delta."""
        manifest = self.manifest(target)
        (listed,) = [found for found in listed_deltas(manifest, 0) if found.base_epoch_height == base]
        statement, _ = read_delta_statement(open_store(self.store_url), manifest.layout, listed)
        return StoredDelta(self.store_url, statement)

    def applied(self, base: int, steps: Sequence[StoredDelta]) -> AppliedRecords:
        """Return an epoch's records, out of its parts, with deltas applied."""
        found = published_records(open_store(self.store_url), self.manifest(base), 0, self.kernel_name)
        assert found is not None
        return AppliedRecords(found, tuple(steps))

    def rebuild(self, base: int, steps: Sequence[StoredDelta], target: int) -> ShardRebuild:
        """Return the rebuilding of an epoch's parts, into a store of its own."""
        found = read_statement(open_store(self.store_url), self.layout(target), 0)
        assert found is not None
        return ShardRebuild(
            runner=self.runner,
            kernel=choose_kernel(self.kernel_name),
            target=RebuildTarget.of(self.manifest(target), found[0]),
            records=self.applied(base, steps),
            work_url=f"memory://{uuid.uuid4().hex}",
            into_url=f"memory://{uuid.uuid4().hex}",
        )

    def parts(self, epoch_height: int, store_url: str | None = None) -> dict[str, bytes]:
        """Return an epoch's parts by name."""
        store, folder = open_store(store_url or self.store_url), self.layout(epoch_height).shard_folder(0)
        return {info.name: store.get(info.name, 0, 1 << 30) for info in store.list(folder)}
