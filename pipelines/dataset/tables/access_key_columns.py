"""Access keys by column: those of ed25519 with full access or limited to function calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dataset.tables.base58_column import base58_column
from pipelines.dataset.tables.binary_rows import BinaryRows, Bools, Ints, text_array
from pipelines.dataset.tables.fast_rows import FastRows, amounts_column, constant_column, fits_amount, where_present
from schemas.nearcore.access_key import PermissionKind
from schemas.nearcore.account import ACCOUNT_ID_BYTES_MAX
from schemas.nearcore.trie_key import TrieKeyKind

METHOD_NAMES_MAX: Final = 64
"""Most method names of a key that is decoded by column; each takes a pass over the rows."""

_FULL_ACCESS_BYTES: Final = 9
_ED25519_BYTES: Final = 33


@dataclass(frozen=True, slots=True)
class _Calls:
    """Limits of the rows that are limited to function calls, as positions in the values; judged by ``whole``."""

    whole: Bools
    """Which rows end just where their fields do."""
    has_allowance: Bools
    allowance_at: Ints
    receiver_at: Ints
    receiver_length: Ints
    name_counts: Ints
    names_at: Ints
    """Rows × names."""
    name_lengths: Ints


def fast_access_keys(keys: BinaryRows, values: BinaryRows) -> FastRows | None:
    """Find the access keys of the usual form and say how their columns are made; None where a text is not ASCII."""
    # No account id contains the separator, which is the kind's own byte.
    behind_kind = keys.binary_array(keys.starts + 1, keys.lengths - 1)
    separators = pc.find_substring(behind_kind, b"\2").to_numpy(zero_copy_only=False).astype(np.int64) + 1
    usual = (separators > 1) & (separators <= 1 + ACCOUNT_ID_BYTES_MAX) & (keys.lengths == separators + 1 + _ED25519_BYTES)
    usual &= (keys.u8_at(keys.starts + separators + 1) == 0) & values.valid & (values.lengths >= _FULL_ACCESS_BYTES)
    tags = values.u8_at(values.starts + 8)
    full = usual & (tags == 1) & (values.lengths == _FULL_ACCESS_BYTES)
    limited = np.flatnonzero(usual & (tags == 0))
    calls = _read_calls(values, values.starts[limited], values.lengths[limited])
    kept = calls.whole & (~calls.has_allowance | fits_amount(values.fixed_at(calls.allowance_at, 16)))
    chosen = full.copy()
    chosen[limited[kept]] = True
    rows = np.flatnonzero(chosen)
    is_call = ~full[rows]
    account_ids = text_array(keys, keys.starts[rows] + 1, separators[rows] - 1)
    receivers = text_array(values, calls.receiver_at[kept], calls.receiver_length[kept])
    named = np.arange(calls.names_at.shape[1]) < calls.name_counts[kept, None]
    names = text_array(values, calls.names_at[kept][named], calls.name_lengths[kept][named])
    if account_ids is None or receivers is None or names is None:
        return None
    allowed = np.zeros(rows.size, bool)
    allowed[is_call] = calls.has_allowance[kept]

    def public_keys() -> pa.Array:
        return base58_column(keys.fixed_at(keys.starts[rows] + separators[rows] + 2, _ED25519_BYTES - 1), "ed25519:")

    def allowances() -> pa.Array:
        return where_present(allowed, amounts_column(values.fixed_at(calls.allowance_at[kept & calls.has_allowance], 16)))

    def method_names() -> pa.Array:
        offsets = np.concatenate([[0], np.cumsum(calls.name_counts[kept])]).astype(np.int32)
        return where_present(is_call, pa.ListArray.from_arrays(pa.array(offsets), names))

    return FastRows(
        rows,
        {
            "kind": constant_column(TrieKeyKind.ACCESS_KEY, rows),
            "account_id": lambda: account_ids,
            "public_key": public_keys,
            "permission": lambda: pc.if_else(pa.array(is_call), PermissionKind.FUNCTION_CALL.value, PermissionKind.FULL_ACCESS.value),
            "nonce": lambda: pa.array(values.fixed_at(values.starts[rows], 8).view("<u8")[:, 0]),
            "allowance": allowances,
            "allowance_is_unlimited": lambda: pa.array(~allowed, mask=~is_call),
            "receiver_id": lambda: where_present(is_call, receivers),
            "method_names": method_names,
        },
    )


def _read_calls(values: BinaryRows, starts: Ints, lengths: Ints) -> _Calls:
    """Walk the limits field by field; a row whose fields leave its bytes is not whole, whatever was read for it meanwhile."""
    ends = starts + lengths
    options = values.u8_at(starts + 9)
    at = starts + 10 + np.where(options == 1, 16, 0)
    receiver_length = values.u32_at(at)
    receiver_at = at + 4
    at = receiver_at + receiver_length
    counts = values.u32_at(at)
    at = at + 4
    whole = (options <= 1) & (lengths >= 10) & (at <= ends) & (counts <= METHOD_NAMES_MAX)
    counts = np.where(whole, counts, 0)
    most = int(counts.max(initial=0))
    names_at, name_lengths = np.zeros((starts.size, most), np.int64), np.zeros((starts.size, most), np.int64)
    for number in range(most):
        here = whole & (number < counts)
        name_lengths[:, number] = np.where(here, values.u32_at(at), 0)
        names_at[:, number] = at + 4
        at = np.where(here, at + 4 + name_lengths[:, number], at)
        whole &= at <= ends
    return _Calls(whole & (at == ends), options == 1, starts + 10, receiver_at, receiver_length, counts, names_at, name_lengths)
