"""Data files of Iceberg tables: the records of one file of a dataset as a Parquet file for each kind, with the columns that Iceberg knows.

The columns of a path are in the file too, since Iceberg tells a file's partition by its columns. Iceberg has no unsigned numbers: those of
16 and 32 bits are the next wider signed ones, those of 64 bits decimals of 20 digits, so that nothing is cut off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.dataset.arrow_dataset import read_dataset
from pipelines.dataset.tables.decode_tables import left_by_task, shard_of
from pipelines.dataset.tables.decoded_span import DecodedSpan
from pipelines.dataset.tables.table_writer import ROW_GROUP_BYTES_MAX
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from schemas.dataset.tables_selection import TablesSelection
from schemas.dataset.tables_summary import ICEBERG_NOTES, TableFile, TablesShard, table_constants, written_to_bytes
from schemas.nearcore.trie_key import TrieKeyKind

FORMAT: Final = "statecast.iceberg_tables.1"

PATH_FIELDS: Final = (pa.field("chain_id", pa.utf8()), pa.field("epoch_height", pa.int64()), pa.field("shard_id", pa.int64()))

_WIDER: Final = {pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.decimal128(20, 0)}


def iceberg_columns(selection: TablesSelection, kind: TrieKeyKind) -> pa.Schema:
    """Return the columns of a kind's table; all may be null, so that later versions may leave some out."""
    fields = (field.with_type(_WIDER.get(field.type, field.type)).with_nullable(True) for field in selection.schema(kind))
    return pa.schema([*PATH_FIELDS, *fields])


@dataclass(frozen=True, slots=True)
class WriteIcebergTask:
    """Makes a data file for each kind of record in one file of a dataset."""

    span: DecodedSpan
    """All of the file."""
    url: str
    """Where the tables go."""
    selection: TablesSelection

    def run(self) -> tuple[TableFile, ...]:
        """Write the files, or return what an earlier run left. No table has them before the driver commits them.

        Raises:
            DatasetError: the dataset's file is missing or changed.
            MalformedValueError: a record does not decode, in strict mode.
            StoreError: the files can't be written.
        """
        store, dataset = open_store(self.url), read_dataset(self.span.dataset)
        shard = shard_of(dataset, self.selection)
        facts = (FORMAT, self.span.file.sha256, self.span.selection.strict, self.selection.to_json(), str(shard.context.epoch_id))
        schemas = [str(iceberg_columns(self.selection, kind)) for kind in self.selection.written_kinds]
        fingerprint = hashlib.sha256(json.dumps([facts, schemas, str(shard.block)]).encode()).hexdigest()
        place = f"epoch_height={shard.context.epoch_height}/shard_id={shard.shard_uid.shard_id}"
        stem = PurePosixPath(self.span.file.name).stem
        note = f"{ICEBERG_NOTES}/{place}/{stem}.json"
        left = left_by_task(store, note, fingerprint)
        if left is not None:
            return left
        # An older snapshot may have a file of the same records with other columns.
        files = _write(store, shard, self.span.read(), f"data/{place}/{stem}-{fingerprint[:16]}.parquet")
        store.put(note, written_to_bytes(files, fingerprint))
        return files


def _write(store: Store, shard: TablesShard, batches: Iterable[pa.RecordBatch], name: str) -> tuple[TableFile, ...]:
    writers: dict[str, _KindFile] = {}
    for batch in batches:
        table = pa.Table.from_batches([batch])
        for kind in table.column("kind").unique().to_pylist():
            if kind not in writers:
                writers[kind] = _KindFile(shard, TrieKeyKind(kind))
            writers[kind].add(table.filter(pc.equal(table.column("kind"), kind)))
    return tuple(writer.put(store, f"{kind}/{name}") for kind, writer in writers.items())


class _KindFile:
    def __init__(self, shard: TablesShard, kind: TrieKeyKind) -> None:
        self._kind, self._schema = kind, iceberg_columns(shard.selection, kind)
        context = shard.context
        path = (context.chain_id, context.epoch_height, shard.shard_uid.shard_id)
        self._constants = {field.name: pa.scalar(value, field.type) for field, value in zip(PATH_FIELDS, path, strict=True)}
        self._constants |= table_constants(shard)
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd", write_page_index=True)
        self._records = self._decode_errors = 0

    def add(self, table: pa.Table) -> None:
        columns = [
            pa.repeat(self._constants[field.name], table.num_rows)
            if field.name in self._constants
            else table.column(field.name).cast(field.type)
            for field in self._schema
        ]
        rows = max(1, table.num_rows * ROW_GROUP_BYTES_MAX // max(1, table.nbytes))
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=rows)
        self._records += table.num_rows
        self._decode_errors += table.num_rows - table.column("decode_error").null_count

    def put(self, store: Store, name: str) -> TableFile:
        self._writer.close()
        data = self._sink.getvalue()
        store.put(name, data)
        return TableFile(name, str(self._kind), self._records, self._decode_errors, data.size, hashlib.sha256(data).hexdigest())
