"""Objects of a delta: the same bytes however the rows came, and nothing taken on trust."""

from __future__ import annotations

import struct
from itertools import chain

import pyarrow as pa
import pytest

from schemas.errors import ObjectMismatchError
from schemas.published import delta_object
from schemas.published.delta_object import DELTA_SCHEMA, Row, cut_rows, decode_delta_object, encode_delta_object

ROWS: list[Row] = [
    (f"key {number:04d}".encode(), None if number % 5 == 0 else bytes([number % 256]) * (number % 700)) for number in range(2000)
]


def _object(*batches: list[Row]) -> bytes:
    return encode_delta_object(batches, {"chain_id": "test"})


def test_rows_come_back() -> None:
    """Through any reader of Arrow files, and through ours."""
    data = _object(ROWS[:700], ROWS[700:])
    expected = [{"key": key, "value": value} for key, value in ROWS]
    assert pa.Table.from_batches(decode_delta_object(data, "test")).to_pylist() == expected
    file = pa.ipc.open_file(data)
    assert file.read_all().to_pylist() == expected
    assert file.schema.metadata == {b"statecast.format": b"statecast.delta.1", b"statecast.chain_id": b"test"}


def test_rows_are_cut_by_their_bytes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects and record batches end before the row that is too much; a single row may be."""
    monkeypatch.setattr(delta_object, "DELTA_OBJECT_BYTES_TARGET", 5000)
    monkeypatch.setattr(delta_object, "DELTA_BATCH_BYTES_TARGET", 1000)
    rows: list[Row] = [*ROWS, (b"long", b"x" * 9000), (b"z", None)]
    objects = list(cut_rows(iter(rows)))
    assert list(chain.from_iterable(chain.from_iterable(objects))) == rows
    sizes = [[sum(16 + len(key) + len(value or b"") for key, value in batch) for batch in batches] for batches in objects]
    assert all(sum(found) <= 5000 for found in sizes[:-2])
    assert all(size <= 1000 for found in sizes[:-2] for size in found)
    assert [len(batches) for batches in objects[-2:]] == [1, 1]
    assert len(objects) > 50
    assert list(cut_rows([])) == []


WRONG = {
    "nothing": b"",
    "no Arrow": b"ARROW1\0\0" + b"x" * 100,
    "cut": _object(ROWS)[:5000],
    "an end before the columns": b"ARROW1\0\0" + b"\xff\xff\xff\xff" + bytes(4),
    "the beginning alone": b"ARROW1\0\0",
    "keys that do not ascend": _object(ROWS[1::-1]),
    "a key twice": _object(ROWS[:1], ROWS[:1]),
    "a long key": _object([(b"x" * 2305, None)]),
    "a long value": _object([(b"x", bytes((16 << 20) + 1))]),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_delta_is_refused(data: bytes) -> None:
    """Each by its place."""
    with pytest.raises(ObjectMismatchError) as caught:
        decode_delta_object(data, "the place")
    assert caught.value.where == "the place"


def test_other_columns_and_rows_without_a_key_are_refused() -> None:
    """Nullable keys are another schema."""
    sink = pa.BufferOutputStream()
    table = pa.table([pa.array([b"a", None], pa.binary()), pa.array([b"", b""], pa.binary())], names=DELTA_SCHEMA.names)
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ObjectMismatchError, match="columns"):
        decode_delta_object(bytes(sink.getvalue()), "test")


def test_what_would_fill_the_memory_is_refused_before_it_is_decompressed() -> None:
    """A buffer says its length when decompressed; here one says more than an object may have."""
    data = bytearray(_object(ROWS))
    # The least that the buffers' lengths can stand at: each begins with eight bytes that say how long it will be.
    length = sum(len(key) for key, _ in ROWS).to_bytes(8, "little")
    place = data.index(length)
    data[place : place + 8] = (1 << 40).to_bytes(8, "little")
    with pytest.raises(ObjectMismatchError, match="decompresses to more"):
        decode_delta_object(bytes(data), "test")


def _field(metadata: bytes, table: int, number: int) -> int:
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    return int(table + struct.unpack_from("<H", metadata, vtable + 4 + 2 * number)[0])


def _followed(metadata: bytes, place: int) -> int:
    return int(place + struct.unpack_from("<I", metadata, place)[0])


def _with_one_more_buffer(data: bytes, begin: int, length: int) -> bytes:
    """Return an object of one record batch that names a buffer more than its columns have: Arrow itself never looks at it."""
    reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(data).slice(8))
    reader.read_next_message()
    message = reader.read_next_message()
    before = bytes(message.metadata)
    record_batch = _followed(before, _field(before, _followed(before, 0), 2))
    place = _field(before, record_batch, 2)
    buffers = _followed(before, place)
    (count,) = struct.unpack_from("<I", before, buffers)
    grown = bytearray(before.ljust(-(len(before) + 4) % 8 + len(before), b"\0"))
    struct.pack_into("<I", grown, place, len(grown) - place)
    grown += struct.pack("<I", count + 1) + before[buffers + 4 : buffers + 4 + 16 * count] + struct.pack("<qq", begin, length)
    head = data[: data.index(before) - 8]
    return head + struct.pack("<II", 2**32 - 1, len(grown)) + bytes(grown) + bytes(message.body) + struct.pack("<II", 2**32 - 1, 0)


@pytest.mark.parametrize(("begin", "length"), [(None, -(1 << 40)), (-8, 8), (0, 0)])
def test_a_buffer_that_no_column_has_takes_nothing_off_the_count(begin: int | None, length: int) -> None:
    """A negative length would make room for a bomb beside it."""
    data = _object([(bytes([9, number]), bytes([number]) * 700) for number in range(99)])
    if begin is None:
        # Where eight bytes of the body read as a negative number.
        reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(data).slice(8))
        reader.read_next_message()
        body = bytes(reader.read_next_message().body)
        begin = next(place for place in range(len(body) - 8) if body[place + 7] & 0x80)
    assert len(decode_delta_object(data, "test")) == 1
    with pytest.raises(ObjectMismatchError, match="buffers"):
        decode_delta_object(_with_one_more_buffer(data, begin, length), "test")


def test_a_negative_length_of_a_buffer_is_refused() -> None:
    """Neither of what is stored, nor of what it says to be when decompressed."""
    data = _object(ROWS[:99])
    place = data.index(sum(len(key) for key, _ in ROWS[:99]).to_bytes(8, "little"))
    with pytest.raises(ObjectMismatchError, match="negative"):
        decode_delta_object(data[:place] + (-(1 << 40)).to_bytes(8, "little", signed=True) + data[place + 8 :], "test")
