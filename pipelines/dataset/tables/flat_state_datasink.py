"""Decoded records out of a Ray dataset into the layout of decoded tables: `write_flat_state`.

Each write task stores its Parquet files whole, under names of this write alone; the driver writes ``tables.json`` of every shard once all
are stored, and enters the epoch in the catalogue. Until then, and after a failure, there are no tables for a reader.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from pipelines.dataset.arrow_dataset import ShardDataset, read_dataset
from pipelines.dataset.tables.decode_tables import finish_tables, load_tables, shard_of
from pipelines.dataset.tables.decoded_records import DECODED_ROWS_MAX
from pipelines.dataset.tables.export_tables import chosen_epoch
from pipelines.dataset.tables.table_writer import write_tables
from pipelines.dataset.tables.tables_place import TablesPlace
from pipelines.stores.open_store import open_store
from schemas.dataset.decoded_record import DECODED_SCHEMA
from schemas.dataset.tables_selection import TablesSelection
from schemas.dataset.tables_summary import TableFile
from schemas.errors import InvalidInputError, ObjectExistsError, StatecastError
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.trie_key import TrieKeyKind

# After our own: what imports Ray first sets what Ray reads from the environment.
import pipelines.dataset.tables.flat_state_datasource  # isort: skip  # noqa: F401
import ray.data  # isort: skip
from ray.data.block import BlockAccessor  # isort: skip

Written = list[tuple[str, TableFile]]
"""Shard uid and file of what one task stored."""

WRITE_ROWS_MIN = 1 << 18
"""Rows that one write task is given, if there are as many: fewer make small files."""


class FlatStateDatasink(ray.data.Datasink):  # type: ignore[misc]
    """Takes rows with the columns of ``DECODED_SCHEMA``."""

    def __init__(self, context: EpochContext, shards: Sequence[ShardDataset], url: str) -> None:
        """Take the epoch.

        Args:
            context: of the epoch.
            shards: the exported shards whose records the rows are.
            url: where the tables go.
        """
        self._context = context
        # The sink goes to every write task.
        self._shards = {str(shard.summary.shard.shard_uid): shard.reference for shard in shards}
        self._url = url
        self._write_id = uuid.uuid4().hex[:12]

    @property
    def min_rows_per_write(self) -> int:
        """Rows that a write task is given at least, if there are as many."""
        return WRITE_ROWS_MIN

    def on_write_start(self, schema: pa.Schema | None = None) -> None:
        """Refuse rows without the columns, shards that have tables, and a place that holds other tables; take the place.

        Raises:
            InvalidInputError: a column is missing, or the tables there are of a selection.
            ObjectExistsError: a shard's tables are there.
            DatasetError: tables of another chain, epoch or layout are there.
        """
        missing = [] if schema is None else sorted({*DECODED_SCHEMA.names} - {*schema.names})
        if missing:
            raise InvalidInputError(problem=f"the rows have no column {missing[0]}", remedy="Read them with all columns, decoded.")
        for name, shard in self._shards.items():
            if load_tables(read_dataset(shard), self._url) is not None:
                raise ObjectExistsError(problem=f"shard {name} has tables already", where=self._url, remedy="Name another place.")
        self._place().refuse_other_epoch(self._context)

    def write(self, blocks: Iterable[Any], ctx: Any) -> Written:
        """Store one task's rows. A task that runs twice stores the same names twice."""
        store = open_store(self._url)
        # A block without rows may be without columns too.
        filled = [_checked(block) for block in blocks if BlockAccessor.for_block(block).num_rows()]
        table = pa.concat_tables([DECODED_SCHEMA.empty_table(), *filled])
        written: Written = []
        for name in table.column("shard_uid").unique().to_pylist():
            shard = self._shards.get(name)
            if shard is None:
                raise InvalidInputError(problem=f"a row is of shard {name}, which is not written here")
            rows = table.filter(pa.compute.equal(table.column("shard_uid"), name))
            batches = rows.to_batches(max_chunksize=DECODED_ROWS_MAX)
            of_shard = shard_of(read_dataset(shard), TablesSelection())
            files = write_tables(store, of_shard, batches, f"write-{self._write_id}-{ctx.task_idx:06d}", ascending=False)
            written.extend((name, file) for file in files)
        return written

    def on_write_complete(self, write_result: Any) -> None:
        """Write ``tables.json`` of every shard, and enter the epoch in the catalogue."""
        written = [entry for task in write_result.write_returns for entry in task]
        finished = []
        for name, shard in self._shards.items():
            files, dataset = [file for uid, file in written if uid == name], read_dataset(shard)
            complete = sum(file.records for file in files) == dataset.summary.records
            finished.append(finish_tables(dataset, self._url, TablesSelection(), [files], complete=complete))
        self._place().finish(self._context, finished)

    def on_write_failed(self, error: Exception) -> None:
        """Remove what this write stored."""
        store = open_store(self._url)
        for kind in TrieKeyKind:
            for info in list(store.list(f"kind={kind}")):
                if f"/write-{self._write_id}-" in info.name:
                    store.delete(info.name)

    def _place(self) -> TablesPlace:
        return TablesPlace.take(self._url, self._context.chain_id, TablesSelection())


def _checked(block: Any) -> pa.Table:
    """Return a block as a table of the schema's columns and types; further columns are left out."""
    table = BlockAccessor.for_block(block).to_arrow()
    try:
        return table.select(DECODED_SCHEMA.names).cast(DECODED_SCHEMA)
    except (KeyError, pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise InvalidInputError(problem=f"the rows do not have the columns of decoded records: {error}") from None


def write_flat_state(
    dataset: ray.data.Dataset,
    url: str,
    *,
    source: str,
    epoch: str = "latest",
    shard_ids: Sequence[int] = (),
    **write_options: Any,
) -> None:
    """Write the rows that `read_flat_state` gave, or some of them, as decoded tables.

    Args:
        dataset: rows with all columns of decoded records; further columns are left out.
        url: where the tables go.
        source: URL of the Arrow dataset that the rows are of: it says chain, epoch and state roots.
        epoch: as for `read_flat_state`.
        shard_ids: the shards to write; none for all.
        write_options: of ``Dataset.write_datasink``: concurrency, ray_remote_args.
    Raises:
        InvalidInputError: a column is missing or of another type, or a row is of another shard.
        ObjectExistsError: a shard's tables are there.
        StoreError: the tables can't be written.
    """
    sink = FlatStateDatasink(*chosen_epoch(source, epoch, shard_ids), url)
    try:
        dataset.write_datasink(sink, **write_options)
    except Exception as error:
        cause = _own_cause(error)
        if cause is None:
            raise
        raise cause from None


def _own_cause(error: BaseException) -> StatecastError | None:
    """Return the error of ours that Ray wrapped."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, StatecastError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return None
