"""One record's columns, against records that nearcore's own code encoded."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from schemas.dataset.decoded_record import AMOUNT_MAX, DECODED_SCHEMA, KIND_COLUMNS, columns_of, decode_record
from schemas.ids import CryptoHash
from schemas.nearcore.access_key import decode_access_key
from schemas.nearcore.account import decode_account
from schemas.nearcore.trie_key import TrieKeyKind
from tests.support.state_records import state_records

RECORDS = state_records()
# Their values in the file are a byte; tests/dataset/test_second_decoder.py has whole ones.
_RECEIPTS = ("postponed_receipt", "delayed_receipt", "promise_yield_receipt", "buffered_receipt")
AMOUNTS = ("amount", "locked", "allowance", "gas_key_balance")


def expected(record: Any) -> dict[str, Any]:
    """Return nearcore's view of a record, in the columns' terms."""
    facts = {name: value for name, value in record.facts.items() if value is not None}
    if "data_key" in facts:
        facts["data_key"] = bytes.fromhex(facts["data_key"])
    if facts.get("permission", "").endswith("function_call"):
        facts["allowance_is_unlimited"] = "allowance" not in facts
    facts.update({name: int(facts[name]) for name in AMOUNTS if name in facts})
    return {"kind": record.kind} | {name: value for name, value in facts.items() if name not in AMOUNTS or value <= AMOUNT_MAX}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.kind)
def test_a_records_columns_are_what_nearcore_encoded(record: Any) -> None:
    """Amounts that no column holds are told in words, exactly."""
    row = {name: value for name, value in decode_record(record.key, record.value, None).items() if value is not None}
    note = row.pop("decode_note", "")
    if record.kind in _RECEIPTS:
        assert "value: " in row.pop("decode_error")
    if record.kind == "promise_yield_timeout":
        row = {name: row[name] for name in ("kind", "queue_index")}
    assert row == expected(record)
    for name in AMOUNTS:
        large = name in record.facts and record.facts[name] is not None and int(record.facts[name]) > AMOUNT_MAX
        assert (f"{name} {record.facts.get(name)} has more than 38 digits" in note) == large


@pytest.mark.parametrize(
    "record", [record for record in RECORDS if record.kind in ("account", "access_key")], ids=lambda record: record.kind
)
def test_accounts_and_access_keys_encode_to_nearcores_bytes(record: Any) -> None:
    """Decoded and encoded again."""
    decoded = decode_account(record.value) if record.kind == "account" else decode_access_key(record.value)
    assert decoded.to_bytes() == record.value


def test_a_value_that_does_not_decode_keeps_what_the_key_says() -> None:
    """The row has its account and says what is wrong."""
    row = decode_record(b"\0alice.near", b"\1\2", None)
    assert row["account_id"] == "alice.near"
    assert row["decode_error"].startswith("value: 16 bytes were expected")


def test_a_key_that_does_not_parse_keeps_its_kind() -> None:
    """And nothing else."""
    row = decode_record(b"\2alice.near", b"", None)
    assert row["kind"] == "access_key"
    assert set(row) == {"kind", "decode_error"}


def test_the_hash_of_referenced_code_is_its_references() -> None:
    """No value is read for it."""
    digest = hashlib.sha256(b"code").digest()
    assert decode_record(b"\1alice.near", None, digest)["code_hash"] == str(CryptoHash(digest))


def test_every_kind_has_its_columns_in_the_schema() -> None:
    """No column is named that is not there, none is there that no kind fills."""
    assert set(KIND_COLUMNS) == set(TrieKeyKind)
    named = {name for kind in TrieKeyKind for name in columns_of([kind])}
    assert named == set(DECODED_SCHEMA.names)
