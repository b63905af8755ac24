"""Rows of a restored database: native code and Python make and refuse the same."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from random import Random
from typing import TypeVar

import pyarrow as pa
import pytest

from pipelines.kernel.native import is_available
from pipelines.kernel.trie_kernel import REFERENCES_SCHEMA
from pipelines.restoring import state_rows
from pipelines.restoring.state_rows import MergedRows, check_state_rows, flat_state_rows
from schemas.dataset.flat_state import RECORD_SCHEMA
from schemas.errors import ValueMismatchError

T = TypeVar("T")
PREFIX = b"12345678"


def both_ways(monkeypatch: pytest.MonkeyPatch, make: Callable[[], T]) -> T:
    """Return what both ways give."""
    monkeypatch.setattr(state_rows, "STEP_ROWS", 5)
    native = make()
    if not is_available():
        return native
    monkeypatch.setattr(state_rows, "is_available", lambda: False)
    assert make() == native
    monkeypatch.undo()
    return native


def test_records_become_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """An inlined value and a reference, from a batch that is cut from another."""
    inlined = [{"key": bytes([number]), "value": bytes(number), "value_length": number, "value_hash": None} for number in range(12)]
    reference = {"key": b"\xff", "value": None, "value_length": 5000, "value_hash": bytes(range(32))}
    batch = pa.RecordBatch.from_pylist([*inlined, reference], schema=RECORD_SCHEMA).slice(2)
    rows = both_ways(monkeypatch, lambda: list(flat_state_rows([batch], PREFIX)))
    assert rows[0] == (PREFIX + b"\2", b"\1\2\0\0\0\0\0")
    assert rows[-1] == (PREFIX + b"\xff", b"\0\x88\x13\0\0" + bytes(range(32)))
    assert len(rows) == 11


def test_equal_hashes_are_one_row_with_all_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ascending by hash, whichever part they come from."""
    random = Random(9)
    payloads = [random.randbytes(random.randrange(30)) for _ in range(40)]
    hashed = {sha256(payload).digest(): payload for payload in payloads}
    parts = [sorted(random.sample(sorted(hashed), 17)) for _ in range(3)]
    batches = [
        pa.RecordBatch.from_pylist(
            [{"hash": one, "references": part + 1, "payload": hashed[one]} for one in hashes], schema=REFERENCES_SCHEMA
        )
        for part, hashes in enumerate(parts)
    ]

    def merged() -> tuple[list[tuple[bytes, bytes]], int]:
        rows = MergedRows(batches, PREFIX)
        return list(rows), rows.references

    rows, references = both_ways(monkeypatch, merged)
    counts = {one: sum(part + 1 for part, hashes in enumerate(parts) if one in hashes) for one in hashed}
    expected = [(PREFIX + one, hashed[one] + counts[one].to_bytes(8, "little")) for one in sorted(hashed) if counts[one]]
    assert rows == expected
    assert references == sum(counts.values())
    assert both_ways(monkeypatch, lambda: check_state_rows(rows, len(PREFIX), "here")) == references


@pytest.mark.parametrize("row", [b"", b"payload", b"payload" + bytes(8), b"payloas" + b"\1" + bytes(7), b"payload" + b"\xff" * 8])
def test_a_row_that_does_not_hash_or_has_no_reference_is_named(monkeypatch: pytest.MonkeyPatch, row: bytes) -> None:
    """Cut, other bytes, or a count that is not above zero."""
    value_hash = sha256(b"payload").digest()
    good = (PREFIX + value_hash, b"payload" + b"\1" + bytes(7))

    def refused() -> tuple[str, str]:
        with pytest.raises(ValueMismatchError) as found:
            check_state_rows([good, (PREFIX + value_hash, row)], len(PREFIX), "here")
        return found.value.problem, found.value.where

    problem, where = both_ways(monkeypatch, refused)
    assert value_hash.hex() in problem
    assert where == "here"
