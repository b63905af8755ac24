"""Drives the making of decoded tables out of an exported epoch, and the proof that the dataset is the chain's state."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pipelines.dataset.arrow_dataset import DATASET_SCHEME, ShardDataset, list_shards, select_epoch
from pipelines.dataset.tables.decode_tables import finish_tables, plan_tables
from pipelines.dataset.verify_dataset import check_state_root, dataset_name, recompute_root
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.kernel.trie_kernel import Kernel
from schemas.dataset.tables_summary import TablesShard
from schemas.errors import DatasetError

TABLES_TASK_MEMORY_BYTES = 500 << 20
"""Peak memory of decoding one dataset file: its records, their columns, the Parquet file of each kind."""


def chosen_shards(url: str, epoch: str = "latest", shard_ids: Collection[int] = ()) -> list[ShardDataset]:
    """Return an epoch's exported shards.

    Args:
        url: of the dataset, with or without ``dataset://``.
        epoch: ``latest``, a height or an id.
        shard_ids: none for all.
    Raises:
        DatasetError, EpochNotReadyError, InvalidInputError: no dataset, no such epoch, no such shard.
    """
    context, shards = select_epoch(list_shards(url.removeprefix(DATASET_SCHEME)), epoch)
    kept = {shard.shard_uid for shard in context.only(tuple(shard_ids)).shards}
    return [shard for shard in shards if shard.summary.shard.shard_uid in kept]


def prove_roots(runner: StageRunner, kernel: Kernel, shards: Sequence[ShardDataset]) -> None:
    """Recompute the state roots from the files and compare them with the chain's, or where those are not known with the noted ones.

    Raises:
        StateRootMismatchError: one differs.
        DatasetError: a shard has neither.
    """
    for shard in shards:
        summary = shard.summary
        expected = summary.shard.state_root or summary.verified_state_root
        if expected is None:
            raise DatasetError(problem="no state root is known", where=f"{shard.url}/{shard.folder}", remedy="Export the shard again.")
        check_state_root(expected, recompute_root(runner, kernel, shard).state_root, dataset_name(shard))


def export_tables(runner: StageRunner, shards: Sequence[ShardDataset], url: str, strict: bool = False) -> list[TablesShard]:
    """Write the decoded tables of exported shards; a rerun goes on where an earlier one ended.

    Args:
        url: where the tables go.
        strict: fail on a record that does not decode, in place of noting it in its row.
    Returns:
        The tables a shard, in the order given.
    Raises:
        DatasetError: a dataset's state root was never recomputed, or a file is missing or changed.
        MalformedValueError: in strict mode.
        StoreError: the tables can't be written.
    """
    for shard in shards:
        if shard.summary.verified_state_root is None:
            raise DatasetError(
                problem="the dataset's state root was not recomputed",
                where=f"{shard.url}/{shard.folder}",
                remedy="Run the export again to its end.",
            )
    tables = []
    for shard in shards:
        name = str(shard.summary.shard.shard_uid)
        tasks = plan_tables(shard, url, strict)
        written = runner.run(
            "tables",
            name,
            tasks,
            TaskNeeds(TABLES_TASK_MEMORY_BYTES),
            lambda files: Amount(records=sum(file.records for file in files), size=sum(file.size for file in files)),
        )
        tables.append(finish_tables(shard, url, written))
    return tables
