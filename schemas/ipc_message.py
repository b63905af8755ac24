"""What a message of Arrow's IPC format says of its record batch, read before anything of it is decompressed. No I/O.

The flatbuffer around it was verified when the message was read. Source: Arrow's format/Message.fbs.
"""

from __future__ import annotations

import struct
from typing import Final

import pyarrow as pa

_MESSAGE_HEADER: Final = 2
_BATCH_LENGTH: Final = 0
_BATCH_BUFFERS: Final = 2
_BATCH_COMPRESSION: Final = 3

_STORED_AS_IT_IS: Final = -1


def schema_of(message: pa.ipc.Message) -> pa.Schema:
    """Return the schema of a message. Of one that has another or no header Arrow would follow a null pointer.

    Raises:
        ValueError, ArrowException: it is none.
    """
    if message.type != "schema":
        raise ValueError(f"a {message.type} message where the columns should be")
    _header(memoryview(message.metadata))
    return pa.ipc.read_schema(message)


def record_batch_rows(message: pa.ipc.Message) -> int:
    """Return how many rows a record batch says that it has.

    Raises:
        ValueError, struct.error: it says none, or what can't be.
    """
    metadata = memoryview(message.metadata)
    found = _field(metadata, _header(metadata), _BATCH_LENGTH)
    rows = 0 if found is None else int(struct.unpack_from("<q", metadata, found)[0])
    if rows < 0:
        raise ValueError("a record batch of a negative length")
    return rows


def decompressed_bytes(message: pa.ipc.Message, buffers_max: int) -> int:
    """Return what a record batch's buffers will take: each begins with its length when decompressed, or -1 where it is stored as it is.

    Args:
        buffers_max: of the columns that are there. One that nothing is read from could count for anything.
    Raises:
        ValueError, struct.error: a length can't be, or there are more buffers. Source: BodyCompressionMethod.BUFFER.
    """
    metadata, body = memoryview(message.metadata), memoryview(message.body) if message.body is not None else memoryview(b"")
    record_batch = _header(metadata)
    found = _field(metadata, record_batch, _BATCH_BUFFERS)
    if found is None:
        return 0
    found += _offset(metadata, found)
    is_compressed = _field(metadata, record_batch, _BATCH_COMPRESSION) is not None
    total = 0
    count = _offset(metadata, found)
    if count > buffers_max:
        raise ValueError(f"a record batch of {count} buffers, not {buffers_max}")
    for index in range(count):
        begin, length = struct.unpack_from("<qq", metadata, found + 4 + 16 * index)
        if begin < 0 or length < 0:
            raise ValueError("a buffer of a negative length or place")
        size = _STORED_AS_IT_IS
        if length and is_compressed:
            (size,) = struct.unpack_from("<q", body, begin)
            if size < _STORED_AS_IT_IS:
                raise ValueError("a buffer of a negative length when decompressed")
        total += length if size == _STORED_AS_IT_IS else size
    return total


def _header(metadata: memoryview) -> int:
    place = _field(metadata, _offset(metadata, 0), _MESSAGE_HEADER)
    if place is None:
        raise ValueError("a message has no header")
    return place + _offset(metadata, place)


def _offset(data: memoryview, place: int) -> int:
    return int(struct.unpack_from("<I", data, place)[0])


def _field(data: memoryview, table: int, number: int) -> int | None:
    """Return where a field of a flatbuffer's table is; None where it is not there."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", data, vtable)[0]:
        return None
    (inside,) = struct.unpack_from("<H", data, vtable + 4 + 2 * number)
    return table + inside if inside else None
