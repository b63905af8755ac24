"""Drives the export of an epoch's shards."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.export.export_records import (
    CopiedValues,
    ExportSettings,
    ShardExport,
    finish_export,
    plan_export,
)
from pipelines.dataset.export.export_values import plan_sharing, plan_values
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.near.node.flat_state_source import FlatStateSource
from schemas.dataset.dataset_summary import RangeSummary
from schemas.nearcore.epoch_context import EpochContext

EXPORT_TASK_MEMORY_BYTES = 500 << 20
"""Most memory of an export task's process: a file being put together, its bytes again while stored, and the reader's caches."""

SHARING_TASK_MEMORY_BYTES = 600 << 20
"""Most memory of a process that looks for shared values: a million references, and again in the order of their hashes."""


def export_epoch(runner: StageRunner, source: FlatStateSource, context: EpochContext, settings: ExportSettings) -> list[ShardDataset]:
    """Export all shards of a context, or find them exported; once this returns, no record or value is read from the source any more.

    Returns:
        A dataset a shard, in the context's order.
    Raises:
        SourceError, IntegrityError, StoreError: passed on from the stages.
    """
    exports = [plan_export(source, context, shard, settings) for shard in context.shards]
    needs = TaskNeeds(EXPORT_TASK_MEMORY_BYTES, node_disk=source.on_node_disk)
    datasets = []
    for export in exports:
        if isinstance(export, ShardDataset):
            datasets.append(export)
            continue
        name = str(export.context.shards[0].shard_uid)
        # The last ranges first: contract data ends the key space, and ranges of it are the longest where they had to be guessed. A long one
        # that began last would be waited for by all other machines.
        summaries = runner.run("export", name, export.tasks[::-1], needs, _exported)[::-1]
        values = copy_values(runner, export, summaries, needs)
        datasets.append(finish_export(export, settings, summaries, values))
    return datasets


def copy_values(runner: StageRunner, export: ShardExport, summaries: Sequence[RangeSummary], needs: TaskNeeds) -> list[CopiedValues]:
    """Copy the values that a shard's records refer to.

    Args:
        summaries: in the order of the export's tasks.
        needs: of a task that reads the source.
    Returns:
        What `finish_export` takes.
    Raises:
        SourceError, IntegrityError, StoreError: passed on from the stages.
    """
    name = str(export.context.shards[0].shard_uid)
    # Looking for what is shared reads nothing but what the export has left.
    sharing = runner.run("values", name, plan_sharing(export, summaries), TaskNeeds(SHARING_TASK_MEMORY_BYTES), lambda _: Amount())
    return runner.run("values", name, plan_values(export, summaries, sharing), needs, _copied)


def _exported(summary: RangeSummary) -> Amount:
    return Amount(records=sum(file.records for file in summary.files), size=sum(file.size for file in summary.files))


def _copied(copied: CopiedValues) -> Amount:
    files = (*copied.own, *copied.shared)
    return Amount(records=sum(file.values for file in files), size=sum(file.size for file in files))
