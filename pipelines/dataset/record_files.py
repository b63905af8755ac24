"""Writes record batches into files of bounded size, as Arrow IPC or Parquet.

A file is put together in memory (its size is bounded) and stored whole, so no half-written file ever has a name.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.stores.store import Store
from schemas.dataset.dataset_summary import RecordsFile, ValuesFile


class FileFormat(StrEnum):
    """File format of a dataset."""

    IPC = "ipc"
    PARQUET = "parquet"

    @property
    def suffix(self) -> str:
        """What file names end in."""
        return ".arrow" if self is FileFormat.IPC else ".parquet"


RECORDS_FILE_BYTES_TARGET = 64 << 20
"""A file is closed once it holds this many bytes of record batches; also bounds what a writer holds in memory: the file, and a batch."""


@dataclass(frozen=True, slots=True)
class FileDestination:
    """Where and how a shard's files are written."""

    store: Store
    folder: str
    """The shard's folder in the store."""
    file_format: FileFormat
    file_bytes_target: int = RECORDS_FILE_BYTES_TARGET


class FileBytes:
    """A file on its way, in memory that the next one uses again; digested as it comes, while its bytes are in the core's cache.

    To Arrow it is a file that is written; closing that one leaves it as it is.
    """

    closed = False

    def __init__(self, capacity: int) -> None:
        self._memory = mmap.mmap(-1, max(capacity, mmap.PAGESIZE))
        self.begin()

    def begin(self) -> None:
        """Forget the file before."""
        self.size = 0
        self._digest = hashlib.sha256()

    def tell(self) -> int:
        """Return how many bytes there are."""
        return self.size

    def write(self, data: bytes | pa.Buffer) -> int:
        """Append bytes; return how many."""
        end = self.size + len(data)
        if end > len(self._memory):
            grown = mmap.mmap(-1, max(end, 2 * len(self._memory)))
            grown[: self.size] = self._memory[: self.size]
            self._memory = grown
        self._memory[self.size : end] = data
        self._digest.update(data)
        self.size = end
        return len(data)

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def view(self) -> memoryview:
        """Return the file's bytes; to be let go before the next file begins."""
        return memoryview(self._memory)[: self.size]

    def sha256(self) -> str:
        """Return the file's digest in hexadecimal."""
        return self._digest.hexdigest()


@dataclass(slots=True)
class _File:
    """A file with record batches in it that has no name yet."""

    content: FileBytes
    batch_offsets: list[int]
    """As `ValuesFile.batch_offsets`; empty for Parquet."""
    first_keys: list[bytes]
    """Of each record batch: the first value of its first column."""
    last_key: bytes
    rows: list[int]
    value_bytes: int

    def put(self, destination: FileDestination, name: str) -> None:
        """Store it."""
        with self.content.view() as view:
            destination.store.put(f"{destination.folder}/{name}", view)


def _written_files(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, destination: FileDestination, value_bytes_of: Callable[[pa.RecordBatch], int]
) -> Iterator[_File]:
    """Write record batches into files of about ``file_bytes_target`` bytes, one after the other in the same memory; empty batches are skipped."""
    content = FileBytes(destination.file_bytes_target + destination.file_bytes_target // 8)
    left = (batch for batch in batches if batch.num_rows)
    batch = next(left, None)
    while batch is not None:
        content.begin()
        file, size = _File(content, [], [], b"", [], 0), 0
        with pa.PythonFile(content, mode="w") as sink, _writer(sink, schema, destination.file_format) as write:
            while batch is not None and (not size or size + batch.nbytes <= destination.file_bytes_target):
                size += batch.nbytes
                write(batch.replace_schema_metadata(schema.metadata))
                if destination.file_format is FileFormat.IPC:
                    # The schema goes before the first record batch, and is written with it.
                    file.batch_offsets += [sink.tell()] if file.rows else [sink.tell() - pa.ipc.get_record_batch_size(batch), sink.tell()]
                file.first_keys.append(batch.column(0)[0].as_py())
                file.last_key = batch.column(0)[batch.num_rows - 1].as_py()
                file.rows.append(batch.num_rows)
                file.value_bytes += value_bytes_of(batch)
                batch = next(left, None)
        yield file


@contextmanager
def _writer(sink: pa.NativeFile, schema: pa.Schema, file_format: FileFormat) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Write record batch by record batch, so that readers can take them one by one."""
    if file_format is FileFormat.IPC:
        with pa.ipc.new_file(sink, schema) as writer:
            yield writer.write_batch
        return
    # A dictionary costs time and saves nothing on keys and hashes that never repeat; statistics let readers skip row groups.
    with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=False, write_statistics=True) as writer:
        yield lambda batch: writer.write_table(pa.Table.from_batches([batch]), row_group_size=batch.num_rows)


def write_record_files(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, stem: str, destination: FileDestination
) -> Iterator[RecordsFile]:
    """Store record batches of ``RECORD_SCHEMA`` in files ``stem-0000``, ``stem-0001``, …; yields each file's summary once stored.

    Args:
        batches: ascending by key; empty ones are skipped.
        schema: the records' schema with its metadata.
        stem: name below the shard's folder, without number and ending.
    """
    files = _written_files(batches, schema, destination, lambda batch: pc.sum(pc.cast(batch.column(2), pa.uint64())).as_py())
    for number, file in enumerate(files):
        name = f"{stem}-{number:04d}{destination.file_format.suffix}"
        file.put(destination, name)
        yield RecordsFile(
            name, file.content.size, file.content.sha256(), file.first_keys[0], file.last_key, tuple(file.rows), file.value_bytes
        )


def write_values_files(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, stem: str, destination: FileDestination
) -> Iterator[ValuesFile]:
    """Store record batches of ``OWN_VALUE_SCHEMA`` or ``VALUE_SCHEMA`` in files, as `write_record_files` does.

    Args:
        batches: strictly ascending by their first column.
    """
    files = _written_files(batches, schema, destination, lambda batch: pc.sum(pc.binary_length(batch.column("value"))).as_py())
    for number, file in enumerate(files):
        name = f"{stem}-{number:04d}{destination.file_format.suffix}"
        file.put(destination, name)
        yield ValuesFile(
            name,
            file.content.size,
            file.content.sha256(),
            sum(file.rows),
            file.value_bytes,
            tuple(file.first_keys),
            tuple(file.batch_offsets),
        )
