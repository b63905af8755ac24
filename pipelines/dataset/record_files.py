"""Writes record batches into files of bounded size, as Arrow IPC or Parquet.

A file is put together in memory (its size is bounded) and stored whole, so no half-written file ever has a name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
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
"""A file is closed once it holds this many bytes of record batches; also bounds what a writer holds in memory."""


@dataclass(frozen=True, slots=True)
class FileDestination:
    """Where and how a shard's files are written."""

    store: Store
    folder: str
    """The shard's folder in the store."""
    file_format: FileFormat
    file_bytes_target: int = RECORDS_FILE_BYTES_TARGET


def _encode_file(batches: Sequence[pa.RecordBatch], schema: pa.Schema, file_format: FileFormat) -> tuple[pa.Buffer, tuple[int, ...]]:
    """Return a whole file's bytes; record batch by record batch, so that readers can take them one by one.

    Returns:
        The bytes, and as `ValuesFile.batch_offsets` where its record batches lie.
    """
    batches = [batch.replace_schema_metadata(schema.metadata) for batch in batches]
    if file_format is FileFormat.PARQUET:
        sink = pa.BufferOutputStream()
        # A dictionary costs time and saves nothing on keys and hashes that never repeat; statistics let readers skip row groups.
        with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=False, write_statistics=True) as writer:
            for batch in batches:
                writer.write_table(pa.Table.from_batches([batch]), row_group_size=batch.num_rows)
        return sink.getvalue(), ()
    # Measured first and written into a buffer of just that size: a growing stream would hold the file up to three times.
    measured = pa.MockOutputStream()
    offsets = _write_ipc(measured, batches, schema)
    data = pa.allocate_buffer(measured.size())
    _write_ipc(pa.FixedSizeBufferWriter(data), batches, schema)
    return data, offsets


def _write_ipc(sink: pa.NativeFile, batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> tuple[int, ...]:
    ends = []
    with pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            ends.append(sink.tell())
    # The schema goes before the first record batch, and is written with it.
    return (ends[0] - pa.ipc.get_record_batch_size(batches[0]), *ends)


def write_record_files(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, stem: str, destination: FileDestination
) -> Iterator[RecordsFile]:
    """Store record batches of ``RECORD_SCHEMA`` in files ``stem-0000``, ``stem-0001``, …; yields each file's summary once stored.

    Args:
        batches: ascending by key; empty ones are skipped.
        schema: the records' schema with its metadata.
        stem: name below the shard's folder, without number and ending.
    """
    for number, group in enumerate(_groups(batches, destination.file_bytes_target)):
        data, _ = _encode_file(group, schema, destination.file_format)
        first_key = group[0].column(0)[0].as_py()
        last_key = group[-1].column(0)[group[-1].num_rows - 1].as_py()
        rows = tuple(batch.num_rows for batch in group)
        value_bytes = sum(pc.sum(pc.cast(batch.column(2), pa.uint64())).as_py() for batch in group)
        name = f"{stem}-{number:04d}{destination.file_format.suffix}"
        destination.store.put(f"{destination.folder}/{name}", data)
        yield RecordsFile(name, data.size, hashlib.sha256(data).hexdigest(), first_key, last_key, rows, value_bytes)


def write_values_files(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, stem: str, destination: FileDestination
) -> Iterator[ValuesFile]:
    """Store record batches of ``OWN_VALUE_SCHEMA`` or ``VALUE_SCHEMA`` in files, as `write_record_files` does.

    Args:
        batches: strictly ascending by their first column.
    """
    for number, group in enumerate(_groups(batches, destination.file_bytes_target)):
        data, offsets = _encode_file(group, schema, destination.file_format)
        starts = tuple(batch.column(0)[0].as_py() for batch in group)
        values = sum(batch.num_rows for batch in group)
        value_bytes = sum(pc.sum(pc.binary_length(batch.column("value"))).as_py() for batch in group)
        name = f"{stem}-{number:04d}{destination.file_format.suffix}"
        destination.store.put(f"{destination.folder}/{name}", data)
        yield ValuesFile(name, data.size, hashlib.sha256(data).hexdigest(), values, value_bytes, starts, offsets)


def _groups(batches: Iterable[pa.RecordBatch], bytes_target: int) -> Iterator[list[pa.RecordBatch]]:
    """Group non-empty batches into runs of about ``bytes_target`` bytes."""
    group: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        if group and size + batch.nbytes > bytes_target:
            yield group
            group, size = [], 0
        group.append(batch)
        size += batch.nbytes
    if group:
        yield group
