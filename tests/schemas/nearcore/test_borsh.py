"""Borsh values, and input that claims more than it holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import MalformedNodeError, MalformedPartError
from schemas.nearcore.borsh import BorshReader, BorshWriter


def test_the_layout() -> None:
    """Integers are little-endian, a vec has a u32 length, an option a tag."""
    writer = BorshWriter().u8(1).u16(2).u32(3).u64(4).u128(5).byte_vec(b"ab").fixed(b"cd")
    writer.option(b"x", writer.byte_vec).option(None, writer.byte_vec)
    expected = "01 0200 03000000 0400000000000000 05000000000000000000000000000000 02000000 6162 6364 01 01000000 78 00"
    assert bytes.fromhex(expected) == writer.to_bytes()


@given(
    numbers=st.tuples(*(st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64, 128))),
    items=st.lists(st.binary(max_size=9), max_size=5),
    maybe=st.none() | st.binary(max_size=9),
    flag=st.booleans(),
)
def test_what_is_written_is_read(numbers: tuple[int, ...], items: list[bytes], maybe: bytes | None, flag: bool) -> None:
    """Every value comes back, and nothing is left."""
    writer = BorshWriter().u8(numbers[0]).u16(numbers[1]).u32(numbers[2]).u64(numbers[3]).u128(numbers[4]).u32(len(items))
    for item in items:
        writer.byte_vec(item)
    writer.option(maybe, writer.byte_vec).u8(int(flag)).fixed(b"end")

    reader = BorshReader(writer.to_bytes())
    assert numbers == (reader.u8(), reader.u16(), reader.u32(), reader.u64(), reader.u128())
    assert items == reader.vec(reader.byte_vec, item_bytes_min=4)
    assert maybe == reader.option(reader.byte_vec)
    assert flag == reader.flag()
    assert reader.fixed(3) == b"end"
    reader.end()


@pytest.mark.parametrize(
    ("data", "take"),
    [
        (b"\1\2\3", lambda reader: reader.u32()),
        (b"\4\0\0\0abc", lambda reader: reader.byte_vec()),
        (b"\4\0\0\0abcd", lambda reader: reader.byte_vec(length_max=3)),
        (b"\xff\xff\xff\xff", lambda reader: reader.byte_vec_view()),
        (b"\xff\xff\xff\xff", lambda reader: reader.vec(reader.u8)),
        (b"\2\0\0\0" + bytes(7), lambda reader: reader.vec(reader.u32, item_bytes_min=4)),
        (b"\2\0\0\0" + bytes(8), lambda reader: reader.vec(reader.u32, item_bytes_min=4, count_max=1)),
        (b"\2", lambda reader: reader.option(reader.u8)),
        (b"\2", lambda reader: reader.flag()),
        (b"\0", lambda reader: reader.end()),
    ],
)
@pytest.mark.parametrize("error_class", [MalformedPartError, MalformedNodeError])
def test_more_is_claimed_than_there_is(data: bytes, take: object, error_class: type[MalformedPartError]) -> None:
    """Truncated, excessive and trailing bytes raise the class that the caller chose, and say where."""
    with pytest.raises(error_class, match=r"at byte \d+ of \d+.*the file"):
        take(BorshReader(data, where="the file", error_class=error_class))  # type: ignore[operator]


def test_a_view_is_not_a_copy() -> None:
    """Views share the input's memory."""
    data = bytearray(b"\3\0\0\0abc")
    view = BorshReader(data).byte_vec_view()
    data[4] = ord("z")
    assert bytes(view) == b"zbc"


@pytest.mark.parametrize("write", [lambda writer: writer.u8(256), lambda writer: writer.u32(-1), lambda writer: writer.u64(2**64)])
def test_a_number_that_does_not_fit(write: object) -> None:
    """A number out of range is the caller's fault, not cut to size."""
    with pytest.raises(OverflowError):
        write(BorshWriter())  # type: ignore[operator]
