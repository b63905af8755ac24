"""Record batches, decoded by column and row by row."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pyarrow as pa
import pytest

from pipelines.dataset.tables import decoded_records
from pipelines.dataset.tables.decoded_records import decode_batch
from pipelines.dataset.tables.native_rows import native_rows
from pipelines.kernel.native import is_available
from schemas.dataset.decoded_record import AMOUNT_MAX, DECODED_SCHEMA, decode_record
from schemas.dataset.flat_state import RECORD_SCHEMA
from schemas.errors import MalformedValueError
from schemas.nearcore.trie_key import TrieKeyKind
from tests.support.state_records import state_records


def batch_of(rows: list[tuple[bytes, bytes | None]]) -> pa.RecordBatch:
    """Return records in key order; None makes a reference."""
    rows = sorted(rows, key=lambda row: row[0])
    arrays = [
        pa.array([key for key, _ in rows], pa.binary()),
        pa.array([value for _, value in rows], pa.binary()),
        pa.array([5000 if value is None else len(value) for _, value in rows], pa.uint32()),
        pa.array([hashlib.sha256(key).digest() if value is None else None for key, value in rows], pa.binary(32)),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=RECORD_SCHEMA)


def decoded(batch: pa.RecordBatch, **options: Any) -> list[dict[str, Any]]:
    """Decode by column."""
    return [row for result in decode_batch(batch, "s1.v3", **options) for row in result.to_pylist()]


def one_by_one(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Decode row by row, as the module that is written to be read does."""
    rows = []
    for record in batch.to_pylist():
        row = dict.fromkeys(DECODED_SCHEMA.names) | {"shard_uid": "s1.v3"} | record
        rows.append(row | decode_record(record["key"], record["value"], record["value_hash"]))
    return rows


def damaged(value: bytes, chance: random.Random) -> bytes | None:
    """Return a value as it is, cut, grown, with a byte changed, or as a reference."""
    choice = chance.randrange(8)
    if choice == 0 and value:
        return value[: chance.randrange(len(value))]
    if choice == 1:
        return value + bytes([chance.randrange(256)])
    if choice in (2, 3, 4) and value:
        at = chance.randrange(len(value))
        return value[:at] + bytes([chance.choice((0, 1, 2, 3, 127, 128, 255))]) + value[at + 1 :]
    return None if choice == 5 else value


@pytest.fixture(params=["native", "rows"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Decode by column in native code, and as it is done where the kernel is not installed."""
    if request.param == "native" and not is_available():
        pytest.skip("the native kernel is not installed")
    monkeypatch.setattr(decoded_records, "is_available", lambda: request.param == "native")
    return str(request.param)


@pytest.mark.usefixtures("way")
def test_nearcores_records_decode_by_column_as_one_by_one() -> None:
    """All kinds in one batch."""
    batch = batch_of([(record.key, record.value) for record in state_records()])
    assert decoded(batch) == one_by_one(batch)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("seed", range(40))
def test_damaged_and_rare_records_decode_by_column_as_one_by_one(seed: int) -> None:
    """Whatever is wrong with a key or value: rows of the usual form among it stay right."""
    chance = random.Random(seed)
    rows = [(damaged(record.key, chance) or b"", damaged(record.value, chance)) for _ in range(6) for record in state_records()]
    batch = batch_of(rows)
    start = chance.randrange(len(rows) // 2)
    sliced = batch.slice(start, len(rows) - start - 3)
    assert decoded(sliced) == one_by_one(sliced)


def test_an_empty_batch_decodes_to_nothing() -> None:
    """No rows, no batches."""
    assert not decoded(batch_of([]))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", ["account_id", "contract_kind", "code_hash", "public_key", "permission", "allowance", "data_key"])
def test_one_column_alone_is_what_it_is_among_all(name: str) -> None:
    """What it follows from is found without the others."""
    batch = batch_of([(record.key, record.value) for record in state_records()])
    assert decoded(batch, columns=[name]) == [{name: row[name]} for row in one_by_one(batch)]


def test_the_usual_form_is_decoded_in_native_code_alone() -> None:
    """Rows of it go through nothing slower; rows of other forms are left, and so is text that is no text."""
    if not is_available():
        pytest.skip("the native kernel is not installed")
    rows: list[tuple[bytes, bytes | None]] = [
        (b"\2alice.near\2\0" + bytes(32), bytes(8) + b"\1"),
        (b"\2bob\2\0" + bytes(32), bytes(8) + b"\0\0\1\0\0\0\xff" + bytes(4)),
    ]
    batch = batch_of(rows)
    found = native_rows(2, batch["key"], batch["value"], ["permission", "public_key"])
    assert found is not None
    assert found.rows.tolist() == [0]
    assert found.columns["permission"]().to_pylist() == ["full_access"]
    assert "receiver_id" not in found.columns


def test_columns_come_in_the_order_asked_for() -> None:
    """And no others."""
    batch = batch_of([(record.key, record.value) for record in state_records()])
    (first, *_) = decode_batch(batch, "s1.v3", columns=["amount", "account_id"])
    assert first.schema.names == ["amount", "account_id"]


def test_kinds_that_share_a_first_byte_are_told_apart() -> None:
    """Nonces of gas keys lie between access keys."""
    batch = batch_of([(record.key, record.value) for record in state_records()])
    nonces = decoded(batch, columns=["kind", "nonce"], kinds=[TrieKeyKind.GAS_KEY_NONCE])
    assert nonces == [{"kind": "gas_key_nonce", "nonce": 99}] * 3


def test_strict_decoding_raises_with_the_key() -> None:
    """In place of a note."""
    batch = batch_of([(b"\0alice.near", b"\1")])
    assert decoded(batch)[0]["decode_error"].startswith("value: ")
    with pytest.raises(MalformedValueError, match=b"\0alice.near".hex()):
        decoded(batch, strict=True)


def test_an_amount_too_large_for_its_column_is_no_malformed_value() -> None:
    """An allowance may be any number; strict decoding lets it pass, the note has it exactly, and no error is counted."""
    limits = b"\1" + (AMOUNT_MAX + 1).to_bytes(16, "little") + b"\1\0\0\0a" + bytes(4)
    batch = batch_of([(b"\2alice.near\2\0" + bytes(32), bytes(8) + b"\0" + limits)])
    (row,) = decoded(batch, strict=True)
    assert row["allowance"] is None
    assert row["receiver_id"] == "a"
    assert row["allowance_is_unlimited"] is False
    assert row["decode_note"] == f"allowance {10**38} has more than 38 digits"
    assert row["decode_error"] is None
