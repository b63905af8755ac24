"""Records of flat state with their keys and values taken apart: which columns a kind of record has, and one record's decoding.

All columns are in ``DECODED_SCHEMA``; a kind fills those that ``KIND_COLUMNS`` names, and they are null for the others. Hashes and public
keys are text in NEAR's own form, amounts exact decimals in yoctoNEAR. A value that can't be decoded leaves its columns null and says
why in ``decode_error``; of a legal one ``decode_note`` says what its columns can't. Key and value are there in any case.

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
from schemas.nearcore.account import ACCOUNT_ID_BYTES_MAX, decode_account
from schemas.nearcore.borsh import BorshReader
from schemas.nearcore.receipt import decode_receipt
from schemas.nearcore.trie_key import KINDS_BY_FIRST_BYTE, TrieKeyKind, parse_trie_key

AMOUNT_TYPE: Final = pa.decimal128(38, 0)
"""Of amounts: the widest decimal that DuckDB and polars read. The supply of NEAR has 34 digits."""

AMOUNT_MAX: Final = 10**38 - 1
"""Largest amount in a column; a larger one (an access key may have any allowance) is null, and ``decode_note`` tells it."""

_GAS_MAX: Final = 2**64 - 1

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
        pa.field("allowance_is_unlimited", pa.bool_()),
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
        pa.field("receipt_kind", pa.utf8()),
        pa.field("predecessor_id", pa.utf8()),
        pa.field("signer_id", pa.utf8()),
        pa.field("refund_to", pa.utf8()),
        pa.field("num_actions", pa.uint32()),
        pa.field("deposit", AMOUNT_TYPE),
        pa.field("attached_gas", pa.uint64()),
        pa.field("gas_price", AMOUNT_TYPE),
        pa.field("attached_gas_cost", AMOUNT_TYPE),
        pa.field("expires_at", pa.uint64()),
        pa.field("queue_index", pa.uint64()),
        pa.field("receiving_shard_id", pa.uint64()),
        pa.field("first_index", pa.uint64()),
        pa.field("next_available_index", pa.uint64()),
        pa.field("key", pa.binary(), nullable=False),
        pa.field("value", pa.binary()),
        pa.field("value_length", pa.uint32(), nullable=False),
        pa.field("value_hash", pa.binary(32)),
        pa.field("decode_error", pa.utf8()),
        pa.field("decode_note", pa.utf8()),
    ]
)
"""Schema of decoded records of any kind."""

HEAD_COLUMNS: Final = ("shard_uid", "kind")
TAIL_COLUMNS: Final = ("key", "value", "value_length", "value_hash", "decode_error", "decode_note")
"""Columns that every kind has, before and after its own; the raw record is among the last."""

_HASH_KEYED: Final = ("account_id", "data_id")
_QUEUE_ENDS: Final = ("first_index", "next_available_index")
_RECEIPT: Final = (
    "receipt_id",
    "receipt_kind",
    "predecessor_id",
    "receiver_id",
    "signer_id",
    "refund_to",
    "data_id",
    "num_actions",
    "deposit",
    "attached_gas",
    "gas_price",
    "attached_gas_cost",
)

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
        "allowance_is_unlimited",
        "receiver_id",
        "method_names",
        "gas_key_balance",
        "gas_key_num_nonces",
    ),
    TrieKeyKind.GAS_KEY_NONCE: ("account_id", "public_key", "nonce_index", "nonce"),
    TrieKeyKind.RECEIVED_DATA: _HASH_KEYED,
    TrieKeyKind.POSTPONED_RECEIPT_ID: ("account_id", "data_id", "receipt_id"),
    TrieKeyKind.PENDING_DATA_COUNT: ("account_id", "receipt_id", "pending_data_count"),
    TrieKeyKind.POSTPONED_RECEIPT: ("account_id", *_RECEIPT),
    TrieKeyKind.DELAYED_RECEIPT_INDICES: _QUEUE_ENDS,
    TrieKeyKind.DELAYED_RECEIPT: ("queue_index", *_RECEIPT),
    TrieKeyKind.CONTRACT_DATA: ("account_id", "data_key"),
    TrieKeyKind.PROMISE_YIELD_INDICES: _QUEUE_ENDS,
    TrieKeyKind.PROMISE_YIELD_TIMEOUT: ("queue_index", "account_id", "data_id", "expires_at"),
    TrieKeyKind.PROMISE_YIELD_RECEIPT: ("account_id", *_RECEIPT),
    TrieKeyKind.BUFFERED_RECEIPT_INDICES: (),
    TrieKeyKind.BUFFERED_RECEIPT: ("receiving_shard_id", "queue_index", *_RECEIPT),
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

LONG_VALUE_KINDS: Final = frozenset(
    {
        TrieKeyKind.ACCESS_KEY,
        TrieKeyKind.POSTPONED_RECEIPT,
        TrieKeyKind.DELAYED_RECEIPT,
        TrieKeyKind.PROMISE_YIELD_RECEIPT,
        TrieKeyKind.BUFFERED_RECEIPT,
    }
)
"""Kinds whose values are decoded and may be so long that they lie elsewhere: a reader looks them up first."""


def columns_of(kinds: Iterable[TrieKeyKind]) -> list[str]:
    """Return the names of the columns that records of some kinds have, in the schema's order."""
    names = {*HEAD_COLUMNS, *TAIL_COLUMNS} | {name for kind in kinds for name in KIND_COLUMNS[kind]}
    return [name for name in DECODED_SCHEMA.names if name in names]


