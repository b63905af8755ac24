"""Opening a node's database read-only, and what happens when its files are not as they should be."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from pipelines.near.node import rocksdb_reader
from pipelines.near.node.node_columns import FLAT_STATE, FLAT_STORAGE_STATUS, STATE
from pipelines.near.node.rocksdb_reader import RocksDbReader, cached_reader, forget_readers, list_columns, table_files
from schemas.errors import ColumnMissingError, SourceChangedError, SourceError
from tests.support.nodes import change_rows, copied, drop_column, localnet_home, node_a, open_writable, snapshot_folder, tree

COLUMNS = (FLAT_STATE, FLAT_STORAGE_STATUS)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A copied state snapshot's database folder."""
    return snapshot_folder(copied(node_a(), tmp_path))


def rows_of(reader: RocksDbReader, column: str = FLAT_STATE) -> list[tuple[bytes, bytes]]:
    """Return all rows of a column family."""
    return [row for rows in reader.scan(column, b"", None) for row in rows]


def largest_flat_state_file(data: Path) -> Path:
    """The largest file that FlatState alone is in."""
    before = {file.name: file for file in data.glob("*.sst")}
    sizes = {file.size for file in table_files(data, FLAT_STATE)}
    return max((file for file in before.values() if file.stat().st_size in sizes), key=lambda file: file.stat().st_size)


def test_a_database_with_a_fresh_write_ahead_log_opens_with_its_counted_columns() -> None:
    """The columns that nearcore merges by itself can be read from a node that was just stopped."""
    with RocksDbReader(localnet_home() / "data", (STATE, "col27", "col33", "col45")) as reader:
        assert len(rows_of(reader, STATE)) > 9000


def test_reading_changes_nothing_in_the_home(tmp_path: Path) -> None:
    """Names, sizes and times of all files are the same before and after."""
    home = copied(node_a(), tmp_path)
    before = tree(home)
    for data in (home / "data", snapshot_folder(home)):
        list_columns(data)
        table_files(data, FLAT_STATE)
        with RocksDbReader(data, COLUMNS) as reader:
            assert rows_of(reader)
    assert tree(home) == before


def test_the_configuration_that_rocksdict_leaves_in_a_folder_is_not_written_through(snapshot: Path) -> None:
    """A rocksdict-config.json that lies in the home keeps its bytes."""
    config = snapshot / "rocksdict-config.json"
    config.write_text("left by another tool")
    with RocksDbReader(snapshot, COLUMNS) as reader:
        rows_of(reader)
    assert config.read_text() == "left by another tool"


def test_no_temporary_folder_is_left_while_a_database_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of links is gone as soon as the database is open, so a killed process leaves none."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with RocksDbReader(node_a() / "data", COLUMNS):
        assert list(tmp_path.iterdir()) == []


def test_files_that_a_node_deletes_can_still_be_read(snapshot: Path) -> None:
    """An open reader holds all its table files open."""
    with RocksDbReader(node_a() / "data" / "state_snapshot" / snapshot.parent.name / "data", COLUMNS) as whole:
        expected = rows_of(whole)
    with RocksDbReader(snapshot, COLUMNS) as reader:
        shutil.rmtree(snapshot)
        assert rows_of(reader) == expected


def test_a_missing_current_file_is_named(snapshot: Path) -> None:
    """A snapshot that is still being written has no CURRENT."""
    (snapshot / "CURRENT").unlink()
    with pytest.raises(SourceError, match=r"no file CURRENT.*data/CURRENT"):
        RocksDbReader(snapshot, COLUMNS)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The folder may have been deleted with its snapshot."""
    with pytest.raises(SourceError, match="gone"):
        RocksDbReader(tmp_path / "gone", COLUMNS)


def test_a_missing_table_file_is_named(snapshot: Path) -> None:
    """A file that the MANIFEST names and that is not there is an incomplete copy."""
    file = largest_flat_state_file(snapshot)
    file.unlink()
    with pytest.raises(SourceError, match=rf"names {file.name}, but that file is missing.*{re.escape(str(file))}"):
        RocksDbReader(snapshot, COLUMNS)


@pytest.mark.parametrize("size", [0, 1000], ids=["empty", "cut"])
def test_a_truncated_table_file_is_named(snapshot: Path, size: int) -> None:
    """A half-written file is refused when the database is opened."""
    file = largest_flat_state_file(snapshot)
    os.truncate(file, size)
    with pytest.raises(SourceError, match=re.escape(str(file))):
        RocksDbReader(snapshot, COLUMNS)


def test_a_missing_manifest_is_named(snapshot: Path) -> None:
    """CURRENT names a file that is not there."""
    (manifest,) = snapshot.glob("MANIFEST-*")
    manifest.unlink()
    with pytest.raises(SourceError, match=manifest.name):
        RocksDbReader(snapshot, COLUMNS)


def test_a_half_written_manifest_is_named(snapshot: Path) -> None:
    """A MANIFEST without its beginning records is no database."""
    (manifest,) = snapshot.glob("MANIFEST-*")
    os.truncate(manifest, 3000)
    with pytest.raises(SourceError, match=manifest.name):
        RocksDbReader(snapshot, COLUMNS)


def test_a_damaged_block_stops_a_scan_with_the_file_named(snapshot: Path) -> None:
    """A changed byte is found by RocksDB's checksum, and the scan does not end as if it were complete."""
    file = largest_flat_state_file(snapshot)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with RocksDbReader(snapshot, COLUMNS) as reader, pytest.raises(SourceError, match=rf"checksum mismatch.*{file.name}"):
        rows_of(reader)


