"""A bounded reader and a writer of borsh, the binary serialization of NEAR.

Integers are little-endian; vec = u32 length and items; option = u8 0 or 1 and the value; enum = u8 tag; a tuple or struct is its
fields in order. The reader never allocates more than the input justifies: a length is compared with the bytes that are left
before anything is taken. Nothing here knows a type of NEAR.

Source: https://borsh.io, and nearcore's use of the crate borsh.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Never, TypeVar

from schemas.errors import IntegrityError, MalformedPartError

_U32_MAX = 2**32 - 1

Item = TypeVar("Item")


class BorshReader:
    """Takes borsh values off the front of a byte string.

    Args:
        data: what is read; not copied.
        where: the file, object or column it is from, for errors.
        error_class: what is raised on truncated, excessive or trailing bytes.
    """

    __slots__ = ("_error_class", "_position", "_view", "_where")

    def __init__(
        self, data: bytes | bytearray | memoryview, where: str = "", error_class: type[IntegrityError] = MalformedPartError
    ) -> None:
        self._view = memoryview(data).cast("B")
        self._position = 0
        self._where = where
        self._error_class = error_class

    @property
    def remaining(self) -> int:
        """Bytes that are left."""
        return len(self._view) - self._position

    def fail(self, problem: str) -> Never:
        """Raise the reader's error class with the position."""
        raise self._error_class(problem=f"{problem} (at byte {self._position} of {len(self._view)})", where=self._where)

    def fixed_view(self, length: int) -> memoryview:
        """Take ``length`` bytes without copying them."""
        if length > self.remaining:
            self.fail(f"{length} bytes were expected where {self.remaining} are left")
        start = self._position
        self._position += length
        return self._view[start : self._position]

    def fixed(self, length: int) -> bytes:
        """Take ``length`` bytes."""
        return bytes(self.fixed_view(length))

    def _unsigned(self, length: int) -> int:
        return int.from_bytes(self.fixed_view(length), "little")

    def u8(self) -> int:
        """Take a u8."""
        return self._unsigned(1)

    def u16(self) -> int:
        """Take a u16."""
        return self._unsigned(2)

    def u32(self) -> int:
        """Take a u32."""
        return self._unsigned(4)

    def u64(self) -> int:
        """Take a u64."""
        return self._unsigned(8)

    def u128(self) -> int:
        """Take a u128."""
        return self._unsigned(16)

    def byte_vec_view(self, length_max: int = _U32_MAX) -> memoryview:
        """Take a vec<u8> without copying it."""
        length = self.u32()
        if length > length_max:
            self.fail(f"a byte string of {length} bytes is over its limit of {length_max}")
        return self.fixed_view(length)

    def byte_vec(self, length_max: int = _U32_MAX) -> bytes:
        """Take a vec<u8>."""
        return bytes(self.byte_vec_view(length_max))

    def count(self, item_bytes_min: int, count_max: int = _U32_MAX) -> int:
        """Take the length of a vec whose items have at least ``item_bytes_min`` bytes each, and check that they can be there."""
        count = self.u32()
        if count > count_max:
            self.fail(f"{count} items are over their limit of {count_max}")
        if count * item_bytes_min > self.remaining:
            self.fail(f"{count} items can't be in the {self.remaining} bytes that are left")
        return count

    def vec(self, read_item: Callable[[], Item], item_bytes_min: int = 1, count_max: int = _U32_MAX) -> list[Item]:
        """Take a vec; ``item_bytes_min`` is at least 1, so that the input bounds the count."""
        assert item_bytes_min >= 1
        return [read_item() for _ in range(self.count(item_bytes_min, count_max))]

    def option(self, read_item: Callable[[], Item]) -> Item | None:
        """Take an option."""
        return read_item() if self.flag() else None

    def flag(self) -> bool:
        """Take a bool, or the tag of an option."""
        tag = self.u8()
        if tag > 1:
            self.fail(f"{tag} is neither 0 nor 1")
        return tag == 1

    def end(self) -> None:
        """Check that nothing is left."""
        if self.remaining:
            self.fail(f"{self.remaining} bytes follow the end")


class BorshWriter:
    """Appends borsh values to a byte string. A value that does not fit its type is an ``OverflowError``: a fault of the caller."""

    __slots__ = ("_out",)

    def __init__(self) -> None:
        self._out = bytearray()

    def fixed(self, data: bytes | memoryview) -> BorshWriter:
        """Append bytes without a length."""
        self._out += data
        return self

    def _unsigned(self, number: int, length: int) -> BorshWriter:
        self._out += number.to_bytes(length, "little")
        return self

    def u8(self, number: int) -> BorshWriter:
        """Append a u8."""
        return self._unsigned(number, 1)

    def u16(self, number: int) -> BorshWriter:
        """Append a u16."""
        return self._unsigned(number, 2)

    def u32(self, number: int) -> BorshWriter:
        """Append a u32."""
        return self._unsigned(number, 4)

    def u64(self, number: int) -> BorshWriter:
        """Append a u64."""
        return self._unsigned(number, 8)

    def u128(self, number: int) -> BorshWriter:
        """Append a u128."""
        return self._unsigned(number, 16)

    def byte_vec(self, data: bytes | memoryview) -> BorshWriter:
        """Append a vec<u8>."""
        return self.u32(len(data)).fixed(data)

    def option(self, item: Item | None, write_item: Callable[[Item], object]) -> BorshWriter:
        """Append an option; ``write_item`` appends to this writer."""
        self.u8(0 if item is None else 1)
        if item is not None:
            write_item(item)
        return self

    def to_bytes(self) -> bytes:
        """Return what was appended."""
        return bytes(self._out)