def decode_record(key: bytes, value: bytes | None, value_hash: bytes | None) -> dict[str, Any]:
    """Take one record apart.

    Args:
        value: None where it is a reference that was not looked up.
        value_hash: None where the value is inlined.
    Returns:
        Column names and values: ``kind``, the kind's typed columns that are not null and, where there is something to say,
        ``decode_error`` or ``decode_note``.
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
        why = "was not looked up" if parsed.kind in LONG_VALUE_KINDS else "such values are never that long"
        row["decode_error"] = f"value: it is a reference, and {why}"
        return row
    try:
        columns = read(value)
    except MalformedValueError as error:
        row["decode_error"] = f"value: {error.problem}"
        return row
    # What the key says comes first.
    return {name: part for name, part in _within_column_types(columns).items() if part is not None} | row


def _within_column_types(columns: dict[str, Any]) -> dict[str, Any]:
    """Replace numbers that are too large for their column by a note."""
    notes = {
        name: f"{name} {value} has more than {'64 bits' if name == 'attached_gas' else '38 digits'}"
        for name, value in columns.items()
        if isinstance(value, int) and value > (_GAS_MAX if name == "attached_gas" else AMOUNT_MAX)
    }
    if not notes:
        return columns
    return {name: value for name, value in columns.items() if name not in notes} | {"decode_note": ", ".join(notes.values())}


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
        columns |= {
            "allowance": limits.allowance,
            "allowance_is_unlimited": limits.allowance is None,
            "receiver_id": limits.receiver_id,
            "method_names": list(limits.method_names),
        }
    if access_key.gas_key is not None:
        columns |= {"gas_key_balance": access_key.gas_key.balance, "gas_key_num_nonces": access_key.gas_key.num_nonces}
    return columns


def _receipt_columns(may_be_stored: bool) -> Callable[[bytes], dict[str, Any]]:
    def read(value: bytes) -> dict[str, Any]:
        receipt = decode_receipt(value, may_be_stored=may_be_stored)
        return {
            "receipt_id": None if receipt.receipt_id is None else str(receipt.receipt_id),
            "receipt_kind": receipt.kind.value,
            "predecessor_id": receipt.predecessor_id,
            "receiver_id": receipt.receiver_id,
            "signer_id": receipt.signer_id,
            "refund_to": receipt.refund_to,
            "data_id": None if receipt.data_id is None else str(receipt.data_id),
            "num_actions": receipt.num_actions,
            "deposit": receipt.deposit,
            "attached_gas": receipt.attached_gas,
            "gas_price": receipt.gas_price,
            "attached_gas_cost": receipt.attached_gas_cost,
            "decode_note": receipt.later,
        }

    return read


def _timeout_columns(value: bytes) -> dict[str, Any]:
    reader = BorshReader(value, "", MalformedValueError)
    account_id = reader.byte_vec(ACCOUNT_ID_BYTES_MAX)
    if not account_id or not account_id.isascii():
        reader.fail("an account id is not ASCII, or is empty")
    columns = {"account_id": account_id.decode("ascii"), "data_id": str(CryptoHash(reader.fixed(32))), "expires_at": reader.u64()}
    reader.end()
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
    TrieKeyKind.POSTPONED_RECEIPT: _receipt_columns(may_be_stored=False),
    TrieKeyKind.DELAYED_RECEIPT: _receipt_columns(may_be_stored=True),
    TrieKeyKind.PROMISE_YIELD_TIMEOUT: _timeout_columns,
    TrieKeyKind.PROMISE_YIELD_RECEIPT: _receipt_columns(may_be_stored=False),
    TrieKeyKind.BUFFERED_RECEIPT: _receipt_columns(may_be_stored=True),
    TrieKeyKind.YIELD_ID_TO_DATA_ID: _one_hash("data_id"),
    TrieKeyKind.DATA_ID_TO_YIELD_ID: _one_hash("yield_id"),
}
"""Readers of the values that have columns; the others stay as they are in ``value``."""
