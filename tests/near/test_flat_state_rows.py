"""Rows of flat state as record batches: in native code and in numpy."""

from __future__ import annotations

from random import Random

import pyarrow as pa
import pytest

from pipelines.kernel.native import is_available
from pipelines.near.node import flat_state_rows
from pipelines.near.node.flat_state_rows import decode_rows
from schemas.dataset.flat_state import RECORD_SCHEMA
from schemas.dataset.flat_state_value import encode_inlined, encode_ref
from schemas.errors import IntegrityError

PREFIX = b"12345678"


def some_rows(count: int) -> list[tuple[bytes, bytes]]:
    """Return rows of all kinds of lengths, one in five a reference."""
    random = Random(3)
    keys = sorted(random.randbytes(random.randrange(1, 60)) for _ in range(count))
    return [
        (
            PREFIX + key,
            encode_ref(5000, random.randbytes(32)) if index % 5 == 4 else encode_inlined(random.randbytes(random.randrange(900))),
        )
        for index, key in enumerate(keys)
    ]


@pytest.fixture(params=["native", "numpy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return each way in turn."""
    if request.param == "numpy":
        monkeypatch.setattr(flat_state_rows, "is_available", lambda: False)
    elif not is_available():
        pytest.skip("the native kernel is not installed")
    return str(request.param)


@pytest.mark.parametrize("record_batch_bytes_max", [1, 1000, 3001, 1 << 20])
def test_both_ways_give_the_same_batches(monkeypatch: pytest.MonkeyPatch, record_batch_bytes_max: int) -> None:
    """Cut at the same rows, with the same bytes in a file, however the rows come in steps."""
    rows, files = some_rows(200), []
    for available, step in ((is_available(), 7), (False, 64)):
        monkeypatch.setattr(flat_state_rows, "is_available", lambda available=available: available)
        steps = [rows[begin : begin + step] for begin in range(0, len(rows), step)]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, RECORD_SCHEMA) as writer:
            for batch in decode_rows(steps, len(PREFIX), record_batch_bytes_max, "test"):
                batch.validate(full=True)
                writer.write_batch(batch)
        files.append(sink.getvalue())
    assert files[0] == files[1]


def test_keys_and_lengths_alone_are_those_of_the_records(way: str) -> None:
    """In batches that values don't fill."""
    rows = some_rows(300)
    whole = pa.Table.from_batches(decode_rows([rows], len(PREFIX), 1 << 20, "test")).select(["key", "value_length"])
    batches = list(decode_rows([rows[:100], rows[100:]], len(PREFIX), 3000, "test", with_values=False))
    assert pa.Table.from_batches(batches).equals(whole)
    assert 6 <= len(batches) <= 10


def test_no_rows_are_no_batches(way: str) -> None:
    """An empty range ends at once."""
    assert list(decode_rows([], 8, 100, "test")) == []


@pytest.mark.parametrize("row", [b"", b"\1\5\0\0\0abc", b"\2\0\0\0\0", b"\0\1\0\0\0" + bytes(31), encode_ref(2**31, bytes(32))])
def test_a_row_that_is_none_is_named(way: str, row: bytes) -> None:
    """By its trie key, after the batches before it."""
    rows = [*some_rows(20), (PREFIX + b"\xff\xff", row)]
    with pytest.raises(IntegrityError, match="no FlatStateValue") as refused:
        list(decode_rows([rows], len(PREFIX), 100, "FlatState of a test"))
    assert refused.value.where == "FlatState of a test, trie key ffff"
