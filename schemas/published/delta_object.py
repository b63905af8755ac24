"""Objects of a delta: Arrow IPC files of changed records, compressed with zstd.

An object is an IPC file whose record batches have one row a changed key, strictly ascending by key bytes over all objects of a delta::

    key      binary                trie key, without the shard uid
    value    binary, null if gone  the whole new value, however long

How rows are cut into record batches and objects follows from the rows alone (`cut_rows`), so the objects are the same whoever makes them
in how many pieces. A reader takes the record batches one after another as of a stream, and neither the footer nor anything behind it:
what each will take in memory is known before it is decompressed. No I/O.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import ObjectMismatchError
from schemas.ipc_message import decompressed_bytes, schema_of
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX, VALUE_BYTES_MAX

DELTA_SCHEMA: Final = pa.schema([pa.field("key", pa.binary(), nullable=False), pa.field("value", pa.binary())])
"""Schema of a record batch of changed records."""

DELTA_FORMAT: Final = "statecast.delta.1"
"""Format name in the schema's metadata."""

DELTA_OBJECT_BYTES_TARGET: Final = 32 << 20
"""An object is closed before the row with which its rows would have more bytes: keys, values, and 16 a row."""

DELTA_BATCH_BYTES_TARGET: Final = 4 << 20
"""A record batch likewise."""

DELTA_OBJECT_BYTES_MAX: Final = 64 << 20
"""Largest object that is read, both as it is stored and in memory: a single row may have more than the target."""

DELTA_ZSTD_LEVEL: Final = 3

_ROW_BYTES: Final = 16
_MAGIC: Final = b"ARROW1\0\0"
_METADATA_PREFIX: Final = b"statecast."

_BUFFERS_MAX: Final = 6
"""Of the two columns, each: which values are there, where they begin, and their bytes."""

Row: TypeAlias = tuple[bytes, bytes | None]
"""A changed key and its new value; None where the key is gone."""


def cut_rows(rows: Iterable[Row]) -> Iterator[list[list[Row]]]:
    """Cut rows into objects, and each into record batches.

    Args:
        rows: strictly ascending by key.
    """
    batches: list[list[Row]] = [[]]
    object_bytes = batch_bytes = 0
    for row in rows:
        size = _ROW_BYTES + len(row[0]) + (0 if row[1] is None else len(row[1]))
        if object_bytes and object_bytes + size > DELTA_OBJECT_BYTES_TARGET:
            yield batches
            batches, object_bytes, batch_bytes = [[]], 0, 0
        elif batch_bytes and batch_bytes + size > DELTA_BATCH_BYTES_TARGET:
            batches.append([])
            batch_bytes = 0
        batches[-1].append(row)
        object_bytes += size
        batch_bytes += size
    if batches[0]:
        yield batches


def encode_delta_object(batches: Sequence[Sequence[Row]], facts: Mapping[str, str]) -> bytes:
    """Return an object's bytes.

    Args:
        facts: what the schema's metadata says of the delta, for a reader that finds the file alone.
    """
    metadata = {_METADATA_PREFIX + name.encode(): text.encode() for name, text in {"format": DELTA_FORMAT, **facts}.items()}
    schema = DELTA_SCHEMA.with_metadata(metadata)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=DELTA_ZSTD_LEVEL), use_threads=False)
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        for batch in batches:
            keys, values = zip(*batch, strict=True)
            writer.write_batch(pa.record_batch([pa.array(keys, pa.binary()), pa.array(values, pa.binary())], schema=schema))
    return bytes(sink.getvalue())


def decode_delta_object(data: bytes, where: str) -> list[pa.RecordBatch]:
    """Return an object's record batches, of ``DELTA_SCHEMA``, at least one row in each.

    Raises:
        ObjectMismatchError: not such an object, over a limit, or its keys do not ascend.
    """
    if len(data) > DELTA_OBJECT_BYTES_MAX or data[: len(_MAGIC)] != _MAGIC:
        raise ObjectMismatchError(problem="this is no object of a delta", where=where)
    try:
        batches = _read_batches(pa.py_buffer(data).slice(len(_MAGIC)), where)
    except StopIteration:
        raise ObjectMismatchError(problem="it ends before it says its columns", where=where) from None
    except (pa.ArrowException, OSError, ValueError, EOFError, struct.error, MemoryError, TypeError) as error:
        raise ObjectMismatchError(problem=f"it can't be read as Arrow: {str(error)[:200]}", where=where) from None
    last_key: bytes | None = None
    for batch in batches:
        last_key = _check_keys(batch, last_key, where)
    return batches


def _read_batches(stream: pa.Buffer, where: str) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = []
    left = DELTA_OBJECT_BYTES_MAX
    reader = pa.ipc.MessageReader.open_stream(stream)
    schema = schema_of(reader.read_next_message())
    if not schema.equals(DELTA_SCHEMA, check_metadata=False):
        raise ObjectMismatchError(problem="its columns are not those of a delta", where=where)
    for message in reader:
        if message.type != "record batch":
            raise ObjectMismatchError(problem=f"a {message.type} message is not part of a delta", where=where)
        left -= decompressed_bytes(message, _BUFFERS_MAX)
        if left < 0:
            raise ObjectMismatchError(problem=f"it decompresses to more than {DELTA_OBJECT_BYTES_MAX} bytes", where=where)
        batch = pa.ipc.read_record_batch(message, DELTA_SCHEMA)
        # A changed offset would lead out of the buffers.
        batch.validate(full=True)
        batches.append(batch)
    return batches


def _check_keys(batch: pa.RecordBatch, last_key: bytes | None, where: str) -> bytes:
    """Check the rows of a record batch; return its last key."""
    keys, values = batch.columns
    if not batch.num_rows or keys.null_count:
        raise ObjectMismatchError(problem="a record batch without rows, or a row without a key", where=where)
    longest = pc.max(pc.binary_length(values)).as_py() or 0
    ascend = batch.num_rows == 1 or pc.all(pc.less(keys.slice(0, batch.num_rows - 1), keys.slice(1))).as_py()
    if not ascend or (last_key is not None and keys[0].as_py() <= last_key):
        raise ObjectMismatchError(problem="the keys of a delta do not ascend", where=where)
    if pc.max(pc.binary_length(keys)).as_py() > KEY_BYTES_MAX or longest > VALUE_BYTES_MAX:
        raise ObjectMismatchError(problem="a key or value is longer than any of a state", where=where)
    return bytes(keys[batch.num_rows - 1].as_py())
