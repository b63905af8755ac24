"""Drives the export of an epoch's shards, and the check of an exported dataset against its state root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.kernel.protocol import Kernel
from pipelines.sources.arrow_dataset import ShardDataset
from pipelines.sources.protocol import FlatStateSource
from pipelines.stages.build import HashFileTask, check_state_root
from pipelines.stages.export import (
    ExportSettings,
    discard_export,
    finish_export,
    plan_export,
    plan_values,
    store_summary,
)
from schemas.dataset import RangeSummary, ValuesFile
from schemas.epoch_context import EpochContext
from schemas.errors import StateRootMismatchError
from schemas.ids import ZERO_HASH, CryptoHash

EXPORT_TASK_MEMORY_BYTES = 400 << 20
"""Peak memory of an export task: a file being put together, its bytes once more while stored, and the reader's caches."""

HASH_TASK_MEMORY_BYTES = 400 << 20
"""Peak memory of hashing one dataset file."""


def export_epoch(runner: StageRunner, source: FlatStateSource, context: EpochContext, settings: ExportSettings) -> list[ShardDataset]:
    """Export all shards of a context, or find them exported; once this returns, the source is not needed any more.

    Returns:
        A dataset a shard, in the context's order.
    Raises:
        SourceError, IntegrityError, StoreError: as the stages say.
    """
    exports = [plan_export(source, context, shard, settings) for shard in context.shards]
    needs = TaskNeeds(EXPORT_TASK_MEMORY_BYTES, node_disk=source.on_node_disk)
    datasets = []
    for export in exports:
        if export.done is not None:
            datasets.append(export.done)
            continue
        name = str(export.context.shards[0].shard_uid)
        summaries = runner.run("export", name, export.tasks, needs, _exported)
        values = runner.run("values", name, plan_values(export, summaries), needs, _copied)
        datasets.append(finish_export(export, source, settings, summaries, values))
    return datasets


def _exported(summary: RangeSummary) -> Amount:
    return Amount(records=sum(file.records for file in summary.files), size=sum(file.size for file in summary.files))


def _copied(files: Sequence[ValuesFile]) -> Amount:
    return Amount(records=sum(file.values for file in files), size=sum(file.size for file in files))


def verify_dataset(runner: StageRunner, kernel: Kernel, dataset: ShardDataset, *, ours: bool) -> ShardDataset:
    """Recompute a dataset's state root, compare it with the trusted one, and note both root and memory usage in its summary.

    Args:
        ours: this run exported the dataset, so it may be removed and its summary rewritten.
    Raises:
        StateRootMismatchError: it differs.
    """
    summary = dataset.summary
    if summary.verified_state_root is not None:
        return dataset
    name = str(summary.shard.shard_uid)
    state_root, memory_usage = ZERO_HASH, 0
    if summary.files:
        tasks = [HashFileTask(dataset, kernel.name, index) for index in range(len(summary.files))]
        edges = runner.run("hash", name, tasks, TaskNeeds(HASH_TASK_MEMORY_BYTES), lambda _: Amount())
        sealed = kernel.seal(edges)
        state_root, memory_usage = sealed.state_root, sealed.memory_usage
    return settle_root(dataset, state_root, memory_usage, ours=ours)


def settle_root(dataset: ShardDataset, state_root: CryptoHash, memory_usage: int, *, ours: bool) -> ShardDataset:
    """Compare a recomputed state root with the trusted one and note it in the dataset.

    A dataset of ours that does not hash to the trusted root is removed, so that a rerun exports anew; somebody else's is left alone.

    Raises:
        StateRootMismatchError: the roots differ.
    """
    summary = dataset.summary
    try:
        check_state_root(summary.shard.state_root, state_root, f"shard {summary.shard.shard_uid} of {summary.source}")
    except StateRootMismatchError:
        if ours:
            discard_export(dataset)
        raise
    if not ours or summary.verified_state_root is not None:
        return dataset
    return store_summary(ShardDataset(dataset.url, replace(summary, verified_state_root=state_root, memory_usage=memory_usage)))