def test_a_missing_column_family_is_named(snapshot: Path) -> None:
    """A dropped column is a typed error, by the name that people know."""
    drop_column(snapshot, FLAT_STATE)
    with pytest.raises(ColumnMissingError, match="no column family FlatState"):
        RocksDbReader(snapshot, COLUMNS)
    assert FLAT_STATE not in list_columns(snapshot)


def test_a_lock_that_another_process_holds_is_no_obstacle(snapshot: Path) -> None:
    """A running node holds LOCK; it is neither taken nor waited for."""
    with (snapshot / "LOCK").open("r+b") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        code = (
            "import sys; from pathlib import Path; from pipelines.near.node.rocksdb_reader import RocksDbReader\n"
            "print(sum(map(len, RocksDbReader(Path(sys.argv[1]), ('FlatState',)).scan('FlatState', b'', None))))"
        )
        counted = subprocess.run([sys.executable, "-c", code, str(snapshot)], capture_output=True, text=True, check=True)
    assert counted.stdout.strip() == "1445"


def test_a_database_that_is_written_to_keeps_its_view(snapshot: Path) -> None:
    """While another handle deletes, flushes and compacts everything, an open scan goes on with what was there."""
    with RocksDbReader(snapshot, COLUMNS) as reader:
        expected = rows_of(reader)
        steps = reader.scan(FLAT_STATE, b"", None)
        seen = next(steps)
        database = open_writable(snapshot)
        family = database.get_column_family(FLAT_STATE)
        family.delete_range(b"", b"\xff")
        family.flush()
        family.compact_range(None, None)
        assert list(family.keys()) == []
        assert seen + [row for step in steps for row in step] == expected
        family.close()
        database.close()
    with RocksDbReader(snapshot, COLUMNS) as reader:
        assert rows_of(reader) == []


def test_a_cached_reader_sees_what_was_written_when_it_is_reopened(snapshot: Path) -> None:
    """Without reopening a process keeps one view of a database."""
    first = cached_reader(snapshot, COLUMNS)
    change_rows(snapshot, FLAT_STORAGE_STATUS, {b"new key!": b"row"})
    assert cached_reader(snapshot, COLUMNS) is first
    assert first.get(FLAT_STORAGE_STATUS, b"new key!") is None
    assert cached_reader(snapshot, COLUMNS, reopen=True).get(FLAT_STORAGE_STATUS, b"new key!") == b"row"
    forget_readers()


def test_a_file_that_comes_back_lets_the_next_attempt_succeed(snapshot: Path) -> None:
    """A listing that was taken while the node replaced files is taken again."""
    file = largest_flat_state_file(snapshot)
    hidden = file.rename(snapshot.parent / file.name)

    def come_back(_seconds: float) -> None:
        if hidden.exists():
            hidden.rename(file)

    with RocksDbReader(snapshot, COLUMNS, sleep=come_back) as reader:
        assert len(rows_of(reader)) == 1445


def test_a_database_that_never_stands_still_is_given_up(snapshot: Path) -> None:
    """After a bounded number of attempts from new listings the source counts as changed, not as damaged."""
    largest_flat_state_file(snapshot).unlink()
    log = snapshot / "999999.log"
    attempts = []

    def sleep(seconds: float) -> None:
        attempts.append(seconds)
        log.write_bytes(b"\0" * len(attempts))

    with pytest.raises(SourceChangedError, match="missing"):
        RocksDbReader(snapshot, COLUMNS, sleep=sleep)
    assert len(attempts) == rocksdb_reader.OPEN_ATTEMPTS_MAX


def test_scans_keep_to_their_bounds() -> None:
    """The begin is inclusive and the end exclusive, also across the steps of a scan."""
    with RocksDbReader(snapshot_folder(node_a()), COLUMNS) as reader:
        rows = rows_of(reader)
        for begin, end in ((0, 700), (511, 513), (1000, 1444), (5, 5)):
            found = [row for step in reader.scan(FLAT_STATE, rows[begin][0], rows[end][0]) for row in step]
            assert found == rows[begin:end]


def test_a_scan_that_ends_early_without_an_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a merge operator rocksdict's iteration over State ends at once and says nothing; that is no empty column."""

    def plain_options() -> tuple[Options, Options]:
        return Options(raw_mode=True), Options(raw_mode=True)

    monkeypatch.setattr(rocksdb_reader, "_options_with_merge_operator", plain_options)
    with RocksDbReader(node_a() / "data", (STATE,)) as reader, pytest.raises(SourceError, match="State"):
        rows_of(reader, STATE)


def test_values_in_blob_files_are_read(tmp_path: Path) -> None:
    """A node may be configured to keep large values apart; a file that the node has replaced meanwhile is not called damaged."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_enable_blob_files(True)
    options.set_min_blob_size(64)
    database = Rdict(str(tmp_path / "data"), options=options, column_families={"FlatState": options})
    family = database.get_column_family("FlatState")
    family[b"key"] = b"v" * 1000
    family.flush()
    family.close()
    database.close()
    (blob,) = (tmp_path / "data").glob("*.blob")
    with RocksDbReader(tmp_path / "data", ("FlatState",)) as reader:
        assert reader.get("FlatState", b"key") == b"v" * 1000
    with RocksDbReader(tmp_path / "data", ("FlatState",)) as reader:
        blob.unlink()
        with pytest.raises(SourceChangedError, match=f"{blob.name} is gone"):
            reader.get("FlatState", b"key")
