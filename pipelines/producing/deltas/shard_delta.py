"""Drives the making of one shard's delta: find the changes, write the objects, sign the statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pipelines.dataset.delta.find_delta import CompareTriesTask, ComposeDeltasTask, DeltaWork, compare_tasks
from pipelines.dataset.delta.shard_records import ShardRecords
from pipelines.dataset.delta.stored_delta import StoredDelta
from pipelines.dataset.delta.write_delta import WriteDeltaTask
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.near.node.state_column import StateColumnPlace
from pipelines.producing.publish.put_statement import put_statement
from pipelines.producing.publish.signing import Signer
from pipelines.stores.open_store import open_store
from schemas.nearcore.shard_layout import ShardLayout
from schemas.published.delta_statement import WHOLE_BASE, BaseRange, DeltaEnd, DeltaStatement
from schemas.published.manifest_delta import ManifestDelta

FIND_TASK_MEMORY_BYTES = 800 << 20
"""Most memory of a process that compares: two pieces of each state, decoded, or a run of the external sort."""

WRITE_TASK_MEMORY_BYTES = 400 << 20
"""Most memory of a process that writes objects: the rows of one, and its bytes."""

KINDS_BY_ACCOUNT = (0, 1, 2, 3, 4, 5, 6, 9, 12)
"""First bytes of trie keys that go on with an account id (nearcore core/primitives/src/trie_key.rs)."""


@dataclass(frozen=True, slots=True)
class ComparedRecords:
    """Two states' records, to be compared."""

    older: ShardRecords
    newer: ShardRecords

    def find(self, runner: StageRunner, delta: ShardDelta) -> tuple[DeltaWork, int]:
        """Leave the changes in pieces; return where and how many."""
        begins = " ".join(begin.hex() for begin in self.older.begins())
        work = DeltaWork.of(delta.work_url, delta.base, delta.target, delta.ranges, f"records {begins}")
        tasks = compare_tasks(self.older, self.newer, delta.ranges, work)
        runner.run("compare", delta.name, tasks, TaskNeeds(FIND_TASK_MEMORY_BYTES), lambda count: Amount(records=count))
        return work, len(self.older.begins())


@dataclass(frozen=True, slots=True)
class ComparedTries:
    """Two tries of a node's State column, to be compared."""

    place: StateColumnPlace
    on_node_disk: bool = True

    def find(self, runner: StageRunner, delta: ShardDelta) -> tuple[DeltaWork, int]:
        """Leave the changes in pieces; return where and how many."""
        work = DeltaWork.of(delta.work_url, delta.base, delta.target, delta.ranges, "tries")
        task = CompareTriesTask(self.place, delta.base.state_root, delta.target.state_root, delta.ranges, work)
        needs = TaskNeeds(FIND_TASK_MEMORY_BYTES, node_disk=self.on_node_disk)
        (found,) = runner.run("compare", delta.name, [task], needs, lambda one: Amount(records=one.rows))
        return work, found.pieces


@dataclass(frozen=True, slots=True)
class ComposedDeltas:
    """Published deltas that follow each other from the base to the target."""

    steps: tuple[StoredDelta, ...]

    def find(self, runner: StageRunner, delta: ShardDelta) -> tuple[DeltaWork, int]:
        """Leave the changes in pieces; return where and how many."""
        way = " ".join(step.statement.payload_sha256 for step in self.steps)
        work = DeltaWork.of(delta.work_url, delta.base, delta.target, delta.ranges, f"deltas {way}")
        task = ComposeDeltasTask(self.steps, work)
        (found,) = runner.run("compose", delta.name, [task], TaskNeeds(FIND_TASK_MEMORY_BYTES), lambda one: Amount(records=one.rows))
        return work, found.pieces


Way: TypeAlias = "ComparedRecords | ComparedTries | ComposedDeltas"
"""How the changes of a delta are found."""


@dataclass(frozen=True, slots=True)
class ShardDelta:
    """A delta that is to be made."""

    chain_id: str
    base: DeltaEnd
    target: DeltaEnd
    ranges: tuple[BaseRange, ...]
    work_url: str
    store_url: str
    """Where the target's epoch is published."""

    @property
    def name(self) -> str:
        """The shard, for people."""
        return str(self.target.shard_uid)

    def publish(self, runner: StageRunner, way: Way, signers: Sequence[Signer]) -> ManifestDelta:
        """Find the changes, write the objects and then the statement; return what a manifest lists. A rerun goes on where a run ended.

        Raises:
            SourceError, StoreError, IntegrityError: passed on from the tasks.
            SignatureError: a key can't be used now.
        """
        statement, work = self._written(runner, way)
        name = statement.layout.delta_statement(statement.base.epoch_id, statement.shard_id)
        put_statement(open_store(self.store_url), name, statement.to_payload(), signers)
        work.remove()
        return listing_of(statement)

    def write(self, runner: StageRunner, way: Way) -> DeltaStatement:
        """Find the changes and write the objects alone; return what a statement would say.

        Raises:
            SourceError, StoreError, IntegrityError: passed on from the tasks.
        """
        statement, work = self._written(runner, way)
        work.remove()
        return statement

    def _written(self, runner: StageRunner, way: Way) -> tuple[DeltaStatement, DeltaWork]:
        work, pieces = way.find(runner, self)
        task = WriteDeltaTask(self.chain_id, self.base, self.target, self.ranges, work, pieces, self.store_url)
        needs = TaskNeeds(WRITE_TASK_MEMORY_BYTES)
        (statement,) = runner.run("delta", self.name, [task], needs, lambda one: Amount(records=one.records, size=one.size))
        return statement, work


def listing_of(statement: DeltaStatement) -> ManifestDelta:
    """Return what a manifest lists of a delta."""
    return ManifestDelta(
        shard_id=statement.shard_id,
        base_epoch_height=statement.base.epoch_height,
        base_epoch_id=statement.base.epoch_id,
        statement_sha256=statement.payload_sha256,
        objects=len(statement.objects),
        size=statement.size,
    )


def child_ranges(layout: ShardLayout | None, shard_id: int) -> tuple[BaseRange, ...]:
    """Return the keys that a shard born of a resharding has of its parent's, as far as its account ids tell.

    Keys that do not begin with an account id are all taken; the delta says which of them are gone. So is everything where the layout is
    not known or assigns accounts by hash: a range is never needed for the result, it keeps the delta small.
    """
    if layout is None or layout.kind == "V0" or shard_id not in layout.shard_ids:
        return WHOLE_BASE
    index = layout.shard_ids.index(shard_id)
    first = layout.boundary_accounts[index - 1].encode() if index else b""
    after = layout.boundary_accounts[index].encode() if index < len(layout.boundary_accounts) else None
    ranges: list[BaseRange] = [BaseRange(b"", b"\0")]
    for kind in range(256):
        begin, end = bytes([kind]), bytes([kind + 1]) if kind < 255 else None
        if kind in KINDS_BY_ACCOUNT:
            begin, end = begin + first, end if after is None else begin + after
        if ranges[-1].end == begin:
            ranges[-1] = BaseRange(ranges[-1].begin, end)
        else:
            ranges.append(BaseRange(begin, end))
    return tuple(ranges)
