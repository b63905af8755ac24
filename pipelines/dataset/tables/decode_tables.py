"""Decoded tables: the records of an Arrow dataset become Parquet files with typed columns, one task a file of the dataset.

A file is put together in memory and stored whole, and ``tables.json`` comes last, so nothing half-written is ever taken for tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.dataset.arrow_dataset import ShardDataset, read_dataset
from pipelines.dataset.tables.decoded_span import DecodedSpan, Selection, decoded_spans
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from schemas.dataset.dataset_summary import SUMMARY_BYTES_MAX, schema_metadata
from schemas.dataset.decoded_record import kind_schema
from schemas.dataset.tables_summary import TABLES_NAME, TableFile, TablesShard, written_from_bytes, written_to_bytes
from schemas.errors import ObjectNotFoundError
from schemas.nearcore.trie_key import TrieKeyKind

ROW_GROUP_ROWS = 1 << 16
"""Rows of a Parquet row group at least, but for a file's last: what a reader skips by statistics at once, and what a writer holds."""

_UNREPEATING = ("key", "value", "value_hash", "public_key", "nonce", "data_key")
"""Columns of which a dictionary would cost time and save nothing."""


@dataclass(frozen=True, slots=True)
class WriteTablesTask:
    """Decodes one file of a dataset into a Parquet file for each kind of record in it."""

    span: DecodedSpan
    """All of the file."""
    url: str
    """Where the tables go."""

    def run(self) -> tuple[TableFile, ...]:
        """Write the files, or return what an earlier run left.

        Raises:
            DatasetError: the dataset's file is missing or changed.
            MalformedValueError: a record does not decode, in strict mode.
            StoreError: the tables can't be written.
        """
        store, folder = open_store(self.url), self.span.dataset.folder
        stem = PurePosixPath(self.span.file.name).stem
        note = f"{folder}/written/{stem}.json"
        fingerprint = f"{self.span.file.sha256}:{self.span.selection.strict}"
        earlier = _earlier(store, folder, note, fingerprint)
        if earlier is not None:
            return earlier
        files = write_tables(store, read_dataset(self.span.dataset), self.span.read(), stem)
        store.put(note, written_to_bytes(files, fingerprint))
        return files


def write_tables(store: Store, dataset: ShardDataset, batches: Iterable[pa.RecordBatch], stem: str) -> tuple[TableFile, ...]:
    """Store decoded records as a Parquet file for each kind in them.

    Args:
        dataset: whose epoch and shard the records are of.
        batches: with at least the columns of their records' kinds.
        stem: of the files' names.
    """
    summary = dataset.summary
    metadata = schema_metadata(summary.context, summary.shard, summary.memory_usage)
    writers: dict[str, _KindWriter] = {}
    for batch in batches:
        table = pa.Table.from_batches([batch])
        kinds = table.column("kind").unique().to_pylist()
        for kind in kinds:
            of_kind = table if len(kinds) == 1 else table.filter(pc.equal(table.column("kind"), kind))
            if kind not in writers:
                writers[kind] = _KindWriter(kind, metadata)
            writers[kind].add(of_kind)
    return tuple(writer.put(store, dataset.folder, stem) for writer in writers.values())


class _KindWriter:
    """Puts one kind's Parquet file together, a row group at a time."""

    def __init__(self, kind: str, metadata: dict[bytes, bytes]) -> None:
        self._kind = kind
        self._schema = kind_schema(TrieKeyKind(kind)).with_metadata(metadata)
        self._sink = pa.BufferOutputStream()
        repeating = [name for name in self._schema.names if name not in _UNREPEATING]
        self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd", use_dictionary=repeating)
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._records = 0
        self._decode_errors = 0

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table.select(self._schema.names).replace_schema_metadata(self._schema.metadata))
        self._waiting_rows += table.num_rows
        self._records += table.num_rows
        self._decode_errors += table.num_rows - table.column("decode_error").null_count
        if self._waiting_rows >= ROW_GROUP_ROWS:
            self._write_group()

    def _write_group(self) -> None:
        self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=self._waiting_rows)
        self._waiting, self._waiting_rows = [], 0

    def put(self, store: Store, folder: str, stem: str) -> TableFile:
        if self._waiting:
            self._write_group()
        self._writer.close()
        data = self._sink.getvalue()
        name = f"kind={self._kind}/{stem}.parquet"
        store.put(f"{folder}/{name}", data)
        return TableFile(name, self._kind, self._records, self._decode_errors, data.size, hashlib.sha256(data).hexdigest())


def plan_tables(dataset: ShardDataset, url: str, strict: bool = False) -> list[WriteTablesTask]:
    """Return a task a file of a shard's dataset."""
    return [WriteTablesTask(span, url) for span in decoded_spans(dataset, Selection(columns=None, strict=strict))]


def finish_tables(dataset: ShardDataset, url: str, written: Iterable[Sequence[TableFile]]) -> TablesShard:
    """Write ``tables.json``: from here on the shard's tables are complete. Files of earlier tables that are not of these are removed.

    Args:
        written: what the tasks left.
    """
    summary = dataset.summary
    files = tuple(sorted((file for group in written for file in group), key=lambda file: file.name))
    # The block headers are the dataset's own concern.
    context = replace(summary.context, block_headers=())
    tables = TablesShard(context, summary.records, summary.verified_state_root, files)
    store = open_store(url)
    kept = {f"{dataset.folder}/{file.name}" for file in files}
    # A reader of all files in the folder would take an earlier run's for these.
    strays = [info.name for info in store.list(dataset.folder) if info.name.startswith(f"{dataset.folder}/kind=") and info.name not in kept]
    if strays:
        store.delete(f"{dataset.folder}/{TABLES_NAME}")
        for name in strays:
            store.delete(name)
    store.put(f"{dataset.folder}/{TABLES_NAME}", tables.to_bytes())
    return tables


def load_tables(dataset: ShardDataset, url: str) -> TablesShard | None:
    """Return the finished tables of a shard; None where there are none.

    Raises:
        DatasetError: the summary can't be decoded.
    """
    name = f"{dataset.folder}/{TABLES_NAME}"
    try:
        return TablesShard.from_bytes(open_store(url).get(name, 0, SUMMARY_BYTES_MAX + 1), f"{url}/{name}")
    except ObjectNotFoundError:
        return None


def _earlier(store: Store, folder: str, note: str, fingerprint: str) -> tuple[TableFile, ...] | None:
    try:
        files = written_from_bytes(store.get(note, 0, SUMMARY_BYTES_MAX + 1), fingerprint, note)
    except ObjectNotFoundError:
        return None
    if files is None:
        return None
    infos = [store.info(f"{folder}/{file.name}") for file in files]
    whole = all(info is not None and info.size == file.size for info, file in zip(infos, files, strict=True))
    return files if whole else None
