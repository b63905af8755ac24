"""Rows of the usual form in a run of records, decoded in native code, a column at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.kernel.native import native_errors
from schemas.nearcore.access_key import PERMISSION_KINDS
from schemas.nearcore.account import AccountVersion, ContractKind
from schemas.nearcore.trie_key import TrieKeyKind

_KINDS: Final = {0: TrieKeyKind.ACCOUNT, 2: TrieKeyKind.ACCESS_KEY, 9: TrieKeyKind.CONTRACT_DATA}

_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "account_version": (AccountVersion.V1.value, AccountVersion.V2.value),
    "contract_kind": tuple(kind.value for kind in ContractKind),
    "permission": tuple(kind.value for kind in PERMISSION_KINDS),
}
"""Of columns that come as numbers, what these mean."""


Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FastRows:
    """Which rows of a run are of the usual form, and how their columns are made."""

    rows: Ints
    """Ascending."""
    columns: dict[str, Callable[[], pa.Array]]
    """Each is made only if it is asked for, and has a value for every one of the rows; a column that is missing is null."""


def native_rows(first_byte: int, keys: pa.BinaryArray, values: pa.BinaryArray, names: Collection[str]) -> FastRows | None:
    """Find the rows of the usual form and decode them; None for a kind that has no such form.

    Args:
        keys, values: of records whose keys begin with ``first_byte``; the module relies on offsets that stay inside their buffers.
        names: columns that are asked for; no other is made.
    Raises:
        InvalidInputError: the wheel can't be loaded.
    """
    kind = _KINDS.get(first_byte)
    if kind is None:
        return None
    with native_errors():
        import statecast_kernel

        found, columns = statecast_kernel.decode_rows(first_byte, keys, values, list(names))
    rows = found.to_numpy()
    made: dict[str, Callable[[], pa.Array]] = {
        name: partial(_named, column, _NAMES[name]) if name in _NAMES else partial(_same, column) for name, column in columns.items()
    }
    return FastRows(rows, made | {"kind": partial(pa.repeat, pa.scalar(kind.value), rows.size)})


def _same(column: pa.Array) -> pa.Array:
    return column


def _named(numbers: pa.UInt8Array, names: tuple[str, ...]) -> pa.StringArray:
    return pa.array(names).take(numbers)
