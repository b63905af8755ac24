"""Applies published deltas to the states that they lead from, and compares what comes out with the parts of where they lead to.

Records are compared, nothing is hashed: the parts were validated against the target's state root by the caller, so records that are theirs give that root.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pipelines.bucket.published_epoch import read_manifest, read_statement
from pipelines.dataset.delta.applied_records import AppliedRecords
from pipelines.dataset.delta.record_changes import find_changes
from pipelines.dataset.delta.stored_delta import StoredDelta
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.keeping.check_deltas import TriedDelta
from pipelines.kernel.trie_kernel import Kernel
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.producing.rebuild.rebuild_published import published_state, shard_end
from pipelines.producing.rebuild.rebuild_shard import PARTS_PER_TASK
from pipelines.restoring.part_records import RecordsInParts, applied_part
from pipelines.stores.open_store import open_store
from schemas.errors import (
    EpochNotReadyError,
    IntegrityError,
    InvalidInputError,
    ManifestError,
    SourceError,
    StoreError,
    TransientStoreError,
)
from schemas.published.delta_statement import DeltaStatement
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout

COMPARE_TASK_MEMORY_BYTES = 900 << 20
"""Most memory of a process that compares: two parts of the base, decoded, and one of the target."""


@dataclass(frozen=True, slots=True)
class CompareAppliedTask:
    """Compares what deltas make of a base with some parts of the target."""

    applied: AppliedRecords
    target: RecordsInParts
    parts: tuple[tuple[int, KeyRange], ...]
    """Part ids with their key intervals, ascending."""

    def run(self) -> TriedDelta:
        """Return the first difference, or what can't be read.

        Raises:
            TransientStoreError: passed on, so that the task is tried again.
        """
        try:
            for part_id, interval in self.parts:
                changes = find_changes(self.applied.read(interval).records, self.target.read(interval).records)
                if changes.num_rows:
                    key = changes["key"][0].as_py().hex()
                    return TriedDelta(differs=f"applied to its base it gives other records than part {part_id} has, the first of key {key}")
        except TransientStoreError:
            raise
        except (IntegrityError, SourceError, StoreError) as error:
            return TriedDelta(untried=str(error))
        finally:
            applied_part.cache_clear()
        return TriedDelta()


@dataclass(frozen=True, slots=True)
class PublishedTrial:
    """A `pipelines.keeping.check_deltas.DeltaTrial` over what is published."""

    runner: StageRunner
    kernel: Kernel
    store_url: str
    """Where the epochs are published that deltas lead from."""
    target_url: str
    """Where the target's parts are: the same, or where an epoch that is kept as deltas was rebuilt."""

    def run(self, target: Manifest, statement: DeltaStatement, part_ids: Collection[int]) -> TriedDelta:
        """See `DeltaTrial.run`."""
        store = open_store(self.store_url)
        layout = EpochLayout(statement.chain_id, statement.base.epoch_height, statement.base.epoch_id)
        try:
            stored = read_manifest(store, layout)
            if stored is None:
                return TriedDelta(untried=f"epoch {layout.epoch_height}, which a delta leads from, is not there any more")
            if shard_end(stored.manifest, statement.base.shard_uid.shard_id) != statement.base:
                return TriedDelta(differs=f"it leads from another shard or state root than those of epoch {layout.epoch_height}")
            applied = self._applied(stored.manifest, statement, target)
        except (EpochNotReadyError, IntegrityError, ManifestError, InvalidInputError) as error:
            return TriedDelta(untried=str(error))
        return self._compared(applied, target, statement.shard_id, part_ids)

    def _applied(self, base: Manifest, statement: DeltaStatement, target: Manifest) -> AppliedRecords:
        """Return what the delta makes of its base, which may itself be kept as deltas."""
        records = published_state(open_store(self.store_url), base, statement.base.shard_uid.shard_id, self.kernel.name)
        delta = StoredDelta(open_store(self.target_url).url, statement)
        return AppliedRecords.of(records, statement.base, (delta,), statement.target, target.chain_id)

    def _compared(self, applied: AppliedRecords, target: Manifest, shard_id: int, part_ids: Collection[int]) -> TriedDelta:
        found = read_statement(open_store(self.target_url), target.layout, shard_id)
        assert found is not None, "its parts were judged by it"
        parts = RecordsInParts.of_shard(self.target_url, target, found[0], self.kernel.name)
        stated = [(idx, found[0].parts[idx]) for idx in sorted(part_ids)]
        wanted = [(idx, KeyRange(part.key_begin, part.key_end)) for idx, part in stated if part.key_begin != part.key_end]
        tasks = [
            CompareAppliedTask(applied, parts, tuple(wanted[first : first + PARTS_PER_TASK]))
            for first in range(0, len(wanted), PARTS_PER_TASK)
        ]
        name = f"{found[0].shard_uid} since {applied.steps[-1].statement.base.epoch_height}"
        tried = self.runner.run("apply deltas", name, tasks, TaskNeeds(COMPARE_TASK_MEMORY_BYTES), lambda _: Amount())
        worst = sorted(tried, key=lambda one: (not one.differs, not one.untried))
        return worst[0] if worst else TriedDelta()
