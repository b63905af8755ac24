"""Writes record batches into files of bounded size, as Arrow IPC or Parquet.

A file is put together in memory (its size is bounded) and stored whole, so no half-written file ever has a name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.stores.protocol import Store
from schemas.dataset import RecordsFile, ValuesFile


class FileFormat(StrEnum):
    """File format of a dataset."""

    IPC = "ipc"
    PARQUET = "parquet"

    @property
    def suffix(self) -> str:
        """What file names end in."""
        return ".arrow" if self is FileFormat.IPC else ".parquet"


RECORDS_FILE_BYTES_TARGET = 64 << 20
"""A file is closed once it holds this many bytes of record batches; also bounds what a writer holds in memory."""


@dataclass(frozen=True, slots=True)
class FileDestination:
    """Where and how a shard's files are written."""

    store: Store
    folder: str
    """The shard's folder in the store."""
    file_format: FileFormat
    file_bytes_target: int = RECORDS_FILE_BYTES_TARGET


class _FileBuilder:
    """One file on its way: its bytes so far."""

    def __init__(self, schema: pa.Schema, file_format: FileFormat) -> None:
        self.schema = schema
        self.sink = pa.BufferOutputStream()
        self._ipc = pa.ipc.new_file(self.sink, schema) if file_format is FileFormat.IPC else None
        # A dictionary costs time and saves nothing on keys and hashes that never repeat; statistics let readers skip row groups.
        self._parquet = (
            None if self._ipc else pq.ParquetWriter(self.sink, schema, compression="zstd", use_dictionary=False, write_statistics=True)
        )

    def write(self, batch: pa.RecordBatch) -> None:
        batch = batch.replace_schema_metadata(self.schema.metadata)
        if self._ipc is not None:
            self._ipc.write_batch(batch)
        elif self._parquet is not None:
            self._parquet.write_table(pa.Table.from_batches([batch]), row_group_size=batch.num_rows)

    def finish(self) -> pa.Buffer:
        for writer in (self._ipc, self._parquet):
            if writer is not None:
                writer.close()
        return self.sink.getvalue()


def write_record_files(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, stem: str, destination: FileDestination
) -> Iterator[RecordsFile]:
    """Store record batches of ``RECORD_SCHEMA`` in files ``stem-0000``, ``stem-0001``, …; yields each file's summary once stored.

    Args:
        batches: ascending by key; empty ones are passed over.
        schema: the records' schema with its metadata.
        stem: name below the shard's folder, without number and ending.
    """
    for number, group in enumerate(_groups(batches, destination.file_bytes_target)):
        builder = _FileBuilder(schema, destination.file_format)
        rows: list[int] = []
        first_key, last_key, value_bytes = b"", b"", 0
        for batch in group:
            builder.write(batch)
            first_key = first_key if rows else batch.column(0)[0].as_py()
            last_key = batch.column(0)[batch.num_rows - 1].as_py()
            rows.append(batch.num_rows)
            value_bytes += pc.sum(pc.cast(batch.column(2), pa.uint64())).as_py()
        data = builder.finish()
        name = f"{stem}-{number:04d}{destination.file_format.suffix}"
        destination.store.put(f"{destination.folder}/{name}", data)
        yield RecordsFile(name, data.size, hashlib.sha256(data).hexdigest(), first_key, last_key, tuple(rows), value_bytes)


def write_values_files(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, stem: str, destination: FileDestination
) -> Iterator[ValuesFile]:
    """Store record batches of ``VALUE_SCHEMA`` in files, as `write_record_files` does."""
    for number, group in enumerate(_groups(batches, destination.file_bytes_target)):
        builder = _FileBuilder(schema, destination.file_format)
        first_hashes: list[bytes] = []
        values, value_bytes = 0, 0
        for batch in group:
            builder.write(batch)
            first_hashes.append(batch.column(0)[0].as_py())
            values += batch.num_rows
            value_bytes += pc.sum(pc.binary_length(batch.column(1))).as_py()
        data = builder.finish()
        name = f"{stem}-{number:04d}{destination.file_format.suffix}"
        destination.store.put(f"{destination.folder}/{name}", data)
        yield ValuesFile(name, data.size, hashlib.sha256(data).hexdigest(), values, value_bytes, tuple(first_hashes))


def _groups(batches: Iterable[pa.RecordBatch], bytes_target: int) -> Iterator[Iterator[pa.RecordBatch]]:
    """Group non-empty batches into runs of about ``bytes_target`` bytes, lazily; each group must be used up in turn."""
    source = (batch for batch in batches if batch.num_rows)
    pending = next(source, None)

    def group() -> Iterator[pa.RecordBatch]:
        nonlocal pending
        size = 0
        while pending is not None and (size == 0 or size + pending.nbytes <= bytes_target):
            size += pending.nbytes
            batch, pending = pending, None
            yield batch
            pending = next(source, None)

    while pending is not None:
        yield group()
