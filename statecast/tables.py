"""Decoded tables of one finished epoch, in the library of your choice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from pipelines.dataset.tables.tables_place import FinishedTables, open_tables
from pipelines.stores.arrow_file_system import arrow_file_system
from pipelines.stores.open_store import open_store
from schemas.errors import InvalidInputError
from schemas.nearcore.trie_key import TrieKeyKind

if TYPE_CHECKING:
    import duckdb
    import polars
    import pyarrow.dataset
    import ray.data

_PATH_FIELDS: Final = (
    pa.field("kind", pa.utf8()),
    pa.field("chain_id", pa.utf8()),
    pa.field("epoch_height", pa.int64()),
    pa.field("shard_id", pa.int64()),
)


def scan(url: str | PathLike[str], *, kind: str, epoch: str | int = "latest") -> TableScan:
    """Choose a table of a finished epoch. Only summaries are read: which files it has is known from them, and not from a listing.

    Args:
        url: of the tables that ``statecast tables`` or ``statecast produce --tables`` wrote: a folder, or a place in a bucket or on the web.
        kind: ``account``, ``access_key``, ``contract_data``, …
        epoch: ``latest`` (the newest complete one), a height or an id.
    Raises:
        InvalidInputError: an unknown kind, or one that is not written there.
        EpochNotReadyError: no such epoch is finished; it says which are.
        DatasetError: no tables are there, or of an older layout, or a summary is damaged.
        StoreError: the place can't be read.
    """
    if kind not in [str(one) for one in TrieKeyKind]:
        raise InvalidInputError(problem=f"no kind of record is called {kind!r:.80}", remedy=f"There are {', '.join(TrieKeyKind)}.")
    tables = open_tables(fspath(url), str(epoch))
    written = tables.catalogue.selection.written_kinds
    if kind not in written:
        raise InvalidInputError(
            problem=f"records of kind {kind} are not written there", where=fspath(url), remedy=f"There are {', '.join(written)}."
        )
    return TableScan(tables, TrieKeyKind(kind))


@dataclass(frozen=True, slots=True)
class TableScan:
    """One table of one finished epoch; made by `scan`.

    Its rows have the columns of the files, and those of their paths: ``kind``, ``chain_id``, ``epoch_height``, ``shard_id``. It has the
    Arrow PyCapsule interface (``__arrow_c_stream__``), so ``polars.DataFrame(scan)``, ``pyarrow.table(scan)`` and DuckDB
    (``select … from scan``) take it as it is; the methods below push filters and columns down to the files.
    """

    _tables: FinishedTables
    _kind: TrieKeyKind

    @property
    def kind(self) -> str:
        """Of its records."""
        return str(self._kind)

    @property
    def chain_id(self) -> str:
        """As the genesis file says it."""
        return self._tables.catalogue.chain_id

    @property
    def epoch_height(self) -> int:
        """The epoch's height."""
        return self._tables.entry.epoch_height

    @property
    def epoch_id(self) -> str:
        """The epoch's id in base58."""
        return str(self._tables.entry.epoch_id)

    @property
    def block_height(self) -> int | None:
        """Height of the newest block that a shard's state is after; None where the tables' maker did not know it."""
        block = self._tables.entry.block
        return None if block is None else block.height

    @property
    def block_timestamp(self) -> datetime | None:
        """Time of that block, in UTC."""
        block = self._tables.entry.block
        return None if block is None else block.time

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self._tables.entry.records_by_kind.get(self._kind, 0)

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return pa.schema([*self._tables.catalogue.selection.schema(self._kind), *_PATH_FIELDS])

    def arrow(self) -> pyarrow.dataset.Dataset:
        """Return it as pyarrow's dataset; ``.to_table(columns=…, filter=…).to_pandas()`` is pandas' frame."""
        import pyarrow.dataset as arrow_dataset

        system, files = arrow_file_system(open_store(self._tables.url)), arrow_dataset.ParquetFileFormat()
        fragments = []
        for shard, file in self._tables.files(self._kind):
            values = (self.kind, self.chain_id, self.epoch_height, shard.shard_uid.shard_id)
            within = arrow_dataset.scalar(True)
            for field, value in zip(_PATH_FIELDS, values, strict=True):
                within = within & (arrow_dataset.field(field.name) == pa.scalar(value, field.type))
            fragments.append(files.make_fragment(file.name, system, partition_expression=within))
        if not fragments:
            return arrow_dataset.dataset(self.schema.empty_table())
        return arrow_dataset.FileSystemDataset(fragments, self.schema, files, system)

    def polars(self) -> polars.LazyFrame:
        """Return it as polars' lazy frame.

        Raises:
            InvalidInputError: polars is not installed.
        """
        frame: polars.LazyFrame = _library("polars").scan_pyarrow_dataset(self.arrow())
        return frame

    def duckdb(self, connection: duckdb.DuckDBPyConnection | None = None) -> duckdb.DuckDBPyRelation:
        """Return it as DuckDB's relation.

        Args:
            connection: None for DuckDB's own default.
        Raises:
            InvalidInputError: DuckDB is not installed.
        """
        relation: duckdb.DuckDBPyRelation = (connection or _library("duckdb")).from_arrow(self.arrow())
        return relation

    def ray(self, **read_options: Any) -> ray.data.Dataset:
        """Return it as Ray's dataset, read on Ray's workers.

        Args:
            read_options: of ``ray.data.read_parquet``: concurrency, override_num_blocks, …
        Raises:
            InvalidInputError: Ray Data is not installed.
        """
        # Ours first: it sets what Ray reads from the environment when it is imported.
        import pipelines.execution.on_ray  # noqa: F401

        data = _library("ray.data")
        names = [file.name for _, file in self._tables.files(self._kind)]
        if not names:
            return data.from_arrow(self.schema.empty_table())
        types = {field.name: str if pa.types.is_string(field.type) else int for field in _PATH_FIELDS}
        partitioning = data.datasource.Partitioning("hive", base_dir="", field_types=types)
        return data.read_parquet(
            names, filesystem=arrow_file_system(open_store(self._tables.url)), partitioning=partitioning, **read_options
        )

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the stream through Arrow's C interface."""
        return self.arrow().scanner().to_reader().__arrow_c_stream__(requested_schema)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        extra = "'statecast[data]'" if name.startswith("ray") else name
        raise InvalidInputError(problem=f"{name} can't be imported: {error}", remedy=f"pip install {extra}") from error
