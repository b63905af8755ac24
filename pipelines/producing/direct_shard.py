"""Drives a shard for which no dataset is written: the direct way (``docs/decisions/0013``).

The structure is planned from a reading of keys and value lengths, then each part's task reads its own key interval from the source, builds,
assembles, encodes, validates and puts. Where boundary nodes come from a State column that is the source's second reading and the last.
Elsewhere the boundary nodes come from all parts' edges, so each part is read and hashed once for its edge and again for its object:
its interior, which is as large as the part, never goes to the work folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

from pipelines.dataset.dataset_header import VerifyStateHeader, why_unverified
from pipelines.dataset.export.export_epoch import EXPORT_TASK_MEMORY_BYTES
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.kernel.trie_kernel import Kernel
from pipelines.near.node.flat_state_source import FlatStateSource, FoundStateHeader
from pipelines.producing.build.build_part import BuildEdgeTask, BuildPartTask
from pipelines.producing.build.plan_parts import PartPlan, decide_num_parts, plan_parts, seal_structure
from pipelines.producing.build.scan_structure import locate_tasks, scan_tasks
from pipelines.producing.build.shard_origin import DirectOrigin
from pipelines.producing.build.work_folder import WorkFolder
from pipelines.producing.build_shard import BUILD_TASK_MEMORY_BYTES, STRUCTURE_TASK_MEMORY_BYTES, BuiltShard, PlannedShard, seal_shard
from pipelines.producing.early_parts import produce_parts
from pipelines.producing.publish.publish_part import PublishedPart, PublishPartTask
from schemas.nearcore.epoch_context import EpochContext, ShardContext

SCAN_TASK_MEMORY_BYTES = EXPORT_TASK_MEMORY_BYTES
"""Most memory of a process that reads a key range's structure: keys and lengths of a piece, its charges, and the reader's caches."""


def plan_direct(
    runner: StageRunner, kernel: Kernel, origin: DirectOrigin, num_parts_wanted: int | None, range_bytes_target: int
) -> PlannedShard:
    """Find where the parts of a shard begin, from its source.

    Args:
        num_parts_wanted: None for as many as nearcore makes.
        range_bytes_target: stored bytes that one task reads, about.
    Raises:
        SourceError, IntegrityError, StoreError: passed on from the stages.
    """
    source, shard = origin.source, origin.shard
    name = str(shard.shard_uid)
    tasks = scan_tasks(source, shard, origin.work, kernel.name, range_bytes_target)
    needs = TaskNeeds(SCAN_TASK_MEMORY_BYTES, node_disk=source.on_node_disk)
    # The last ranges first, as in an export: they are the longest where they had to be guessed.
    found = runner.run("structure", name, tasks[::-1], needs, lambda scanned: Amount(scanned.records))[::-1]
    with_rows = [(task, scanned) for task, scanned in zip(tasks, found, strict=True) if scanned.records]
    scanned = [one for _, one in with_rows]
    structure = seal_structure(kernel, [one.structure for one in scanned])
    num_parts = decide_num_parts(structure.memory_usage, num_parts_wanted)
    locating = locate_tasks([task for task, _ in with_rows], scanned, structure, num_parts)
    needs = TaskNeeds(STRUCTURE_TASK_MEMORY_BYTES, node_disk=source.on_node_disk)
    located = runner.run("boundaries", name, locating, needs, lambda boundaries: Amount(parts=len(boundaries)))
    plans = plan_parts([one.records for one in scanned], num_parts, [boundary for group in located for boundary in group])
    first_key = scanned[0].first_key if scanned else b""
    return PlannedShard(origin, _planned_folder(origin.work, plans), structure.memory_usage, first_key, plans)


def _planned_folder(work: WorkFolder, plans: Sequence[PartPlan]) -> WorkFolder:
    """Return where a plan's parts are left: results of another plan, whose source was read otherwise, are never taken for this one's."""
    content = [[plan.key_begin.hex(), None if plan.left_key is None else plan.left_key.hex(), plan.records] for plan in plans]
    return replace(work, folder=f"{work.folder}/planned-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}")


def build_edges(runner: StageRunner, kernel: Kernel, planned: PlannedShard, source: FlatStateSource) -> BuiltShard:
    """Hash all parts of a planned shard for their edges and prove its state root; boundary nodes are left, interiors are not.

    Raises:
        StateRootMismatchError: the records do not hash to the trusted root.
        SourceError, IntegrityError, StoreError: passed on from the stages.
    """
    building = [BuildEdgeTask(BuildPartTask(planned.records, planned.work, kernel.name, plan)) for plan in planned.with_records]
    needs = TaskNeeds(BUILD_TASK_MEMORY_BYTES, node_disk=planned.records.on_node_disk)
    builds = runner.run("build", planned.name, building, needs, lambda one: Amount(one.records, one.hashed_bytes, 1))
    return seal_shard(runner, kernel, planned, source, builds, leave_boundary_nodes=True)


def publish_again(runner: StageRunner, kernel: Kernel, planned: PlannedShard, publishing: Sequence[PublishPartTask]) -> list[PublishedPart]:
    """Build every part again, now with its interior, and publish it; its boundary nodes are in the work folder.

    Args:
        publishing: a task a part, in order, with the state root that has come out.
    Raises:
        SourceError, IntegrityError, StoreError: passed on from the tasks.
    """
    return [part for part, _ in produce_parts(runner, kernel, planned, publishing)]


def verified_source_header(
    source: FlatStateSource, context: EpochContext, shard: ShardContext, verify: VerifyStateHeader | None
) -> FoundStateHeader:
    """Return a source's state header if all of it is verified; else why there is none.

    Raises:
        SourceError: the source can't be opened.
    """
    found = source.state_header(shard, context.sync_hash)
    if found.data is not None and not found.is_verified and (problem := why_unverified(found.data, verify)) is not None:
        return FoundStateHeader(None, reason=f"the source's was not verified in full, and {problem}")
    return replace(found, is_verified=found.data is not None)
