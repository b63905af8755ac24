"""Drives the export of an epoch's shards, and the check of an exported dataset against its state root."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.kernel.protocol import Kernel
from pipelines.sources.arrow_dataset import ShardDataset
from pipelines.sources.protocol import FlatStateSource
from pipelines.stages.build import HashFileTask, check_state_root
from pipelines.stages.difference import TrustedTrie, name_difference
from pipelines.stages.export import (
    CopiedValues,
    ExportSettings,
    ShardExport,
    discard_export,
    finish_export,
    plan_export,
    store_summary,
)
from pipelines.stages.export_values import plan_sharing, plan_values
from schemas.dataset import RangeSummary
from schemas.epoch_context import EpochContext, ShardContext
from schemas.errors import SourceError, StateRootMismatchError, ValueMismatchError
from schemas.ids import ZERO_HASH, CryptoHash

EXPORT_TASK_MEMORY_BYTES = 600 << 20
"""Most memory of an export task's process: a file being put together, its bytes once more while stored, and the reader's caches."""

SHARING_TASK_MEMORY_BYTES = 600 << 20
"""Most memory of a process that looks for shared values: a million references, and once more in the order of their hashes."""

HASH_TASK_MEMORY_BYTES = 600 << 20
"""Most memory of a process that hashes dataset files."""


def export_epoch(runner: StageRunner, source: FlatStateSource, context: EpochContext, settings: ExportSettings) -> list[ShardDataset]:
    """Export all shards of a context, or find them exported; once this returns, no record or value is read from the source any more.

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
        SourceError, IntegrityError, StoreError: as the stages say.
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


def verify_dataset(runner: StageRunner, kernel: Kernel, dataset: ShardDataset, source: FlatStateSource | None) -> ShardDataset:
    """Recompute a dataset's state root, compare it with the trusted one, and note both root and memory usage in its summary.

    Args:
        source: what this run exported the dataset from; None for a dataset that was there before, which is left as it is.
    Raises:
        StateRootMismatchError: it differs.
    """
    summary = dataset.summary
    if summary.verified_state_root is not None:
        return dataset
    name = str(summary.shard.shard_uid)
    state_root, memory_usage = ZERO_HASH, 0
    edges: list[bytes] = []
    if summary.files:
        tasks = [HashFileTask(dataset, kernel.name, index) for index in range(len(summary.files))]
        edges = runner.run("hash", name, tasks, TaskNeeds(HASH_TASK_MEMORY_BYTES), lambda _: Amount())
        sealed = kernel.seal(edges)
        state_root, memory_usage = sealed.state_root, sealed.memory_usage
    if source is None:
        check_state_root(summary.shard.state_root, state_root, _what(dataset))
        return dataset
    return settle_root(dataset, state_root, memory_usage, RootExplanation(kernel, source, lambda: edges, dataset.read_file))


@dataclass(frozen=True, slots=True)
class RootExplanation:
    """What it takes to say where an export differs from the trusted state."""

    kernel: Kernel
    source: FlatStateSource
    read_edges: Callable[[], Sequence[bytes]]
    """Reads the hashed edges of all key ranges, in order."""
    read_range: Callable[[int], Sequence[pa.RecordBatch]]

    def difference(self, shard: ShardContext) -> str:
        """Name the differing keys, as narrow as the source's own trie tells; empty where it can't."""
        edges = self.read_edges()
        if shard.state_root is None or not edges:
            return ""
        named = name_difference(self.kernel, edges, self.read_range, TrustedTrie(shard.state_root, lambda node: self._node(shard, node)))
        return "" if named is None else f", {named}"

    def _node(self, shard: ShardContext, node_hash: bytes) -> bytes | None:
        try:
            return next((bytes(batch.column(1)[0].as_py()) for batch in self.source.values(shard, [node_hash], 1)), None)
        except (ValueMismatchError, SourceError):
            return None


def settle_root(dataset: ShardDataset, state_root: CryptoHash, memory_usage: int, explanation: RootExplanation) -> ShardDataset:
    """Compare an export's recomputed state root with the trusted one and note it in the dataset.

    A dataset that does not hash to the trusted root is removed, so that a rerun exports anew.

    Raises:
        StateRootMismatchError: the roots differ; names the keys where they do, where that can be told.
    """
    summary = dataset.summary
    try:
        check_state_root(summary.shard.state_root, state_root, _what(dataset))
    except StateRootMismatchError as error:
        where = _what(dataset) + explanation.difference(summary.shard)
        discard_export(dataset)
        raise replace(error, where=where) from None
    if summary.verified_state_root is not None:
        return dataset
    return store_summary(ShardDataset(dataset.url, replace(summary, verified_state_root=state_root, memory_usage=memory_usage)))


def _what(dataset: ShardDataset) -> str:
    return f"shard {dataset.summary.shard.shard_uid} of {dataset.summary.source}"
