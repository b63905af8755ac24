"""Rebuilds a shard of a published epoch out of another published one and the deltas between, all in one store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipelines.bucket.published_deltas import listed_deltas, read_delta_statement
from pipelines.bucket.published_epoch import read_manifest, read_statement
from pipelines.dataset.delta.applied_records import AppliedRecords
from pipelines.dataset.delta.shard_records import ShardRecords
from pipelines.dataset.delta.stored_delta import StoredDelta
from pipelines.execution.stage_runner import StageRunner
from pipelines.keeping.stored_ladder import thin_steps
from pipelines.kernel.trie_kernel import Kernel
from pipelines.producing.deltas.make_deltas import published_records
from pipelines.producing.rebuild.rebuild_part import RebuiltPart
from pipelines.producing.rebuild.rebuild_shard import RebuildTarget, ShardRebuild
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from schemas.errors import EpochNotReadyError
from schemas.published.delta_statement import DeltaEnd
from schemas.published.manifest import Manifest


@dataclass(frozen=True, slots=True)
class PublishedRebuild:
    """Where a shard is rebuilt out of what is published, and into what."""

    runner: StageRunner
    kernel: Kernel
    store_url: str
    """Where the epochs are published."""
    work_url: str
    into_url: str
    put_reencoded: bool = False

    def run(self, epochs: Sequence[Manifest], shard_id: int) -> list[RebuiltPart]:
        """Rebuild all parts of a shard of the last epoch.

        Args:
            epochs: the base, whose parts are there, then the epochs that each delta leads to; at least two.
        Raises:
            EpochNotReadyError: a rung is missing: an epoch lists no delta of the shard from the one before, or the base not all parts.
            StateRootMismatchError, IntegrityError, ManifestError, StoreError: a delta or a part is not right, or missing. Nothing was put.
        """
        store, target = open_store(self.store_url), epochs[-1]
        steps = published_steps(self.store_url, epochs, shard_id)
        first, last = steps[0].statement.base, steps[-1].statement.target
        base = published_records(store, epochs[0], first.shard_uid.shard_id, self.kernel.name)
        found = read_statement(store, target.layout, shard_id)
        if base is None or found is None:
            raise EpochNotReadyError(
                problem=f"not all parts of shard {first.shard_uid} of epoch {epochs[0].epoch_height} are published, or no statement of it",
                where=f"{store.url}/{epochs[0].layout.folder}",
            )
        records = AppliedRecords.of(base, shard_end(epochs[0], first.shard_uid.shard_id), steps, last, target.chain_id)
        rebuilding = RebuildTarget.of(target, found[0])
        return ShardRebuild(self.runner, self.kernel, rebuilding, records, self.work_url, self.into_url, self.put_reencoded).run()


def published_state(store: Store, manifest: Manifest, shard_id: int, kernel_name: str) -> ShardRecords:
    """Return a published shard's records: out of its parts, or where the epoch is kept as deltas out of an earlier epoch's parts and those.

    Raises:
        EpochNotReadyError: not all parts are listed, of the epoch or of the one that it is rebuilt of.
        ManifestError, IntegrityError, StoreError: a statement is not right, or missing.
    """
    found = [read_manifest(store, layout) for layout in thin_steps(store, manifest)]
    epochs = [*(one.manifest for one in found if one is not None), manifest]
    end = shard_end(manifest, shard_id)
    steps = published_steps(store.url, epochs, shard_id) if len(epochs) > 1 else []
    first = steps[0].statement.base if steps else end
    records = published_records(store, epochs[0], first.shard_uid.shard_id, kernel_name)
    if records is None:
        raise EpochNotReadyError(
            problem=f"not all parts of shard {first.shard_uid} of epoch {first.epoch_height} are published, or no statement of it",
            where=f"{store.url}/{epochs[0].layout.folder}",
        )
    return AppliedRecords.of(records, first, steps, end, manifest.chain_id) if steps else records


def published_steps(store_url: str, epochs: Sequence[Manifest], shard_id: int) -> list[StoredDelta]:
    """Return the deltas of a shard of the last epoch that lead from each epoch to the next.

    Raises:
        EpochNotReadyError: a rung is missing: an epoch lists no delta of the shard from the one before.
        ManifestError, StoreError: a statement is not right, or missing.
    """
    store = open_store(store_url)
    steps: list[StoredDelta] = []
    for base, target in reversed(list(pairwise(epochs))):
        listed = next((one for one in listed_deltas(target, shard_id) if one.base_epoch_id == base.epoch_id), None)
        if listed is None:
            raise EpochNotReadyError(
                problem=f"epoch {target.epoch_height} lists no delta of shard {shard_id} from epoch {base.epoch_height}",
                where=f"{store.url}/{target.layout.manifest}",
            )
        statement, _ = read_delta_statement(store, target.layout, listed)
        steps.append(StoredDelta(store_url, statement))
        # Before a resharding the shard was another.
        shard_id = statement.base.shard_uid.shard_id
    return steps[::-1]


def shard_end(manifest: Manifest, shard_id: int) -> DeltaEnd:
    """Return the state of a listed shard as one end of a delta."""
    listed = manifest.shard(shard_id)
    if listed is None:
        raise EpochNotReadyError(problem=f"epoch {manifest.epoch_height} lists no shard {shard_id}", where=manifest.layout.folder)
    return DeltaEnd(manifest.epoch_height, manifest.epoch_id, listed.shard_uid, listed.state_root)
