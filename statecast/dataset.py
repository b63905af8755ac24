"""A dataset: an epoch's whole flat state as Arrow or Parquet files, scanned as keys and values or as typed columns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.tables.decoded_records import decoded_schema
from pipelines.dataset.tables.decoded_span import DecodedSpan, Selection, decoded_spans, select
from pipelines.dataset.tables.export_tables import chosen_shards, prove_roots
from pipelines.execution.stage_runner import silent_runner
from pipelines.kernel.choice import choose_kernel
from pipelines.stores.arrow_file_system import arrow_file_system
from pipelines.stores.open_store import open_store
from schemas.dataset.flat_state import RECORD_SCHEMA
from schemas.errors import InvalidInputError
from schemas.nearcore.block import committed_supply

if TYPE_CHECKING:
    import pyarrow.dataset


def open_dataset(url: str | PathLike[str], *, epoch: str | int = "latest") -> Dataset:
    """Open what ``statecast export`` or ``statecast restore`` wrote. Only summaries are read.

    Args:
        url: of the dataset, with or without ``dataset://``: a folder, or a place in a bucket or on the web.
        epoch: ``latest``, a height or an id.
    Raises:
        DatasetError: no dataset is there, or its summary is damaged.
        EpochNotReadyError: it has no such epoch.
        StoreError: the place can't be read.
    """
    return Dataset(tuple(chosen_shards(fspath(url), str(epoch))))


@dataclass(frozen=True, slots=True)
class Dataset:
    """The exported shards of one epoch; opened by `open_dataset`."""

    _shards: tuple[ShardDataset, ...]

    @property
    def chain_id(self) -> str:
        """As the genesis file says it."""
        return self._shards[0].summary.context.chain_id

    @property
    def epoch_height(self) -> int:
        """The epoch's height."""
        return self._shards[0].summary.context.epoch_height

    @property
    def epoch_id(self) -> str:
        """The epoch's id in base58."""
        return str(self._shards[0].summary.context.epoch_id)

    @property
    def shard_ids(self) -> tuple[int, ...]:
        """The shards that were exported."""
        return tuple(shard.summary.shard.shard_id for shard in self._shards)

    @property
    def state_roots(self) -> dict[int, str | None]:
        """By shard id: the state root in base58 that was recomputed from the records; None if it was not."""
        return {
            shard.summary.shard.shard_id: None if shard.summary.verified_state_root is None else str(shard.summary.verified_state_root)
            for shard in self._shards
        }

    @property
    def records(self) -> int:
        """How many records all its shards have."""
        return sum(shard.summary.records for shard in self._shards)

    @property
    def total_supply(self) -> int | None:
        """YoctoNEAR that there are, by the header of the block whose chunks name this state, or by the genesis; None where the dataset has neither.

        Accounts, gas keys, receipts in the state and receipts between shards add up to it.
        """
        summary = self._shards[0].summary
        if summary.shard.genesis_block is not None:
            return summary.shard.genesis_block.total_supply
        return committed_supply(summary.context.block_headers, self._shards[0].url)

    def verify(self) -> None:
        """Read all files, recompute each shard's state root in this process, and compare it with the chain's.

        Raises:
            StateRootMismatchError: one differs.
            DatasetError: a file is missing or damaged, or no state root is known.
        """
        prove_roots(silent_runner(), choose_kernel("auto"), self._shards)

    def files(self, *, shard_ids: Collection[int] | None = None) -> pyarrow.dataset.Dataset:
        """Return the files of records as pyarrow's dataset: ``key``, ``value``, ``value_length``, ``value_hash``, as they are stored.

        pyarrow, polars (``scan_pyarrow_dataset``) and DuckDB push filters and columns down to it. What it reads is not checked against
        the summaries, as `scan` does: `verify` does that, and more.

        Args:
            shard_ids: all by default.
        Raises:
            InvalidInputError: an unknown shard.
        """
        import pyarrow.dataset as arrow_dataset

        fragments, files, system = [], None, None
        for shard in self._chosen(shard_ids):
            for file in shard.summary.files:
                files = files or (arrow_dataset.IpcFileFormat() if file.name.endswith(".arrow") else arrow_dataset.ParquetFileFormat())
                system = system or arrow_file_system(open_store(shard.url))
                uid = str(shard.summary.shard.shard_uid)
                within = arrow_dataset.field("shard_uid") == uid
                fragments.append(files.make_fragment(f"{shard.folder}/{file.name}", system, partition_expression=within))
        schema = pa.schema([pa.field("shard_uid", pa.string()), *RECORD_SCHEMA])
        return arrow_dataset.FileSystemDataset(fragments, schema, files or arrow_dataset.IpcFileFormat(), system)

    def scan(
        self,
        *,
        shard_ids: Collection[int] | None = None,
        kinds: Collection[str] | None = None,
        columns: Sequence[str] | None = None,
        decode: bool = True,
        strict: bool = False,
    ) -> Scan:
        """Choose records and columns. Nothing is read yet.

        Args:
            shard_ids: all by default.
            kinds: ``account``, ``access_key``, ``contract_data``, …; all by default. Files that can't hold them are not opened.
            columns: those that the kinds have by default (the decoded tables' specification lists them). Others are not computed.
            decode: False gives keys and values as they are stored.
            strict: raise on a record that does not decode, in place of noting it in the column ``decode_error``.
        Raises:
            InvalidInputError: an unknown kind, column or shard.
        """
        return Scan(self._chosen(shard_ids), select(kinds, columns, decode, strict))

    def _chosen(self, shard_ids: Collection[int] | None) -> tuple[ShardDataset, ...]:
        unknown = sorted(set(shard_ids or ()) - set(self.shard_ids))
        if unknown:
            raise InvalidInputError(
                problem=f"shard {unknown[0]} is not in the dataset", remedy=f"It has {', '.join(map(str, self.shard_ids))}."
            )
        return tuple(shard for shard in self._shards if shard_ids is None or shard.summary.shard.shard_id in shard_ids)


@dataclass(frozen=True, slots=True)
class Scan:
    """Chosen records and columns of a dataset, shard by shard in key order; made by `Dataset.scan`.

    It has the Arrow PyCapsule interface (``__arrow_c_stream__``), so ``polars.DataFrame(scan)``, ``pyarrow.table(scan)`` and DuckDB
    (``select … from scan``) take it as it is, each time from the begin.
    """

    _shards: tuple[ShardDataset, ...]
    _selection: Selection

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        assert self._selection.columns is not None, "all record batches of a scan have the same columns"
        return decoded_schema(self._selection.columns)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield record batches; one at a time is in memory, with what the file's own record batch takes.

        Raises:
            DatasetError: a file is missing or changed.
            MalformedValueError: in strict mode.
        """
        for span in self._spans():
            yield from span.read()

    def reader(self) -> pa.RecordBatchReader:
        """Return the record batches as pyarrow's stream, which is read once."""
        return pa.RecordBatchReader.from_batches(self.schema, self.batches())

    def table(self) -> pa.Table:
        """Read all of it into memory."""
        return pa.Table.from_batches(self.batches(), self.schema)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the stream through Arrow's C interface."""
        return self.reader().__arrow_c_stream__(requested_schema)

    def _spans(self) -> Iterator[DecodedSpan]:
        for shard in self._shards:
            yield from decoded_spans(shard, self._selection)
