"""Drives the making of decoded tables out of an exported epoch, and the proof that the dataset is the chain's state."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipelines.dataset.arrow_dataset import DATASET_SCHEME, ShardDataset, list_shards, select_epoch
from pipelines.dataset.tables.decode_tables import earlier_tables, finish_tables, load_tables, plan_tables, shard_of
from pipelines.dataset.tables.tables_place import TablesPlace
from pipelines.dataset.verify_dataset import check_state_root, dataset_name, recompute_root
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.kernel.trie_kernel import Kernel
from schemas.dataset.tables_summary import TablesShard
from schemas.errors import DatasetError
from schemas.nearcore.epoch_context import EpochContext

TABLES_TASK_MEMORY_BYTES = 500 << 20
"""Peak memory of decoding one dataset file: its records, their columns, the Parquet file of each kind."""


def chosen_shards(url: str, epoch: str = "latest", shard_ids: Collection[int] = ()) -> list[ShardDataset]:
    """Return an epoch's exported shards, as `chosen_epoch`."""
    return chosen_epoch(url, epoch, shard_ids)[1]


def chosen_epoch(url: str, epoch: str = "latest", shard_ids: Collection[int] = ()) -> tuple[EpochContext, list[ShardDataset]]:
    """Return an epoch's context and its exported shards.

    Args:
        url: of the dataset, with or without ``dataset://``.
        epoch: ``latest``, a height or an id.
        shard_ids: none for all.
    Raises:
        DatasetError, EpochNotReadyError, InvalidInputError: no dataset, no such epoch, no such shard.
    """
    context, shards = select_epoch(list_shards(url.removeprefix(DATASET_SCHEME)), epoch)
    chosen = context.only(tuple(shard_ids))
    kept = {shard.shard_uid for shard in chosen.shards}
    return chosen, [shard for shard in shards if shard.summary.shard.shard_uid in kept]


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


@dataclass(frozen=True, slots=True)
class TablesExport:
    """The tables of an epoch's exported shards, made and entered in the catalogue of their place."""

    runner: StageRunner
    place: TablesPlace
    strict: bool = False
    """Fail on a record that does not decode, in place of noting it in its row."""

    def shard(self, dataset: ShardDataset) -> TablesShard:
        """Write the tables of a shard; a rerun goes on where an earlier one ended.

        Raises:
            DatasetError: the dataset's state root was never recomputed, or a file is missing or changed.
            MalformedValueError: in strict mode.
            StoreError: the tables can't be written.
        """
        require_recomputed([dataset])
        place, context = self.place, dataset.summary.context
        shard_id = dataset.summary.shard.shard_id
        left = load_tables(dataset, place.url)
        if left is not None and not _made_of(left, dataset):
            place.withdraw(context.epoch_height, shard_id)
        earlier = earlier_tables(place.tables_before(context.epoch_height, shard_id))
        written = self.runner.run(
            "tables",
            str(dataset.summary.shard.shard_uid),
            plan_tables(dataset, place.url, place.selection, self.strict, earlier),
            TaskNeeds(TABLES_TASK_MEMORY_BYTES),
            lambda files: Amount(records=sum(file.records for file in files), size=sum(file.size for file in files)),
        )
        return finish_tables(dataset, place.url, place.selection, written)


def export_tables(
    runner: StageRunner, context: EpochContext, shards: Sequence[ShardDataset], place: TablesPlace, strict: bool = False
) -> list[TablesShard]:
    """Write the decoded tables of an epoch's exported shards, then enter the epoch in the catalogue; a rerun goes on where an earlier one ended.

    Args:
        context: of the epoch.
        strict: fail on a record that does not decode, in place of noting it in its row.
    Returns:
        The tables a shard, in the order given.
    Raises:
        DatasetError: a dataset's state root was never recomputed, or a file is missing or changed; or the place has another epoch of
            the same height.
        MalformedValueError: in strict mode.
        StoreError: the tables can't be written.
    """
    require_recomputed(shards)
    place.refuse_other_epoch(context)
    export = TablesExport(runner, place, strict)
    tables = [export.shard(shard) for shard in shards]
    place.finish(context, tables)
    return tables


def require_recomputed(shards: Sequence[ShardDataset]) -> None:
    """Refuse datasets whose state root is not noted: they need not be the chain's state.

    Raises:
        DatasetError: one has none.
    """
    for shard in shards:
        if shard.summary.verified_state_root is None:
            raise DatasetError(
                problem="the dataset's state root was not recomputed",
                where=f"{shard.url}/{shard.folder}",
                remedy="Run the export again to its end.",
            )


def _made_of(tables: TablesShard, dataset: ShardDataset) -> bool:
    """Tell whether a shard's tables were made of a dataset's files, and say the block that it does."""
    if tables.block != shard_of(dataset, tables.selection).block:
        return False
    return [one.source_sha256 for one in tables.ranges] == [file.sha256 for file in dataset.summary.files]
