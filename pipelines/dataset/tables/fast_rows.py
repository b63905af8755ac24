"""Rows of the usual form in a run of records, and what their decoders share: constant columns, amounts, nulls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.dataset.tables.binary_rows import Bools, Bytes, Ints
from schemas.dataset.decoded_record import AMOUNT_MAX, AMOUNT_TYPE


@dataclass(frozen=True, slots=True)
class FastRows:
    """Which rows of a run are of the usual form, and how their columns are made."""

    rows: Ints
    """Ascending."""
    columns: dict[str, Callable[[], pa.Array]]
    """Each is made only if it is asked for, and has a value for every one of the rows; a column that is missing is null."""


def constant_column(text: str, rows: Ints) -> Callable[[], pa.Array]:
    """Return what makes a column of one text."""
    return lambda: pa.repeat(pa.scalar(str(text)), rows.size)


def amounts_column(data: Bytes) -> pa.Array:
    """Return little-endian numbers of 16 bytes, all at most ``AMOUNT_MAX``, as amounts: Arrow holds them in the same form."""
    return pa.Array.from_buffers(AMOUNT_TYPE, len(data), [None, pa.py_buffer(np.ascontiguousarray(data))])


def fits_amount(data: Bytes) -> Bools:
    """Tell which little-endian numbers of 16 bytes are at most ``AMOUNT_MAX``."""
    halves = np.ascontiguousarray(data).view("<u8")
    high, low = divmod(AMOUNT_MAX, 2**64)
    fits: Bools = (halves[:, 1] < high) | ((halves[:, 1] == high) & (halves[:, 0] <= low))
    return fits


def where_present(present: Bools, column: pa.Array) -> pa.Array:
    """Return a column with a value where ``present`` says so, taken in order from one that has just those; null elsewhere."""
    return column.take(pa.array(np.cumsum(present) - 1, mask=~present))
