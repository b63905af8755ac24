"""Datasets in Python: opened by URL, scanned as records and as typed columns by the libraries that people have, and verified."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import polars
import pyarrow as pa
import pyarrow.dataset
import pytest

import statecast
from schemas.errors import DatasetError, InvalidInputError
from tests.support.exported import exported_localnet

ACCOUNTS = 423
YOCTO = 2950000455892380039553251686820115


def test_a_dataset_says_what_it_is() -> None:
    """Out of its summaries, with and without the scheme."""
    dataset = statecast.open_dataset(str(exported_localnet()))
    assert (dataset.chain_id, dataset.epoch_height, dataset.shard_ids, dataset.records) == ("test-chain-klplt", 6, (0, 1, 2, 3), 1937)
    assert all(dataset.state_roots.values())
    assert statecast.open_dataset(f"dataset://{exported_localnet()}", epoch=dataset.epoch_id) == dataset


def test_arrow_polars_and_duckdb_read_one_scan_again_and_again() -> None:
    """By Arrow's C interface, each from the begin."""
    scan = statecast.open_dataset(str(exported_localnet())).scan(kinds=["account"], columns=["account_id", "amount"])
    assert scan.schema.names == ["account_id", "amount"]
    for _ in range(2):
        assert sum(map(int, polars.DataFrame(scan)["amount"])) == YOCTO
        assert duckdb.sql("select sum(amount)::varchar from scan").fetchall() == [(str(YOCTO),)]
        assert pa.table(scan).num_rows == ACCOUNTS
    assert scan.table() == scan.reader().read_all() == pa.table(scan)


@pytest.mark.parametrize("file_format", ["ipc", "parquet"])
def test_the_files_are_a_pyarrow_dataset(file_format: str) -> None:
    """Filters on the shard open its files alone, filters on keys read few rows."""
    dataset = statecast.open_dataset(str(exported_localnet(file_format)))
    files = dataset.files()
    assert files.count_rows() == dataset.records
    key = files.head(1)["key"][0].as_py()
    assert files.filter(pyarrow.dataset.field("key") == key).count_rows() == 1
    one = dataset.files(shard_ids=[2])
    assert set(one.to_table(columns=["shard_uid"])["shard_uid"].to_pylist()) == {"s2.v0"}
    assert one.count_rows() == dataset.scan(shard_ids=[2], decode=False).table().num_rows
    assert polars.scan_pyarrow_dataset(files).select(polars.len()).collect().item() == dataset.records


def test_nothing_can_be_written_through_the_files() -> None:
    """Arrow reads them through the store, and that alone."""
    files = statecast.open_dataset(f"file://{exported_localnet()}").files()
    with pytest.raises(NotImplementedError):
        files.filesystem.create_dir("folder")


def test_verify_recomputes_the_roots(tmp_path: Path) -> None:
    """One changed byte of one value is found."""
    copy = shutil.copytree(exported_localnet(), tmp_path / "copy")
    statecast.open_dataset(str(copy)).verify()
    file = next(path for path in sorted(copy.rglob("*.arrow")) if "values" not in path.name)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(data)
    with pytest.raises(statecast.StatecastError):
        statecast.open_dataset(str(copy)).verify()


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    """A place, a shard, a kind, a column."""
    with pytest.raises(DatasetError):
        statecast.open_dataset(str(tmp_path))
    dataset = statecast.open_dataset(str(exported_localnet()))
    with pytest.raises(InvalidInputError, match="shard 9 is not in the dataset"):
        dataset.scan(shard_ids=[9])
    with pytest.raises(InvalidInputError, match="no kind of record is called coin"):
        dataset.scan(kinds=["coin"])
    with pytest.raises(InvalidInputError, match="no column is called colour"):
        dataset.scan(columns=["colour"])
