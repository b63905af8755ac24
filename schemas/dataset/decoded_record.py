"""Records of flat state with their keys and values taken apart: which columns a kind of record has, and one record's decoding.

All columns are in ``DECODED_SCHEMA``; a kind fills those that ``KIND_COLUMNS`` names, and they are null for the others. Hashes and public
keys are text in NEAR's own form, amounts exact decimals in yoctoNEAR. A value that can't be decoded leaves its columns null and says
why in ``decode_error``; key and value are there in any case.

The decoding here is one record at a time, written to be read; `pipelines.dataset.tables.decoded_records` does record batches and gives the same.
Nothing here knows of files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import pyarrow as pa

from schemas.errors import MalformedValueError
from schemas.ids import CryptoHash
from schemas.nearcore.access_key import decode_access_key
from schemas.nearcore.account import decode_account
from schemas.nearcore.borsh import BorshReader
from schemas.nearcore.trie_key import KINDS_BY_FIRST_BYTE, TrieKeyKind, parse_trie_key

AMOUNT_TYPE: Final = pa.decimal128(38, 0)
"""Of amounts: the widest decimal that DuckDB and polars read. The supply of NEAR has 34 digits."""

AMOUNT_MAX: Final = 10**38 - 1
"""Largest amount in a column; a larger one (an access key may have any allowance) is null, and ``decode_error`` tells it."""

DECODED_SCHEMA: Final = pa.schema(
    [
        pa.field("shard_uid", pa.utf8(), nullable=False),
        pa.field("kind", pa.utf8(), nullable=False),
        pa.field("account_id", pa.utf8()),
        pa.field("account_version", pa.utf8()),
        pa.field("amount", AMOUNT_TYPE),
        pa.field("locked", AMOUNT_TYPE),
        pa.field("storage_usage", pa.uint64()),
        pa.field("contract_kind", pa.utf8()),
        pa.field("code_hash", pa.utf8()),
        pa.field("contract_account_id", pa.utf8()),
        pa.field("bootstrap_nonce", pa.uint64()),
        pa.field("public_key", pa.utf8()),
        pa.field("permission", pa.utf8()),
        pa.field("nonce", pa.uint64()),
        pa.field("allowance", AMOUNT_TYPE),
        pa.field("receiver_id", pa.utf8()),
        pa.field("method_names", pa.list_(pa.utf8())),
        pa.field("gas_key_balance", AMOUNT_TYPE),
        pa.field("gas_key_num_nonces", pa.uint16()),
        pa.field("nonce_index", pa.uint16()),
        pa.field("data_key", pa.binary()),
        pa.field("data_id", pa.utf8()),
        pa.field("receipt_id", pa.utf8()),
        pa.field("yield_id", pa.utf8()),
        pa.field("pending_data_count", pa.uint32()),
        pa.field("queue_index", pa.uint64()),
        pa.field("receiving_shard_id", pa.uint64()),
        pa.field("first_index", pa.uint64()),
        pa.field("next_available_index", pa.uint64()),
        pa.field("key", pa.binary(), nullable=False),
        pa.field("value", pa.binary()),
        pa.field("value_length", pa.uint32(), nullable=False),
        pa.field("value_hash", pa.binary(32)),
        pa.field("decode_error", pa.utf8()),
    ]
)
"""Schema of decoded records of any kind."""

HEAD_COLUMNS: Final = ("shard_uid", "kind")
TAIL_COLUMNS: Final = ("key", "value", "value_length", "value_hash", "decode_error")
"""Columns that every kind has, before and after its own; the raw record is among the last."""

_HASH_KEYED: Final = ("account_id", "data_id")
_QUEUE_ENDS: Final = ("first_index", "next_available_index")

KIND_COLUMNS: Final[dict[TrieKeyKind, tuple[str, ...]]] = {
    TrieKeyKind.ACCOUNT: (
        "account_id",
        "account_version",
        "amount",
        "locked",
        "storage_usage",
        "contract_kind",
        "code_hash",
        "contract_account_id",
        "bootstrap_nonce",
    ),
    TrieKeyKind.CONTRACT_CODE: ("account_id", "code_hash"),
    TrieKeyKind.ACCESS_KEY: (
        "account_id",
        "public_key",
        "permission",
        "nonce",
        "allowance",
        "receiver_id",
        "method_names",
        "gas_key_balance",
        "gas_key_num_nonces",
    ),
    TrieKeyKind.GAS_KEY_NONCE: ("account_id", "public_key", "nonce_index", "nonce"),
    TrieKeyKind.RECEIVED_DATA: _HASH_KEYED,
    TrieKeyKind.POSTPONED_RECEIPT_ID: ("account_id", "data_id", "receipt_id"),
    TrieKeyKind.PENDING_DATA_COUNT: ("account_id", "receipt_id", "pending_data_count"),
    TrieKeyKind.POSTPONED_RECEIPT: ("account_id", "receipt_id"),
    TrieKeyKind.DELAYED_RECEIPT_INDICES: _QUEUE_ENDS,
    TrieKeyKind.DELAYED_RECEIPT: ("queue_index",),
    TrieKeyKind.CONTRACT_DATA: ("account_id", "data_key"),
    TrieKeyKind.PROMISE_YIELD_INDICES: _QUEUE_ENDS,
    TrieKeyKind.PROMISE_YIELD_TIMEOUT: ("queue_index",),
    TrieKeyKind.PROMISE_YIELD_RECEIPT: _HASH_KEYED,
    TrieKeyKind.BUFFERED_RECEIPT_INDICES: (),
    TrieKeyKind.BUFFERED_RECEIPT: ("receiving_shard_id", "queue_index"),
    TrieKeyKind.BANDWIDTH_SCHEDULER_STATE: (),
    TrieKeyKind.BUFFERED_RECEIPT_GROUPS_QUEUE_DATA: ("receiving_shard_id",),
    TrieKeyKind.BUFFERED_RECEIPT_GROUPS_QUEUE_ITEM: ("receiving_shard_id", "queue_index"),
    TrieKeyKind.GLOBAL_CONTRACT_CODE: ("account_id", "code_hash"),
    TrieKeyKind.GLOBAL_CONTRACT_NONCE: ("account_id", "code_hash", "nonce"),
    TrieKeyKind.PROMISE_YIELD_STATUS: _HASH_KEYED,
    TrieKeyKind.YIELD_ID_TO_DATA_ID: ("account_id", "yield_id", "data_id"),
    TrieKeyKind.DATA_ID_TO_YIELD_ID: ("account_id", "data_id", "yield_id"),
    TrieKeyKind.UNKNOWN: (),
}
"""The typed columns of each kind, in the schema's terms."""


