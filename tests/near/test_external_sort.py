"""Sorting outside memory."""

from __future__ import annotations

import tempfile
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.near.files import external_sort
from pipelines.near.files.external_sort import ExternalSort, ValueSpill
from schemas.errors import SourceError

entries_lists = st.lists(st.tuples(st.binary(max_size=3), st.integers(0, 50), st.binary(max_size=20)), max_size=120)


@given(
    entries=entries_lists,
    run_bytes=st.sampled_from([1, 500, 5_000, 1 << 20]),
    bounds=st.lists(st.binary(max_size=2), min_size=2, max_size=2),
)
def test_entries_come_out_sorted_whatever_the_runs(entries: list[tuple[bytes, int, bytes]], run_bytes: int, bounds: list[bytes]) -> None:
    """With a run for every entry, merged over and over, or with a single run: the same order; any interval of keys; any number of times."""
    begin, end = sorted(bounds)
    with tempfile.TemporaryDirectory() as folder:
        sort = ExternalSort(Path(folder), run_bytes)
        for entry in entries:
            sort.add(*entry)
        sort.flush()
        assert list(sort.entries(b"", None)) == sorted(entries)
        assert list(sort.entries(begin, end)) == sorted(entry for entry in entries if begin <= entry[0] < end)
        if run_bytes == 1:
            assert len(list(Path(folder).iterdir())) < external_sort.MERGED_RUNS_MAX + len(entries) // external_sort.MERGED_RUNS_MAX


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    """A full or missing temporary folder is a typed error."""
    sort = ExternalSort(tmp_path / "missing")
    sort.add(b"key", 0, b"payload")
    with pytest.raises(SourceError, match="TMPDIR"):
        sort.flush()
    with pytest.raises(SourceError, match="TMPDIR"):
        ValueSpill(tmp_path / "missing").put(b"value")


@given(st.lists(st.binary(max_size=100), max_size=20))
def test_spilled_values_are_found_by_hash(values: list[bytes]) -> None:
    """Each is stored once and read back."""
    with tempfile.TemporaryDirectory() as folder:
        spill = ValueSpill(Path(folder))
        hashes = [spill.put(value) for value in values + values]
        assert hashes == [sha256(value).digest() for value in values + values]
        assert [spill.get(value_hash) for value_hash in hashes] == values + values
        assert spill.get(bytes(32)) is None
        assert sum(file.stat().st_size for file in Path(folder).iterdir()) == sum(map(len, set(values)))
        spill.close()
