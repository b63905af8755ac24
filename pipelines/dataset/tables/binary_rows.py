"""A binary Arrow column as numpy sees it: where each row's bytes begin and end, and many small reads out of them at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class BinaryRows:
    """The rows of a binary column. Positions are places in its data buffer; a read at a place outside it gives zeros or other rows' bytes,
    never a fault, so that a caller may read first and judge by the lengths after.
    """

    __slots__ = ("_data", "column", "lengths", "starts", "valid")

    def __init__(self, column: pa.BinaryArray) -> None:
        _, offsets, data = column.buffers()
        self.column = column
        bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
        self._data: Bytes = np.zeros(1, np.uint8) if data is None or not data.size else np.frombuffer(data, np.uint8)
        self.starts: Ints = bounds[:-1]
        self.lengths: Ints = np.diff(bounds)
        self.valid: Bools = np.ones(len(column), bool) if not column.null_count else column.is_valid().to_numpy(zero_copy_only=False)

    def u8_at(self, positions: Ints) -> Bytes:
        """Return the byte at each position."""
        return self._data.take(positions, mode="clip")

    def u32_at(self, positions: Ints) -> Ints:
        """Return the little-endian u32 at each position."""
        return self.fixed_at(positions, 4).view("<u4")[:, 0].astype(np.int64)

    def fixed_at(self, positions: Ints, length: int) -> Bytes:
        """Return a matrix with the ``length`` bytes from each position on."""
        return self._data.take(positions[:, None] + np.arange(length), mode="clip")

    def sliced(self, positions: Ints, lengths: Ints) -> tuple[npt.NDArray[np.int32], Bytes]:
        """Return byte strings from anywhere one after another, as offsets and data."""
        offsets = np.zeros(len(positions) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        indices = np.arange(offsets[-1]) + np.repeat(positions - offsets[:-1], lengths)
        return offsets.astype(np.int32), self._data.take(indices, mode="clip")

    def binary_array(self, positions: Ints, lengths: Ints) -> pa.BinaryArray:
        """Return byte strings from anywhere as a column."""
        offsets, data = self.sliced(positions, lengths)
        return pa.BinaryArray.from_buffers(pa.binary(), len(positions), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def text_array(rows: BinaryRows, positions: Ints, lengths: Ints) -> pa.StringArray | None:
    """Return ASCII texts from anywhere as a column; None if one of them is not ASCII."""
    offsets, data = rows.sliced(positions, lengths)
    if data.size and data.max() >= 128:
        return None
    return pa.StringArray.from_buffers(len(positions), pa.py_buffer(offsets), pa.py_buffer(data))