def columns_of(kinds: Iterable[TrieKeyKind]) -> list[str]:
    """Return the names of the columns that records of some kinds have, in the schema's order."""
    names = {*HEAD_COLUMNS, *TAIL_COLUMNS} | {name for kind in kinds for name in KIND_COLUMNS[kind]}
    return [name for name in DECODED_SCHEMA.names if name in names]


def decode_record(key: bytes, value: bytes | None, value_hash: bytes | None) -> dict[str, Any]:
    """Take one record apart.

    Args:
        value: None where it is a reference.
        value_hash: None where the value is inlined.
    Returns:
        Column names and values: ``kind``, the kind's typed columns that are not null and, where something is wrong, ``decode_error``.
    """
    try:
        parsed = parse_trie_key(key)
    except MalformedValueError as error:
        return {"kind": KINDS_BY_FIRST_BYTE[key[0]][0].value, "decode_error": f"key: {error.problem}"}
    row: dict[str, Any] = {"kind": parsed.kind.value}
    for name in KIND_COLUMNS[parsed.kind]:
        part = getattr(parsed, name, None)
        if part is not None:
            row[name] = str(part) if isinstance(part, CryptoHash) else part
    if parsed.kind in (TrieKeyKind.CONTRACT_CODE, TrieKeyKind.GLOBAL_CONTRACT_CODE):
        row["code_hash"] = str(CryptoHash(hashlib.sha256(value).digest() if value is not None else value_hash or b""))
    read = _VALUES.get(parsed.kind)
    if read is None:
        return row
    if value is None:
        row["decode_error"] = "value: it is a reference, and such values are never that long"
        return row
    try:
        columns = read(value)
    except MalformedValueError as error:
        row["decode_error"] = f"value: {error.problem}"
        return row
    return row | _within_column_types(columns)


