"""Merging an older state's records with changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dataset.roll_forward.merge_changes import FileSlots, merge_own_values, merge_records, merge_shared_values
from schemas.dataset.flat_state import OWN_VALUE_SCHEMA, RECORD_SCHEMA, VALUE_SCHEMA
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX
from tests.support.records import Pairs, keys, pairs_of, record_batches, record_sets, value_batches, values

Changes = dict[bytes, bytes | None]


def change_batches(changes: Changes) -> list[pa.RecordBatch]:
    """Return changes as they are kept: a key that is gone has neither value nor hash."""
    rows = []
    for key, value in sorted(changes.items()):
        if value is None:
            rows.append({"key": key, "value": None, "value_length": 0, "value_hash": None})
        else:
            rows += record_batches([(key, value)])[0].to_pylist()
    return [pa.RecordBatch.from_pylist(rows, schema=RECORD_SCHEMA)]


@given(
    older=record_sets(), changes=st.dictionaries(keys(), st.none() | values(), max_size=20), again=st.lists(st.integers(0, 200), max_size=9)
)
def test_merged_records_are_the_changed_ones(older: Pairs, changes: Changes, again: list[int]) -> None:
    """New, changed and removed keys, among them ones that were there; in order, references kept."""
    changes |= {older[number % len(older)][0]: None if number % 3 else b"changed" for number in again}
    merged = merge_records(record_batches(older, 7), change_batches(changes))
    expected = {**dict(older), **changes}
    pairs = sorted((key, value) for key, value in expected.items() if value is not None)
    assert pairs_of(merged, value_batches(pairs)) == pairs


def test_nothing_may_be_left() -> None:
    """A file whose keys are all gone becomes no batch."""
    assert merge_records(record_batches([(b"a", b"1")]), change_batches({b"a": None})) == []
    assert merge_records([], change_batches({b"a": None})) == []


@given(older=st.lists(st.binary(max_size=3), unique=True), more=st.lists(st.binary(max_size=3), unique=True))
def test_merged_shared_values_are_there_once(older: list[bytes], more: list[bytes]) -> None:
    """Ascending by hash, whichever of both has them."""

    def batches(some: list[bytes]) -> list[pa.RecordBatch]:
        rows = sorted(({"value_hash": sha256(value).digest(), "value": value} for value in some), key=lambda row: row["value_hash"])
        return [pa.RecordBatch.from_pylist(rows, schema=VALUE_SCHEMA)]

    merged = [row["value"] for batch in merge_shared_values(batches(older), batches(more)) for row in batch.to_pylist()]
    assert merged == sorted({*older, *more}, key=lambda value: sha256(value).digest())


@given(older=record_sets(), changes=st.dictionaries(keys(), st.none() | values(), max_size=20))
def test_merged_own_values_are_those_of_the_newest_records(older: Pairs, changes: Changes) -> None:
    """Values of changed and gone keys are left out, new ones stand in the order of their keys."""

    def batches(pairs: Iterable[tuple[bytes, bytes]]) -> list[pa.RecordBatch]:
        rows = [{"key": key, "value_hash": sha256(value).digest(), "value": value} for key, value in pairs]
        return [pa.RecordBatch.from_pylist(rows, schema=OWN_VALUE_SCHEMA)]

    new = {key: value for key, value in changes.items() if value is not None and len(value) > INLINED_VALUE_BYTES_MAX}
    merged = merge_own_values(batches(older), pa.array(changes, pa.binary()), batches(sorted(new.items())))
    kept = {key: value for key, value in older if key not in changes}
    assert [(row["key"], row["value"]) for batch in merged for row in batch.to_pylist()] == sorted({**kept, **new}.items())


def test_own_values_are_merged_as_they_are_read() -> None:
    """However many changed at keys that lie together."""
    taken: list[int] = []

    def more() -> Iterator[pa.RecordBatch]:
        for number in range(100):
            taken.append(number)
            row = {"key": b"%03d" % number, "value_hash": bytes(32), "value": b""}
            yield pa.RecordBatch.from_pylist([row], schema=OWN_VALUE_SCHEMA)

    merged = iter(merge_own_values([], pa.array([], pa.binary()), more()))
    assert next(merged)["key"].to_pylist() == [b"000"]
    assert len(taken) < 3


def test_slots_cover_all_keys() -> None:
    """Keys before the first file belong to it; an older dataset without files has one slot."""
    slots = FileSlots((b"f", b"m"))
    assert [slots.index(key) for key in (b"", b"e", b"f", b"lz", b"m", b"z")] == [0, 0, 1, 1, 2, 2]
    ranges = [slots.key_range(index) for index in range(len(slots))]
    assert [(found.begin, found.end) for found in ranges] == [(b"", b"f"), (b"f", b"m"), (b"m", None)]
    assert len(FileSlots(())) == 1
