"""Reads one file of a dataset, Arrow IPC or Parquet, record batch by record batch.

Files are opened for random access through a store, so a local one is memory-mapped and a remote one is read in ranges. Adjacent record
batches of a remote IPC file can be read with one request where it is known where they lie.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.stores.store import Store
from schemas.errors import DatasetError, ObjectNotFoundError


class IpcBatches:
    """Record batches of an Arrow IPC file."""

    def __init__(self, source: pa.NativeFile) -> None:
        self._reader = pa.ipc.open_file(source)

    def read(self, index: int) -> pa.RecordBatch:
        """Read one record batch."""
        return self._reader.get_batch(index)


class ParquetBatches:
    """Row groups of a Parquet file."""

    def __init__(self, source: pa.NativeFile, schema: pa.Schema) -> None:
        self._file = pq.ParquetFile(source)
        self._schema = schema

    def read(self, index: int) -> pa.RecordBatch:
        """Read one row group."""
        table = self._file.read_row_group(index)
        if table.column_names != self._schema.names:
            raise pa.ArrowInvalid(f"the columns are {', '.join(table.column_names)}")
        return pa.Table.from_batches(table.to_batches()).cast(self._schema).combine_chunks().to_batches()[0]


@contextmanager
def opened_batches(store: Store, name: str, size: int, schema: pa.Schema) -> Iterator[IpcBatches | ParquetBatches]:
    """Open a dataset file.

    Args:
        size: that the summary says.
        schema: that record batches of a Parquet file are given; metadata is left alone.
    Raises:
        DatasetError: the file is missing, or cut or changed; also where that shows only inside the context.
    """
    where = f"{store.url}/{name}"
    with naming_damage(where), store.open(name) as source:
        if source.size() != size:
            raise DatasetError(problem=f"the file has {source.size()} bytes, its summary says {size}", where=where, remedy=_DAMAGED)
        yield ParquetBatches(source, schema) if name.endswith(".parquet") else IpcBatches(source)


def read_adjacent_batches(store: Store, name: str, offsets: Sequence[int], schema: pa.Schema) -> list[pa.RecordBatch]:
    """Read adjacent record batches of an Arrow IPC file with one request.

    Args:
        offsets: where each begins, and where the last one ends.
    Returns:
        The record batches, over one buffer.
    Raises:
        DatasetError: the file is missing, or cut or changed.
    """
    where = f"{store.url}/{name}"
    with naming_damage(where):
        data = pa.py_buffer(store.get(name, offsets[0], offsets[-1]))
        if data.size != offsets[-1] - offsets[0]:
            raise DatasetError(problem=f"the file ends before byte {offsets[-1]}", where=where, remedy=_DAMAGED)
        pieces = [data.slice(begin - offsets[0], end - begin) for begin, end in itertools.pairwise(offsets)]
        return [pa.ipc.read_record_batch(pa.ipc.read_message(piece), schema) for piece in pieces]


def read_table(store: Store, name: str, schema: pa.Schema) -> pa.Table:
    """Read all of an Arrow IPC file whose size no summary says.

    Raises:
        DatasetError: the file is missing, or cut or changed.
    """
    with naming_damage(f"{store.url}/{name}"), store.open(name) as source:
        table = pa.ipc.open_file(source).read_all()
        if not table.schema.equals(schema):
            raise pa.ArrowInvalid(f"the columns are {', '.join(table.column_names)}")
        # A changed offset would lead out of the file's bytes.
        table.validate(full=True)
        return table


_DAMAGED = "It was cut off or changed; export the shard again."


@contextmanager
def naming_damage(where: str) -> Iterator[None]:
    """Map what a store and pyarrow raise on a missing, cut or changed file.

    Raises:
        DatasetError: in their place.
    """
    try:
        yield
    except ObjectNotFoundError as error:
        raise DatasetError(problem="a file of the dataset is missing", where=where, remedy="Export the shard again.") from error
    except (pa.ArrowException, OSError, ValueError, IndexError, EOFError) as error:
        raise DatasetError(problem=f"the file can't be read as Arrow: {error}", where=where, remedy=_DAMAGED) from error
