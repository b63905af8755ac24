"""The wire format of protobuf, as far as nearcore's messages use it: varints and byte strings, in the order of field numbers.

Source: https://protobuf.dev/programming-guides/encoding; the messages are nearcore's `chain/network/src/network_protocol/network.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from schemas.errors import PeerProtocolError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_U64_MAX: Final = 2**64 - 1

FieldValue = int | memoryview


def read_fields(data: bytes | memoryview, where: str) -> Iterator[tuple[int, FieldValue]]:
    """Yield the fields of a message as (number, value): an integer for a varint, an uncopied view for bytes and fixed integers.

    Args:
        where: the message, for errors.
    Raises:
        PeerProtocolError: the bytes are no message.
    """
    view, position = memoryview(data), 0
    while position < len(view):
        key, position = _read_varint(view, position, where)
        number, wire_type = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise PeerProtocolError(problem=f"a field has number {number}", where=where)
        if wire_type == _VARINT:
            value, position = _read_varint(view, position, where)
            yield number, value
            continue
        if wire_type == _BYTES:
            length, position = _read_varint(view, position, where)
        elif wire_type in _FIXED_BYTES:
            length = _FIXED_BYTES[wire_type]
        else:
            raise PeerProtocolError(problem=f"field {number} has wire type {wire_type}", where=where)
        if length > len(view) - position:
            raise PeerProtocolError(problem=f"field {number} has {length} bytes where {len(view) - position} are left", where=where)
        yield number, view[position : position + length]
        position += length


def read_varints(value: FieldValue, where: str) -> list[int]:
    """Return the integers of one field of a repeated integer, packed or not."""
    if isinstance(value, int):
        return [value]
    found, position = [], 0
    while position < len(value):
        number, position = _read_varint(value, position, where)
        found.append(number)
    return found


def unsigned(value: FieldValue, where: str, largest: int = _U64_MAX) -> int:
    """Return a field's integer.

    Raises:
        PeerProtocolError: it is no varint, or larger than its type.
    """
    if not isinstance(value, int):
        raise PeerProtocolError(problem="bytes stand where an integer belongs", where=where)
    if value > largest:
        raise PeerProtocolError(problem=f"{value} is above {largest}", where=where)
    return value


def message(value: FieldValue, where: str) -> memoryview:
    """Return a field's bytes.

    Raises:
        PeerProtocolError: it is a varint.
    """
    if isinstance(value, int):
        raise PeerProtocolError(problem="an integer stands where a message belongs", where=where)
    return value


def only_bytes(value: FieldValue, where: str) -> memoryview:
    """Return field 1 of a message that wraps one byte string, the last one where there are several; empty where there is none."""
    found = memoryview(b"")
    for number, inner in read_fields(message(value, where), where):
        if number == 1:
            found = message(inner, where)
    return found


def varint(number: int) -> bytes:
    """Encode an unsigned integer."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def integer_field(number: int, value: int) -> bytes:
    """Encode an integer; nothing for 0, as proto3 has it."""
    return varint(number << 3 | _VARINT) + varint(value) if value else b""


def present_integer_field(number: int, value: int) -> bytes:
    """Encode an integer that is there even if it is 0: one of a list, or an optional one."""
    return varint(number << 3 | _VARINT) + varint(value)


def bytes_field(number: int, *pieces: bytes) -> bytes:
    """Encode a byte string or message that is there, even if it is empty."""
    return b"".join((varint(number << 3 | _BYTES), varint(sum(map(len, pieces))), *pieces))


def _read_varint(view: memoryview, position: int, where: str) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        if position == len(view):
            raise PeerProtocolError(problem="the bytes end within a varint", where=where)
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > _U64_MAX:
                break
            return value, position
        shift += 7
    raise PeerProtocolError(problem="a varint is above 64 bits", where=where)
