"""Decoded tables: the records of an Arrow dataset become Parquet files with typed columns, one task a file of the dataset.

A file is put together in memory and stored whole, and ``tables.json`` comes last, so nothing half-written is ever taken for tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sources.arrow_dataset import ShardDataset
from pipelines.sources.decoded_span import DecodedSpan, Selection, decoded_spans
from pipelines.stores.open_store import open_store
from pipelines.stores.protocol import Store
from schemas.dataset import schema_metadata
from schemas.decoded_record import kind_schema
from schemas.decoded_tables import TABLES_NAME, TableFile, TablesShard, written_from_bytes, written_to_bytes
from schemas.errors import ObjectNotFoundError
from schemas.trie_key import TrieKeyKind

ROW_GROUP_ROWS = 1 << 17
"""Rows of a Parquet row group at most: what a reader skips by statistics at once."""


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
        files = write_tables(store, self.span.dataset, self.span.read(), stem)
        store.put(note, written_to_bytes(files, fingerprint))
        return files


def write_tables(store: Store, dataset: ShardDataset, batches: Iterable[pa.RecordBatch], stem: str) -> tuple[TableFile, ...]:
    """Store decoded records as a Parquet file for each kind in them.

    Args:
        dataset: whose epoch and shard the records are of.
        batches: with the columns of ``DECODED_SCHEMA``, each of records of one first byte.
        stem: of the files' names.
    """
    by_kind: dict[str, list[pa.Table]] = {}
    for batch in batches:
        table = pa.Table.from_batches([batch])
        for kind in table.column("kind").unique().to_pylist():
            of_kind = table.filter(pa.compute.equal(table.column("kind"), kind))
            by_kind.setdefault(kind, []).append(of_kind.select(kind_schema(TrieKeyKind(kind)).names))
    summary = dataset.summary
    metadata = schema_metadata(summary.context, summary.shard, summary.memory_usage)
    return tuple(
        _put_table(store, dataset.folder, kind, stem, pa.concat_tables(tables).replace_schema_metadata(metadata))
        for kind, tables in by_kind.items()
    )


def _put_table(store: Store, folder: str, kind: str, stem: str, table: pa.Table) -> TableFile:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    data = sink.getvalue()
    name = f"kind={kind}/{stem}.parquet"
    store.put(f"{folder}/{name}", data)
    errors = table.num_rows - table.column("decode_error").null_count
    return TableFile(name, kind, table.num_rows, errors, data.size, hashlib.sha256(data).hexdigest())


def plan_tables(dataset: ShardDataset, url: str, strict: bool = False) -> list[WriteTablesTask]:
    """Return a task a file of a shard's dataset."""
    return [WriteTablesTask(span, url) for span in decoded_spans(dataset, Selection(strict=strict))]


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
    # Whoever reads all files of a folder would take another run's for these.
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
        return TablesShard.from_bytes(open_store(url).get(name), f"{url}/{name}")
    except ObjectNotFoundError:
        return None


def _earlier(store: Store, folder: str, note: str, fingerprint: str) -> tuple[TableFile, ...] | None:
    try:
        files = written_from_bytes(store.get(note), fingerprint, note)
    except ObjectNotFoundError:
        return None
    if files is None:
        return None
    infos = [store.info(f"{folder}/{file.name}") for file in files]
    whole = all(info is not None and info.size == file.size for info, file in zip(infos, files, strict=True))
    return files if whole else None
