"""Trie keys of the kinds of records that a genesis file can hold.

Source: nearcore core/primitives/src/trie_key.rs, TrieKey::append_into and module ``col``.
"""

from __future__ import annotations

import struct
from typing import Final

_ACCOUNT: Final = b"\x00"
_CONTRACT_CODE: Final = b"\x01"
_ACCESS_KEY: Final = b"\x02"
_RECEIVED_DATA: Final = b"\x03"
_POSTPONED_RECEIPT_ID: Final = b"\x04"
_PENDING_DATA_COUNT: Final = b"\x05"
_POSTPONED_RECEIPT: Final = b"\x06"
_DELAYED_RECEIPTS: Final = b"\x07"
_CONTRACT_DATA: Final = b"\x09"
_PROMISE_YIELD_RECEIPT: Final = b"\x0c"
_SEPARATOR: Final = b","


def account_key(account_id: str) -> bytes:
    """Return the key of an account."""
    return _ACCOUNT + account_id.encode()


def contract_code_key(account_id: str) -> bytes:
    """Return the key of an account's contract code."""
    return _CONTRACT_CODE + account_id.encode()


def access_key_key(account_id: str, public_key: bytes) -> bytes:
    """Return the key of an access key; ``public_key`` is borsh. The separator is the kind's own byte."""
    return _ACCESS_KEY + account_id.encode() + _ACCESS_KEY + public_key


def contract_data_key(account_id: str, data_key: bytes) -> bytes:
    """Return the key of a contract's storage entry."""
    return _CONTRACT_DATA + account_id.encode() + _SEPARATOR + data_key


def received_data_key(account_id: str, data_id: bytes) -> bytes:
    """Return the key of data that a receipt waits for and that has come."""
    return _RECEIVED_DATA + account_id.encode() + _SEPARATOR + data_id


def postponed_receipt_id_key(receiver_id: str, data_id: bytes) -> bytes:
    """Return the key that names the receipt that waits for some data."""
    return _POSTPONED_RECEIPT_ID + receiver_id.encode() + _SEPARATOR + data_id


def pending_data_count_key(receiver_id: str, receipt_id: bytes) -> bytes:
    """Return the key of the number of data that a receipt still waits for."""
    return _PENDING_DATA_COUNT + receiver_id.encode() + _SEPARATOR + receipt_id


def postponed_receipt_key(receiver_id: str, receipt_id: bytes) -> bytes:
    """Return the key of a receipt that waits for data."""
    return _POSTPONED_RECEIPT + receiver_id.encode() + _SEPARATOR + receipt_id


def promise_yield_receipt_key(receiver_id: str, data_id: bytes) -> bytes:
    """Return the key of a yielded promise."""
    return _PROMISE_YIELD_RECEIPT + receiver_id.encode() + _SEPARATOR + data_id


def delayed_receipt_key(index: int) -> bytes:
    """Return the key of a place in the shard's queue of delayed receipts."""
    return _DELAYED_RECEIPTS + struct.pack("<Q", index)


def delayed_receipt_indices_key() -> bytes:
    """Return the key of the ends of the shard's queue of delayed receipts."""
    return _DELAYED_RECEIPTS
