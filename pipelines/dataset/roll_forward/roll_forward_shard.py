"""Drives the roll forward of one shard: from an older epoch's dataset to a later epoch's, unproved as yet."""

from __future__ import annotations

from dataclasses import replace

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.export.export_records import (
    CopiedValues,
    ExportSettings,
    discard_unreadable_shard,
    put_state_header,
    remove_unnamed,
    store_summary,
)
from pipelines.dataset.roll_forward.roll_forward_tasks import (
    CollectChangesTask,
    RollOwnValuesTask,
    RollRecordsTask,
    RollSharedValuesTask,
    rolled_shard,
)
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.near.node.node_state_header import find_node_state_header
from schemas.dataset.dataset_summary import RecordsFile
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.shard_layout import ShardLayout

COLLECT_TASK_MEMORY_BYTES = 600 << 20
"""Peak memory of collecting changes: a run of the external sort, and a file being put together."""

ROLL_TASK_MEMORY_BYTES = 600 << 20
"""Peak memory of rewriting one file: the old file, the new one, and the order between them."""


def roll_forward_shard(
    runner: StageRunner,
    node_home: str,
    older: ShardDataset,
    context: EpochContext,
    shard: ShardContext,
    *,
    layout: ShardLayout | None,
    settings: ExportSettings,
    read_limit_bytes_per_s: int | None = None,
) -> ShardDataset:
    """Make a shard's dataset out of an older one of the same shard.

    The caller proves the result against the state root, as it does a fresh export.

    Args:
        layout: as `pipelines.near.trie.changed_records.find_known_layout` found it.
    Raises:
        SnapshotMismatchError: headers or state changes of a block are gone.
        SourceError, IntegrityError, StoreError: passed on from the tasks.
    """
    name = str(shard.shard_uid)
    alone = replace(context, shards=(shard,))
    discard_unreadable_shard(settings.dataset_url, alone)
    collecting = [CollectChangesTask(node_home, older.reference, alone, layout, settings, read_limit_bytes_per_s)]
    (changes,) = runner.run(
        "changes", name, collecting, TaskNeeds(COLLECT_TASK_MEMORY_BYTES, node_disk=True), lambda found: Amount(found.count, found.size)
    )
    needs = TaskNeeds(ROLL_TASK_MEMORY_BYTES)
    given = (older.reference, changes.dataset, alone, settings)
    records = [RollRecordsTask(*given, index, index in changes.touched) for index in range(max(1, len(older.summary.files)))]
    files = runner.run("roll forward", name, records, needs, _rolled)
    own, shared = (max(1, len(found)) for found in (older.summary.values_files, older.summary.shared_values_files))
    rolling: list[RollOwnValuesTask | RollSharedValuesTask] = [
        *(RollOwnValuesTask(*given, index, index in changes.own_touched) for index in range(own)),
        *(RollSharedValuesTask(*given, index, index in changes.shared_touched) for index in range(shared)),
    ]
    values = runner.run("values", name, rolling, needs, _copied)
    header = find_node_state_header(node_home, context.chain_id, shard.shard_uid, context.sync_hash)
    put_state_header(settings, alone, header)
    summary = rolled_shard(older, changes, alone, files=tuple(file for group in files for file in group), values=values, header=header)
    remove_unnamed(settings.dataset_url, summary)
    return store_summary(settings.dataset_url, summary)


def _rolled(files: tuple[RecordsFile, ...]) -> Amount:
    return Amount(records=sum(file.records for file in files), size=sum(file.size for file in files))


def _copied(values: CopiedValues) -> Amount:
    return Amount(size=sum(file.size for file in (*values.own, *values.shared)))