def _within_column_types(columns: dict[str, Any]) -> dict[str, Any]:
    """Replace amounts that are too large for their column by a note."""
    large = [name for name, value in columns.items() if isinstance(value, int) and value > AMOUNT_MAX]
    if not large:
        return columns
    note = ", ".join(f"{name} {columns[name]} has more than 38 digits" for name in large)
    return {name: value for name, value in columns.items() if name not in large} | {"decode_error": note}


def _account_columns(value: bytes) -> dict[str, Any]:
    account = decode_account(value)
    contract = account.contract
    return {
        "account_version": account.version.value,
        "amount": account.amount,
        "locked": account.locked,
        "storage_usage": account.storage_usage,
        "contract_kind": contract.kind.value,
        "code_hash": None if contract.code_hash is None else str(contract.code_hash),
        "contract_account_id": contract.account_id,
        "bootstrap_nonce": account.bootstrap_nonce,
    }


def _access_key_columns(value: bytes) -> dict[str, Any]:
    access_key = decode_access_key(value)
    columns: dict[str, Any] = {"permission": access_key.permission.value, "nonce": access_key.nonce}
    if access_key.function_call is not None:
        limits = access_key.function_call
        columns |= {"allowance": limits.allowance, "receiver_id": limits.receiver_id, "method_names": list(limits.method_names)}
    if access_key.gas_key is not None:
        columns |= {"gas_key_balance": access_key.gas_key.balance, "gas_key_num_nonces": access_key.gas_key.num_nonces}
    return columns


def _numbers(**bits: int) -> Callable[[bytes], dict[str, Any]]:
    """Return a reader of unsigned numbers, one after another; a name and its width in bits each."""

    def read(value: bytes) -> dict[str, Any]:
        reader = BorshReader(value, "", MalformedValueError)
        columns = {name: int.from_bytes(reader.fixed(width // 8), "little") for name, width in bits.items()}
        reader.end()
        return columns

    return read


def _one_hash(name: str) -> Callable[[bytes], dict[str, Any]]:
    def read(value: bytes) -> dict[str, Any]:
        reader = BorshReader(value, "", MalformedValueError)
        columns = {name: str(CryptoHash(reader.fixed(32)))}
        reader.end()
        return columns

    return read


_VALUES: Final[dict[TrieKeyKind, Callable[[bytes], dict[str, Any]]]] = {
    TrieKeyKind.ACCOUNT: _account_columns,
    TrieKeyKind.ACCESS_KEY: _access_key_columns,
    TrieKeyKind.GAS_KEY_NONCE: _numbers(nonce=64),
    TrieKeyKind.GLOBAL_CONTRACT_NONCE: _numbers(nonce=64),
    TrieKeyKind.PENDING_DATA_COUNT: _numbers(pending_data_count=32),
    TrieKeyKind.DELAYED_RECEIPT_INDICES: _numbers(first_index=64, next_available_index=64),
    TrieKeyKind.PROMISE_YIELD_INDICES: _numbers(first_index=64, next_available_index=64),
    TrieKeyKind.POSTPONED_RECEIPT_ID: _one_hash("receipt_id"),
    TrieKeyKind.YIELD_ID_TO_DATA_ID: _one_hash("data_id"),
    TrieKeyKind.DATA_ID_TO_YIELD_ID: _one_hash("yield_id"),
}
"""Readers of the values that have columns; the others stay as they are in ``value``."""
