"""Base58 of many equally long byte strings at once, as Arrow text.

`schemas.ids.base58_encode` is the one that is written to be read; this gives the same for a column, at a fraction of the time. A number
of 32 bytes is held as base-2**32 digits, a column each, and divided by 58**5 again and again; each remainder is five base58 digits.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_ALPHABET: Final = np.frombuffer(b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", np.uint8)
_GROUP_DIGITS: Final = 5
_GROUP: Final = np.uint64(58**_GROUP_DIGITS)

Bytes = npt.NDArray[np.uint8]


def base58_column(data: Bytes, prefix: str = "") -> pa.StringArray:
    """Encode each row of a matrix.

    Args:
        data: rows × bytes; the number of bytes is a multiple of 4.
        prefix: put before every row's text.
    Returns:
        One text a row.
    """
    rows, width = data.shape
    assert width % 4 == 0
    # Limb by limb in memory, since each step takes one limb of every row.
    limbs = np.ascontiguousarray(np.ascontiguousarray(data).view(">u4").T).astype(np.uint64)
    # 5 digits a group, about 1.366 digits a byte.
    groups = -(-(width * 1366 // 1000 + 1) // _GROUP_DIGITS)
    digits = np.empty((groups * _GROUP_DIGITS, rows), np.uint8)
    for group in reversed(range(groups)):
        remainder = np.zeros(rows, np.uint64)
        for limb in range(width // 4):
            # Below 58**5 * 2**32, which is below 2**62.
            dividend = (remainder << np.uint64(32)) | limbs[limb]
            limbs[limb] = dividend // _GROUP
            remainder = dividend - limbs[limb] * _GROUP
        remainder = remainder.astype(np.uint32)
        for place in reversed(range(group * _GROUP_DIGITS, (group + 1) * _GROUP_DIGITS)):
            quotient = remainder // np.uint32(58)
            digits[place] = remainder - quotient * np.uint32(58)
            remainder = quotient
    # A leading zero byte is one leading "1"; zero digits beyond those are not written.
    by_row = np.ascontiguousarray(digits.T)
    return _text(_ALPHABET[by_row], _leading_zeros(by_row) - _leading_zeros(data), prefix)


def _leading_zeros(matrix: Bytes) -> npt.NDArray[np.int64]:
    nonzero = matrix != 0
    first: npt.NDArray[np.int64] = nonzero.argmax(axis=1)
    return np.where(nonzero.any(axis=1), first, matrix.shape[1])


def _text(characters: Bytes, skipped: npt.NDArray[np.int64], prefix: str) -> pa.StringArray:
    """Return each row's characters from the first that is not skipped, behind the prefix."""
    rows, width = characters.shape
    before = np.frombuffer(prefix.encode("ascii"), np.uint8)
    wide = np.concatenate([np.broadcast_to(before, (rows, before.size)), characters], axis=1)
    kept = np.concatenate([np.ones((rows, before.size), bool), np.arange(width) >= skipped[:, None]], axis=1)
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(before.size + width - skipped, out=offsets[1:])
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(wide[kept]))
