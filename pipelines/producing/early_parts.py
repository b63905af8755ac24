"""Drives a shard whose parts are published one by one, before its state root has come out of the records.

The boundary nodes come from the source's State column, by hash from the trusted state root, so each part is built, validated against that
root and put on its own. The shard's statement still waits until the root that the parts' edges merge to is the trusted one.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.kernel.trie_kernel import Kernel
from pipelines.near.node.flat_state_source import FlatStateSource, TrieSource
from pipelines.producing.build.boundary_nodes import boundary_nodes_tasks
from pipelines.producing.build.build_part import BuildPartTask, BuildSummary
from pipelines.producing.build_shard import BUILD_TASK_MEMORY_BYTES, BuiltShard, PlannedShard, explain_parts, seal_shard
from pipelines.producing.publish.publish_part import ProducePartTask, PublishedPart, PublishPartTask
from schemas.errors import IntegrityError, SourceError, StateRootMismatchError
from schemas.ids import ZERO_HASH

BOUNDARY_NODES_TASK_MEMORY_BYTES = 300 << 20
"""Most memory of a process that reads some boundaries' nodes: a few thousand nodes, and the reader's caches."""

PRODUCE_TASK_MEMORY_BYTES = BUILD_TASK_MEMORY_BYTES
"""Most memory of a process that builds and publishes parts, one at a time: a part's records go before its pieces come."""


def has_boundary_nodes(runner: StageRunner, planned: PlannedShard, source: FlatStateSource) -> bool:
    """Read the nodes on the parts' boundaries from the source's State column into the work folder, where that can be done.

    Returns:
        False when the parts must wait for the shard's root: the source has no trie nodes, the root is not given or that of an empty
        trie, a node is missing or damaged, or the trusted root's memory usage is not that of the records.
    Raises:
        StoreError: the work folder can't be written.
    """
    shard = planned.shard
    if not isinstance(source, TrieSource) or shard.state_root in (None, ZERO_HASH) or not planned.with_records:
        return False
    assert shard.state_root is not None, "looked at above"
    tasks = boundary_nodes_tasks(source.state_column(shard), planned.work, shard.state_root, len(planned.plans), _first_keys(planned))
    needs = TaskNeeds(BOUNDARY_NODES_TASK_MEMORY_BYTES, node_disk=source.on_node_disk)
    try:
        summaries = runner.run("boundary nodes", planned.name, tasks, needs, lambda one: Amount(parts=one.boundaries))
    except (IntegrityError, SourceError) as error:
        problem = error.problem
    else:
        memory_usage = summaries[0].memory_usage
        if memory_usage == planned.memory_usage:
            return True
        problem = f"the state root's memory usage is {memory_usage}, that of the records {planned.memory_usage}"
    runner.progress.note(
        f"shard {planned.name}: its parts wait for its state root, for the State column gives no boundary nodes: {problem}"
    )
    return False


def _first_keys(planned: PlannedShard) -> list[bytes]:
    """Return the first key of each part that has records; the first one's interval may begin before it."""
    return [planned.first_key, *(plan.key_begin for plan in planned.with_records[1:])]


def produce_early(
    runner: StageRunner, kernel: Kernel, planned: PlannedShard, source: FlatStateSource, publishing: Sequence[PublishPartTask]
) -> tuple[BuiltShard, list[PublishedPart]]:
    """Build and publish every part of a shard whose boundary nodes are in the work folder, then prove the shard's root.

    Args:
        publishing: a task a part, in order, with the trusted state root.
    Raises:
        StateRootMismatchError: a part's records contradict the trusted root, and nothing of that part is put; or, where parts
            were there before, all parts together do.
        SourceError, IntegrityError, StoreError: passed on from the tasks.
    """
    try:
        produced = produce_parts(runner, kernel, planned, publishing)
    except StateRootMismatchError as error:
        raise _explained(error, kernel, planned, source) from None
    builds = [build for _, build in produced if build is not None]
    try:
        built = seal_shard(runner, kernel, planned, source, builds, leave_boundary_nodes=False)
    except StateRootMismatchError as error:
        remedy = "A record is changed, in a part that was published before and was not made again. No statement of this shard was written."
        raise error.at(error.where, remedy) from None
    return built, [part for part, _ in produced]


def produce_parts(
    runner: StageRunner, kernel: Kernel, planned: PlannedShard, publishing: Sequence[PublishPartTask]
) -> list[tuple[PublishedPart, BuildSummary | None]]:
    """Build and publish every part of a shard whose boundary nodes are in the work folder; return each with its build, ascending.

    Args:
        publishing: a task a part, in order.
    Raises:
        StateRootMismatchError: a part's records contradict the state root, and nothing of that part is put.
        SourceError, IntegrityError, StoreError: passed on from the tasks.
    """
    building = {plan.part_id.idx: BuildPartTask(planned.records, planned.work, kernel.name, plan) for plan in planned.with_records}
    tasks = [ProducePartTask(task, building.get(task.plan.part_id.idx)) for task in publishing]
    needs = TaskNeeds(PRODUCE_TASK_MEMORY_BYTES, node_disk=planned.records.on_node_disk)
    return runner.run("publish", planned.name, tasks, needs, lambda made: made[0].amount)


def _explained(error: StateRootMismatchError, kernel: Kernel, planned: PlannedShard, source: FlatStateSource) -> StateRootMismatchError:
    """Name the differing keys, as narrow as the trusted trie tells, and remove what was made of the source, so that a rerun reads it again."""
    if error.part_id is not None:
        explanation = explain_parts(kernel, source, planned, [planned.plans[error.part_id]])
        error = error.at(error.where + explanation.difference(planned.shard))
    planned.origin.discard()
    return error
