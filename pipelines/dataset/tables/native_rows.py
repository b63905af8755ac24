"""Rows of the usual form, decoded in native code, as `fast_rows` and what makes them do in numpy, at a fraction of the time.

Accounts of version 2 are of the usual form here too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Final

import pyarrow as pa

from pipelines.dataset.tables.fast_rows import FastRows, constant_column
from pipelines.kernel.native import native_errors
from schemas.errors import DatasetError
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


def native_rows(first_byte: int, keys: pa.BinaryArray, values: pa.BinaryArray, names: Collection[str]) -> FastRows | None:
    """Find the rows of the usual form and decode them; None for a kind that has no such form.

    Args:
        keys, values: of records whose keys begin with ``first_byte``.
        names: columns that are asked for; no other is made.
    Raises:
        DatasetError: the columns' buffers are not sound.
        InvalidInputError: the wheel can't be loaded.
    """
    kind = _KINDS.get(first_byte)
    if kind is None:
        return None
    try:
        # The module relies on offsets that stay inside their buffers.
        keys.validate(full=True)
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DatasetError(problem=f"a record batch is damaged: {error}", remedy="Export the source again.") from error
    with native_errors():
        import statecast_kernel

        found, columns = statecast_kernel.decode_rows(first_byte, keys, values, list(names))
    rows = found.to_numpy()
    made: dict[str, Callable[[], pa.Array]] = {
        name: partial(_named, column, _NAMES[name]) if name in _NAMES else partial(_same, column) for name, column in columns.items()
    }
    return FastRows(rows, made | {"kind": constant_column(kind, rows)})


def _same(column: pa.Array) -> pa.Array:
    return column


def _named(numbers: pa.UInt8Array, names: tuple[str, ...]) -> pa.StringArray:
    return pa.array(names).take(numbers)
