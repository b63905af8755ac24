"""Arrow arrays out of Python and numpy values, and back, without pandas and in few steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def binary_array(values: Sequence[bytes]) -> pa.BinaryArray:
    """Return byte strings of at most 2 GiB together as a column without nulls."""
    offsets = np.fromiter(accumulate(map(len, values), initial=0), np.int32, len(values) + 1)
    return pa.BinaryArray.from_buffers(pa.binary(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))])


def number_array(numbers: npt.NDArray[Any]) -> pa.Array:
    """Return numbers as a column without nulls, of their own type; nothing is copied."""
    contiguous = np.ascontiguousarray(numbers)
    return pa.Array.from_buffers(pa.from_numpy_dtype(contiguous.dtype), len(contiguous), [None, pa.py_buffer(contiguous)])


def numbers_of(column: pa.Array) -> npt.NDArray[Any]:
    """Return a column of numbers without nulls as numpy has them; nothing is copied, and what comes can't be written to."""
    numbers: npt.NDArray[Any] = np.from_dlpack(column)
    return numbers
