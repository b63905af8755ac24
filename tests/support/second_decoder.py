"""A decoder of records that was written from docs/spec/state-records.md alone: it imports nothing of the product, and judges it.

Slow and plain on purpose. What is wrong with a record is an exception here; the words of errors and notes are the product's own.
"""

from __future__ import annotations

import hashlib
from typing import Any

DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
HASH_SUFFIXES = {
    3: ("received_data", "data_id"),
    4: ("postponed_receipt_id", "data_id"),
    5: ("pending_data_count", "receipt_id"),
    6: ("postponed_receipt", "receipt_id"),
    12: ("promise_yield_receipt", "data_id"),
    20: ("promise_yield_status", "data_id"),
    22: ("yield_id_to_data_id", "yield_id"),
    23: ("data_id_to_yield_id", "data_id"),
}
SINGLE = {10: "promise_yield_indices", 13: "buffered_receipt_indices", 15: "bandwidth_scheduler_state"}
AMOUNTS = ("amount", "locked", "allowance", "gas_key_balance", "deposit", "gas_price", "attached_gas_cost")


class WrongError(Exception):
    """Not such a record."""


class LaterError(Exception):
    """A tag or version that the page does not have."""


def base58(data: bytes) -> str:
    """Write bytes in base58."""
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = DIGITS[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


class Bytes:
    """Takes values off the front of bytes."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def take(self, count: int) -> bytes:
        """Take that many bytes."""
        if count > len(self.rest):
            raise WrongError
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def uint(self, bits: int) -> int:
        """Take an integer."""
        return int.from_bytes(self.take(bits // 8), "little")

    def string(self) -> bytes:
        """Take a string or bytes."""
        return self.take(self.uint(32))

    def hash(self) -> str:
        """Take a hash."""
        return base58(self.take(32))

    def bit(self) -> int:
        """Take a byte that is 0 or 1."""
        value = self.uint(8)
        if value > 1:
            raise WrongError
        return value

    def end(self) -> None:
        """Nothing is left."""
        if self.rest:
            raise WrongError


def account_id(data: bytes) -> str:
    """Read an account id."""
    if not 1 <= len(data) <= 64 or max(data) > 127:
        raise WrongError
    return data.decode("ascii")


def kind_of(key: bytes) -> str:
    """Tell a key's kind by its first byte, where that is all that can be read of it."""
    firsts = {0: "account", 1: "contract_code", 2: "access_key", 7: "delayed_receipt", 9: "contract_data", 11: "promise_yield_timeout"}
    firsts |= {14: "buffered_receipt", 16: "buffered_receipt_groups_queue_data", 17: "buffered_receipt_groups_queue_item"}
    firsts |= {18: "global_contract_code", 19: "global_contract_nonce"}
    firsts |= {byte: kind for byte, (kind, _) in HASH_SUFFIXES.items()} | SINGLE
    return firsts.get(key[0], "unknown") if key else "unknown"


def read_key(key: bytes) -> dict[str, Any]:
    """Read a key."""
    row: dict[str, Any] = {"kind": kind_of(key)}
    if row["kind"] == "unknown":
        return row
    first, data = key[0], Bytes(key[1:])
    if first in (0, 1):
        row["account_id"] = account_id(data.take(len(data.rest)))
    elif first in (2, 9) or first in HASH_SUFFIXES:
        separator = b"\2" if first == 2 else b","
        if separator not in data.rest:
            raise WrongError
        row["account_id"] = account_id(data.take(data.rest.index(separator)))
        data.take(1)
        if first == 9:
            row["data_key"] = data.take(len(data.rest))
        elif first == 2:
            tag = data.uint(8)
            if tag not in (0, 1, 3):
                raise WrongError
            name, length = {0: ("ed25519", 32), 1: ("secp256k1", 64), 3: ("ml-dsa-65-hash", 32)}[tag]
            row["public_key"] = f"{name}:{base58(data.take(length))}"
            if data.rest:
                row["kind"], row["nonce_index"] = "gas_key_nonce", data.uint(16)
        else:
            row[HASH_SUFFIXES[first][1]] = data.hash()
    elif first == 7 and not data.rest:
        row["kind"] = "delayed_receipt_indices"
    elif first in (7, 11):
        row["queue_index"] = data.uint(64)
    elif first in (14, 16, 17):
        row["receiving_shard_id"] = data.uint(16 if first == 14 else 64)
        if first != 16:
            row["queue_index"] = data.uint(64)
    elif first in (18, 19):
        if data.bit():
            row["account_id"] = account_id(data.string())
        else:
            row["code_hash"] = data.hash()
    data.end()
    return row


def read_account(data: Bytes) -> dict[str, Any]:
    """Read an account."""
    first = data.uint(128)
    if first != 2**128 - 1:
        row = {"account_version": "v1", "amount": first, "locked": data.uint(128)}
        code = data.take(32)
        row |= {"storage_usage": data.uint(64), "contract_kind": "local" if any(code) else "none"}
        return row | ({"code_hash": base58(code)} if any(code) else {})
    if data.bit():
        row = {"account_version": "uninitialized", "amount": data.uint(128), "locked": 0, "contract_kind": "none"}
        return row | {"storage_usage": data.uint(64), "bootstrap_nonce": data.uint(64)}
    row = {"account_version": "v2", "amount": data.uint(128), "locked": data.uint(128), "storage_usage": data.uint(64)}
    tag = data.uint(8)
    if tag > 3:
        raise WrongError
    row["contract_kind"] = ("none", "local", "global", "global_by_account")[tag]
    if tag in (1, 2):
        row["code_hash"] = data.hash()
    elif tag == 3:
        row["contract_account_id"] = account_id(data.string())
    return row


def read_access_key(data: Bytes) -> dict[str, Any]:
    """Read an access key."""
    row: dict[str, Any] = {"nonce": data.uint(64)}
    tag = data.uint(8)
    if tag > 3:
        raise WrongError
    row["permission"] = ("function_call", "full_access", "gas_key_function_call", "gas_key_full_access")[tag]
    if tag >= 2:
        row |= {"gas_key_balance": data.uint(128), "gas_key_num_nonces": data.uint(16)}
    if tag in (0, 2):
        row["allowance_is_unlimited"] = not data.bit()
        if not row["allowance_is_unlimited"]:
            row["allowance"] = data.uint(128)
        try:
            row["receiver_id"] = data.string().decode()
            count = data.uint(32)
            if count * 4 > len(data.rest):
                raise WrongError
            row["method_names"] = [data.string().decode() for _ in range(count)]
        except UnicodeDecodeError:
            raise WrongError from None
    return row


class Receipt:
    """Reads a receipt."""

    def __init__(self, value: bytes, stored: bool) -> None:
        data, tail = Bytes(value), 0
        self.row: dict[str, Any] = {}
        if stored and value[:2] == b"\xff\xff":
            data.take(2)
            if data.uint(8) > 1:
                self.row |= {"receipt_kind": "later", "decode_note": True}
                return
            tail = 16
        elif value[:1] == b"\1" and value[1:2] > b"\0":
            data.take(1)
            tail = 8
        self.data, self.gas, self.deposit = data, 0, 0
        names, receipt_id = (data.string(), data.string()), data.hash()
        head: dict[str, Any] = {"predecessor_id": account_id(names[0]), "receiver_id": account_id(names[1]), "receipt_id": receipt_id}
        try:
            self.row = head | self.content()
        except LaterError:
            self.row = head | {"receipt_kind": "later", "decode_note": True}
            return
        data.take(tail)
        data.end()
        if "gas_price" in self.row:
            cost = 0 if head["predecessor_id"] == "system" else self.gas * self.row["gas_price"]
            self.row |= {"deposit": self.deposit, "attached_gas": self.gas, "attached_gas_cost": cost}
            self.row = {name: account_id(value) if name in ("signer_id", "refund_to") else value for name, value in self.row.items()}

    def content(self) -> dict[str, Any]:
        """Read what is behind the head."""
        data, tag = self.data, self.data.uint(8)
        kinds = ("action", "data", "promise_yield", "promise_resume", "global_contract_distribution", "action_v2", "promise_yield_v2")
        if tag >= len(kinds):
            raise LaterError
        row: dict[str, Any] = {"receipt_kind": kinds[tag]}
        if tag in (1, 3):
            row["data_id"] = data.hash()
            if data.bit():
                data.string()
        elif tag == 4:
            version = data.uint(8)
            if version > 1:
                raise LaterError
            self.contract_id()
            data.take(8)
            data.take(8 * data.uint(32))
            data.string()
            data.take(8 * version)
        else:
            row["signer_id"] = data.string()
            if tag > 4 and data.bit():
                row["refund_to"] = data.string()
            self.keyed(32, 64, 1952)
            row["gas_price"] = data.uint(128)
            for _ in range(self.count()):
                data.take(32)
                data.string()
            data.take(32 * data.uint(32))
            row["num_actions"] = self.actions(nested=False)
        return row

    def count(self) -> int:
        """Take a number of items, each of which has a byte at least."""
        count = self.data.uint(32)
        if count > len(self.data.rest):
            raise WrongError
        return count

    def contract_id(self) -> None:
        """Pass over a contract id."""
        if self.data.bit():
            self.data.string()
        else:
            self.data.take(32)

    def keyed(self, *lengths: int) -> None:
        """Pass over a public key or signature."""
        tag = self.data.uint(8)
        if tag >= len(lengths):
            raise LaterError
        self.data.take(lengths[tag])

    def actions(self, nested: bool) -> int:
        """Read actions."""
        count = self.count()
        if count > 4096:
            raise WrongError
        for _ in range(count):
            self.action(self.data.uint(8), nested)
        return count

    def action(self, tag: int, nested: bool) -> None:
        """Read one action."""
        data = self.data
        if tag > 15:
            raise LaterError
        if tag in (8, 14) and nested:
            raise WrongError
        if tag in (11, 14) and data.uint(8):
            raise LaterError
        if tag in (1, 2, 7, 9, 15):
            data.string()
        if tag == 2:
            data.string()
            self.gas += data.uint(64)
        elif tag == 4:
            data.take(16)
        elif tag == 9:
            data.bit()
        elif tag in (10, 11):
            self.contract_id()
        if tag == 11:
            for _ in range(self.count()):
                data.string()
                data.string()
        if tag in (4, 5, 6, 12, 13):
            self.keyed(32, 64, 1952)
        if tag == 5:
            self.access_key()
        if tag in (2, 3, 11, 12, 15):
            self.deposit += data.uint(128)
        if tag == 13:
            data.take(16)
        if tag in (8, 14):
            data.string()
            data.string()
            self.actions(nested=True)
            data.take(10 if tag == 14 and data.bit() else 8)
            data.take(8)
            self.keyed(32, 64, 1952)
            self.keyed(64, 65, 3309)

    def access_key(self) -> None:
        """Pass over an access key; a permission that is not known is a later one here."""
        data = self.data
        data.take(8)
        tag = data.uint(8)
        if tag > 3:
            raise LaterError
        data.take(18 if tag >= 2 else 0)
        if tag in (0, 2):
            data.take(16 * data.bit())
            data.string()
            for _ in range(self.count()):
                data.string()


def read_value(kind: str, value: bytes) -> dict[str, Any]:
    """Read the value of a kind that the page takes apart."""
    if kind in ("postponed_receipt", "promise_yield_receipt", "delayed_receipt", "buffered_receipt"):
        return Receipt(value, kind in ("delayed_receipt", "buffered_receipt")).row
    data = Bytes(value)
    row: dict[str, Any] = {}
    if kind == "account":
        row = read_account(data)
    elif kind == "access_key":
        row = read_access_key(data)
    elif kind in ("gas_key_nonce", "global_contract_nonce"):
        row = {"nonce": data.uint(64)}
    elif kind == "pending_data_count":
        row = {"pending_data_count": data.uint(32)}
    elif kind in ("delayed_receipt_indices", "promise_yield_indices"):
        row = {"first_index": data.uint(64), "next_available_index": data.uint(64)}
    elif kind == "promise_yield_timeout":
        row = {"account_id": account_id(data.string()), "data_id": data.hash(), "expires_at": data.uint(64)}
    elif kind in ("postponed_receipt_id", "yield_id_to_data_id", "data_id_to_yield_id"):
        name = {"postponed_receipt_id": "receipt_id", "yield_id_to_data_id": "data_id", "data_id_to_yield_id": "yield_id"}[kind]
        row = {name: data.hash()}
    else:
        return row
    data.end()
    return row


def second_decoding(key: bytes, value: bytes | None, value_hash: bytes | None) -> dict[str, Any]:
    """Return a record's typed columns that are not null; True for an error or a note, whose words are the product's own.

    Args:
        value: looked up, where it is a reference of a kind that is decoded.
    """
    try:
        row = read_key(key)
    except WrongError:
        return {"kind": kind_of(key), "decode_error": True}
    kind = row["kind"]
    if kind in ("contract_code", "global_contract_code"):
        return row | {"code_hash": base58(hashlib.sha256(value).digest() if value is not None else value_hash or b"")}
    try:
        taken = read_value(kind, value if value is not None else b"")
    except WrongError:
        return row | {"decode_error": True}
    large = [name for name in AMOUNTS if taken.get(name, 0) >= 10**38]
    large += ["attached_gas"] if taken.get("attached_gas", 0) >= 2**64 else []
    if large:
        taken = {name: part for name, part in taken.items() if name not in large} | {"decode_note": True}
    return taken | row
