"""A fresh database out of sorted files."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.near.node.rocksdb_reader import RocksDbReader, list_columns
from pipelines.restoring.rocksdb_writer import create_database, write_sorted_file
from schemas.errors import RecordOrderError, StoreFullError

ROWS = sorted((hashlib.sha256(bytes([high, low])).digest(), bytes([high]) * 30) for high in range(40) for low in range(250))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file grow further, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def names(folder: Path) -> list[str]:
    """Return what lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_database_holds_the_rows_of_its_files_and_no_others(tmp_path: Path) -> None:
    """Sorted files and single rows; the files are still there afterwards, and nothing of the making is."""
    for index, start in enumerate(range(0, len(ROWS), 4000)):
        write_sorted_file(tmp_path / f"{index}.sst", ROWS[start : start + 4000])
    files = [tmp_path / name for name in names(tmp_path)]
    create_database(tmp_path / "data", ("a", "b", "c"), {"a": files}, {"b": {b"key": b"row"}})
    assert sorted(list_columns(tmp_path / "data")) == ["a", "b", "c", "default"]
    with RocksDbReader(tmp_path / "data", ("a", "b", "c")) as reader:
        assert [row for rows in reader.scan("a", b"", None) for row in rows] == ROWS
        assert reader.get("b", b"key") == b"row"
        assert reader.first_key("c", b"") is None
    assert names(tmp_path) == ["0.sst", "1.sst", "2.sst", "data"]
    assert not {"LOG", "rocksdict-config.json"} & set(names(tmp_path / "data"))


def test_a_database_that_was_there_is_replaced(tmp_path: Path) -> None:
    """What an earlier, killed run left does not shine through."""
    create_database(tmp_path / "data", ("a",), {}, {"a": {b"old": b"row"}})
    create_database(tmp_path / "data", ("a",), {}, {"a": {b"new": b"row"}})
    with RocksDbReader(tmp_path / "data", ("a",)) as reader:
        assert [key for rows in reader.scan("a", b"", None) for key, _ in rows] == [b"new"]


def test_no_rows_make_no_file(tmp_path: Path) -> None:
    """RocksDB has no empty sorted file; one of an earlier run goes too."""
    write_sorted_file(tmp_path / "a.sst", ROWS[:1])
    assert write_sorted_file(tmp_path / "a.sst", ()).rows == 0
    assert names(tmp_path) == []


@pytest.mark.parametrize("rows", [[ROWS[1], ROWS[0]], [ROWS[0], ROWS[0]]])
def test_rows_that_do_not_ascend_are_refused(tmp_path: Path, rows: list[tuple[bytes, bytes]]) -> None:
    """And the file gets no name."""
    with pytest.raises(RecordOrderError):
        write_sorted_file(tmp_path / "a.sst", rows)
    assert not (tmp_path / "a.sst").exists()


def test_a_full_disk_is_told_from_other_faults(tmp_path: Path) -> None:
    """RocksDB says it in its own words; the file gets no name."""
    with files_of_at_most(20_000), pytest.raises(StoreFullError):
        write_sorted_file(tmp_path / "a.sst", ROWS)
    assert not (tmp_path / "a.sst").exists()
    with files_of_at_most(1_000), pytest.raises(StoreFullError):
        create_database(tmp_path / "data", ("a",), {}, {"a": dict(ROWS)})
