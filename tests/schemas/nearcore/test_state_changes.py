"""Rows of StateChanges."""

from __future__ import annotations

import struct

import pytest

from schemas.errors import IntegrityError
from schemas.nearcore.state_changes import account_of, decode_last_change
from schemas.nearcore.trie_key import access_key_key, account_key, contract_code_key, contract_data_key

ACCOUNT = "alice.near"
PUBLIC_KEY = b"\x00" + b"p" * 32


def text(data: bytes) -> bytes:
    """Encode a borsh byte string."""
    return struct.pack("<I", len(data)) + data


def change(cause: int, data: bytes | None) -> bytes:
    """Encode one change."""
    head = bytes([cause]) + (b"h" * 32 if 2 <= cause <= 6 else b"")
    return head + (b"\0" if data is None else b"\1" + text(data))


def row(key_fields: bytes, *changes: bytes) -> bytes:
    """Encode a row."""
    return key_fields + struct.pack("<I", len(changes)) + b"".join(changes)


CASES = {
    "account": (account_key(ACCOUNT), b"\x00" + text(ACCOUNT.encode())),
    "code": (contract_code_key(ACCOUNT), b"\x01" + text(ACCOUNT.encode())),
    "access key": (access_key_key(ACCOUNT, PUBLIC_KEY), b"\x02" + text(ACCOUNT.encode()) + PUBLIC_KEY),
    "data": (contract_data_key(ACCOUNT, b"a,b\x02"), b"\x09" + text(ACCOUNT.encode()) + text(b"a,b\x02")),
}


@pytest.mark.parametrize("kind", CASES)
def test_the_last_change_counts(kind: str) -> None:
    """Of any cause, with a hash or without; a removal is None."""
    trie_key, fields = CASES[kind]
    for cause in (1, 2, 6, 7, 9, 11):
        assert decode_last_change(row(fields, change(2, b"first"), change(cause, b"last")), trie_key, "row") == b"last"
        assert decode_last_change(row(fields, change(2, b"first"), change(cause, None)), trie_key, "row") is None
    assert decode_last_change(row(fields, change(5, b"")), trie_key, "row") == b""


@pytest.mark.parametrize("kind", CASES)
def test_the_account_is_in_the_key(kind: str) -> None:
    """For every recorded kind."""
    assert account_of(CASES[kind][0], "row") == ACCOUNT


@pytest.mark.parametrize("kind", CASES)
def test_a_row_of_another_key_is_refused(kind: str) -> None:
    """The key in the row must be the row's key."""
    fields = CASES[kind][1]
    for other in ("bob.near", "alice.nea", "alice.near2"):
        with pytest.raises(IntegrityError):
            decode_last_change(row(fields, change(2, b"x")), account_key(other), "row")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[: len(CASES["account"][1])] + struct.pack("<I", 0),
        lambda data: data[: len(CASES["account"][1])] + struct.pack("<I", 2**31) + data[-8:],
        lambda data: b"\x07" + data[1:],
        lambda data: b"",
    ],
)
def test_a_damaged_row_is_refused(damage: object) -> None:
    """Cut, too long, without a change, with more changes than bytes, of a kind that is not recorded, empty."""
    trie_key, fields = CASES["account"]
    assert callable(damage)
    with pytest.raises(IntegrityError):
        decode_last_change(damage(row(fields, change(2, b"value"))), trie_key, "row")


def test_a_key_without_an_account_is_refused() -> None:
    """No separator, nothing before it, or no text."""
    for key in (b"\x09alice.near", b"\x02", b"\x00", b"\x00\xff"):
        with pytest.raises(IntegrityError):
            account_of(key, "row")
