"""Drives plan, build and seal of one shard: from its dataset to interiors and boundary nodes, with the state root proved.

That is the way of a shard whose parts wait for its root; `pipelines.producing.early_parts` has the other one, which shares plan and seal, and
`pipelines.producing.direct_shard` plans a shard without a dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.verify_dataset import RootExplanation
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.kernel.trie_kernel import Kernel
from pipelines.near.node.flat_state_source import FlatStateSource
from pipelines.producing.build.build_part import BuildPartTask, BuildSummary, SealTask
from pipelines.producing.build.part_records import PartRecords
from pipelines.producing.build.plan_parts import (
    LocateTask,
    PartPlan,
    StructureTask,
    decide_num_parts,
    plan_parts,
    seal_structure,
    thresholds_of_files,
)
from pipelines.producing.build.shard_origin import DatasetOrigin, ShardOrigin
from pipelines.producing.build.shard_state import ShardState, add_kinds, torrent_piece_length
from pipelines.producing.build.work_folder import WorkFolder
from schemas.ids import ZERO_HASH, CryptoHash
from schemas.nearcore.epoch_context import ShardContext

STRUCTURE_TASK_MEMORY_BYTES = 300 << 20
"""Most memory of a structure task's process: one dataset file's keys and their charges."""

BUILD_TASK_MEMORY_BYTES = 500 << 20
"""Most memory of a process that builds parts of 30 MiB memory usage, with what the kernel keeps for the next part."""

SEAL_TASK_MEMORY_BYTES = 800 << 20
"""Most memory of a process that seals a shard of over 1,300 parts."""


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """One shard whose parts' intervals are known, and nothing else of them."""

    origin: ShardOrigin
    work: WorkFolder
    memory_usage: int
    first_key: bytes
    """Of all its records; empty where there are none."""
    plans: tuple[PartPlan, ...]

    @property
    def shard(self) -> ShardContext:
        """The shard, with the trusted state root where there is one."""
        return self.origin.shard

    @property
    def records(self) -> PartRecords:
        """What reads its parts' records."""
        return self.origin.records

    @property
    def name(self) -> str:
        """The shard, for people."""
        return str(self.shard.shard_uid)

    @property
    def piece_length(self) -> int:
        """Of the shard's torrent."""
        return torrent_piece_length(self.memory_usage, len(self.plans))

    @property
    def with_records(self) -> tuple[PartPlan, ...]:
        """Parts that have records, ascending."""
        return tuple(plan for plan in self.plans if plan.spans)


@dataclass(frozen=True, slots=True)
class BuiltShard:
    """A planned shard whose parts are built and whose state root has come out as the chain says."""

    planned: PlannedShard
    state_root: CryptoHash
    root_node: bytes
    """Node bytes of the state root; empty for an empty trie."""
    builds: tuple[BuildSummary, ...]
    """Of each part that has records, ascending."""

    @property
    def state(self) -> ShardState:
        """What is published of it beside its parts."""
        shard = self.planned.shard
        return ShardState(
            shard_uid=shard.shard_uid,
            state_root=self.state_root,
            root_node=self.root_node,
            memory_usage=self.planned.memory_usage,
            num_parts=len(self.planned.plans),
            root_was_known=shard.state_root is not None,
            kinds=add_kinds(build.kinds for build in self.builds),
        )


def plan_shard(runner: StageRunner, kernel: Kernel, dataset: ShardDataset, work: WorkFolder, num_parts_wanted: int | None) -> PlannedShard:
    """Find where the parts of a shard begin.

    Args:
        num_parts_wanted: None for as many as nearcore makes.
    Raises:
        IntegrityError, DatasetError, StoreError: passed on from the stages.
    """
    summary = dataset.summary
    name = str(summary.shard.shard_uid)
    tasks = [StructureTask(dataset.reference, work, kernel.name, index) for index in range(len(summary.files))]
    structures = runner.run("structure", name, tasks, TaskNeeds(STRUCTURE_TASK_MEMORY_BYTES), lambda _: Amount())
    structure = seal_structure(kernel, structures)
    num_parts = decide_num_parts(structure.memory_usage, num_parts_wanted)
    locating = [LocateTask(dataset.reference, work, *found) for found in thresholds_of_files(structure, num_parts)]
    located = runner.run("boundaries", name, locating, TaskNeeds(STRUCTURE_TASK_MEMORY_BYTES), lambda found: Amount(parts=len(found)))
    plans = plan_parts([file.records for file in summary.files], num_parts, [boundary for group in located for boundary in group])
    first_key = summary.files[0].first_key if summary.files else b""
    return PlannedShard(DatasetOrigin(dataset), work, structure.memory_usage, first_key, plans)


def build_planned(runner: StageRunner, kernel: Kernel, planned: PlannedShard, source: FlatStateSource | None) -> BuiltShard:
    """Build all parts of a planned shard and prove its state root.

    Args:
        source: what this run reads; None for a dataset that was there before.
    Raises:
        StateRootMismatchError: the records do not hash to the trusted root.
        IntegrityError, DatasetError, StoreError: passed on from the stages.
    """
    building = [BuildPartTask(planned.records, planned.work, kernel.name, plan) for plan in planned.with_records]
    needs = TaskNeeds(BUILD_TASK_MEMORY_BYTES)
    builds = runner.run("build", planned.name, building, needs, lambda one: Amount(one.records, one.hashed_bytes, 1))
    return seal_shard(runner, kernel, planned, source, builds, leave_boundary_nodes=True)


def seal_shard(
    runner: StageRunner,
    kernel: Kernel,
    planned: PlannedShard,
    source: FlatStateSource | None,
    builds: Sequence[BuildSummary],
    *,
    leave_boundary_nodes: bool,
) -> BuiltShard:
    """Merge the edges of all parts and compare the state root.

    Args:
        builds: of each part that has records, ascending; their edges are in the work folder.
    Raises:
        StateRootMismatchError: the records do not hash to the trusted root.
        StoreError: passed on.
    """
    state_root, memory_usage, root_node = ZERO_HASH, 0, b""
    if builds:
        built = tuple(plan.part_id.idx for plan in planned.with_records)
        sealing = [SealTask(planned.work, kernel.name, len(planned.plans), built, leave_boundary_nodes)]
        (sealed,) = runner.run("seal", planned.name, sealing, TaskNeeds(SEAL_TASK_MEMORY_BYTES), lambda _: Amount())
        state_root, memory_usage, root_node = sealed.state_root, sealed.memory_usage, sealed.root_node
        assert memory_usage == planned.memory_usage, "hashing and structure agree on the memory usage"
    explanation = None if source is None else explain_parts(kernel, source, planned, planned.with_records)
    planned.origin.settle(state_root, memory_usage, explanation)
    return BuiltShard(planned, state_root, root_node, tuple(builds))


def explain_parts(kernel: Kernel, source: FlatStateSource, planned: PlannedShard, plans: Sequence[PartPlan]) -> RootExplanation:
    """Return what can say where some adjacent parts, whose edges are left, differ from the trusted state."""
    return RootExplanation(
        kernel=kernel,
        source=source,
        read_edges=lambda: [planned.work.read(planned.work.edge(plan.part_id)) for plan in plans],
        read_range=lambda index: planned.records.read(plans[index]),
    )
