"""Receipts are passed over to their last byte, whatever they hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schemas.errors import IntegrityError
from schemas.nearcore.borsh import BorshReader
from schemas.nearcore.receipt import ACTIONS_MAX, RECEIPT_BYTES_MIN, skip_receipt

RECEIPTS: dict[str, bytes] = {
    name: bytes.fromhex(text)
    for name, text in json.loads((Path(__file__).parents[2] / "fixtures" / "receipts" / "receipts.json").read_text()).items()
}


@pytest.mark.parametrize("name", RECEIPTS)
def test_a_receipt_ends_where_nearcore_ends_it(name: str) -> None:
    """And whatever part of it is there alone is refused."""
    data = RECEIPTS[name]
    assert len(data) >= RECEIPT_BYTES_MIN
    reader = BorshReader(data + b"behind", name, IntegrityError)
    skip_receipt(reader)
    assert reader.fixed(reader.remaining) == b"behind"
    for length in range(0, len(data), max(1, len(data) // 50)):
        with pytest.raises(IntegrityError):
            skip_receipt(BorshReader(data[:length], name, IntegrityError))


@pytest.mark.parametrize(
    ("name", "at", "byte", "problem"),
    [
        ("data", 58, 7, "7 is no known kind of receipt"),
        ("action_create_account", -1, 16, "16 is no known kind of action"),
        ("action_delete_key", -33, 3, "3 is no known type of key"),
        ("global_contract_distribution_v1", 59, 2, "V3 is no known version"),
    ],
)
def test_what_is_not_known_is_refused(name: str, at: int, byte: int, problem: str) -> None:
    """Where it ends can't be told."""
    changed = bytearray(RECEIPTS[name])
    changed[at] = byte
    with pytest.raises(IntegrityError, match=problem):
        skip_receipt(BorshReader(changed, name, IntegrityError))


def test_delegated_actions_do_not_nest_and_have_a_limit() -> None:
    """The protocol forbids the one, and has a lower limit for the other."""
    head = RECEIPTS["actions_none"][:-4]
    delegate = RECEIPTS["action_delegate_ed25519"][len(head) + 4 :]
    accounts = delegate[1:27]
    nested = head + (1).to_bytes(4, "little") + b"\x08" + accounts + (1).to_bytes(4, "little") + delegate
    with pytest.raises(IntegrityError, match="stand in delegated actions"):
        skip_receipt(BorshReader(nested, "nested", IntegrityError))
    many = head + (ACTIONS_MAX + 1).to_bytes(4, "little") + bytes(ACTIONS_MAX + 1)
    with pytest.raises(IntegrityError, match="over their limit"):
        skip_receipt(BorshReader(many, "many", IntegrityError))
