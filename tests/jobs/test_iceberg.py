"""``statecast tables --format iceberg``, read by PyIceberg and polars."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import polars
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import And, EqualTo
from pyiceberg.table import Table
from pyiceberg.utils.config import Config

import statecast as package
from pipelines.dataset.tables import iceberg_files, iceberg_tables
from schemas.dataset.tables_selection import TablesSelection
from schemas.errors import StatecastError
from tests.support.commands import Outcome, objects_in, statecast
from tests.support.exported import exported_genesis, exported_localnet
from tests.support.nodes import localnet_home
from tests.support.servers import aws_environment, make_s3_bucket, moto_server
from tests.support.small_tables import RUNNER, exported, pairs_of

RECORDS = {"access_key": 862, "account": 423, "contract_code": 11, "contract_data": 641}
NAMESPACE = "test_chain_klplt"


def write(dataset: Path, to: Path, *options: object) -> Outcome:
    """Run the command in this process."""
    return statecast("tables", f"dataset://{dataset}", "--to", to, "--format", "iceberg", "--in-process", "--json", *options)


def genesis() -> Path:
    """Return the dataset of the localnet's epoch 0."""
    return exported_genesis(localnet_home() / "genesis.json")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two epochs; only read."""
    folder = tmp_path_factory.mktemp("lake")
    for dataset in (genesis(), exported_localnet()):
        outcome = write(dataset, folder)
        assert outcome.code == 0, outcome.stderr
    return folder


@pytest.fixture
def opened() -> Iterator[Any]:
    """Open tables by the catalogue beside them."""
    catalogues = []

    def table(folder: Path, kind: str) -> Table:
        catalogues.append(SqlCatalog("statecast", uri=f"sqlite:///{folder / 'iceberg.db'}"))
        return catalogues[-1].load_table((NAMESPACE, kind))

    yield table
    for catalogue in catalogues:
        catalogue.close()


def test_each_table_has_one_commit_an_epoch(lake: Path, opened: Any) -> None:
    """A snapshot is the table as of an epoch, and a filter by epoch reads that epoch's files alone."""
    for kind, count in RECORDS.items():
        table = opened(lake, kind)
        old, new = table.metadata.snapshots
        assert [one.summary.additional_properties["statecast.epoch_height"] for one in (old, new)] == ["0", "6"]
        assert set(table.scan(snapshot_id=old.snapshot_id).to_arrow().column("epoch_height").to_pylist()) == {0}
        newest = table.scan(row_filter=EqualTo("epoch_height", 6))
        assert newest.to_arrow().num_rows == count
        assert all("/epoch_height=6/" in task.file.file_path for task in newest.plan_files())


def test_rows_are_those_of_the_dataset(lake: Path, opened: Any) -> None:
    """Every column of every record, and where it is from; unsigned numbers are exact."""
    for kind in RECORDS:
        scan = package.open_dataset(str(exported_localnet())).scan(kinds=[kind], columns=None)
        expected = {row["key"]: {name: row[name] for name in row if name not in ("kind", "shard_uid")} for row in scan.table().to_pylist()}
        rows = opened(lake, kind).scan(row_filter=EqualTo("epoch_height", 6)).to_arrow().to_pylist()
        assert {row["key"]: {name: row[name] for name in expected[row["key"]]} for row in rows} == expected
        assert {(row["chain_id"], row["block_height"]) for row in rows} == {("test-chain-klplt", 242)}


def test_one_query_gives_an_account_in_all_epochs(lake: Path, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By PyIceberg and by polars."""
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
    table = opened(lake, "account")
    rows = table.scan(row_filter=EqualTo("account_id", "near"), selected_fields=("epoch_height", "amount")).to_arrow().to_pylist()
    scan = {
        row["account_id"]: row["amount"]
        for row in package.open_dataset(str(exported_localnet())).scan(kinds=["account"]).table().to_pylist()
    }
    assert sorted(row["epoch_height"] for row in rows) == [0, 6]
    assert next(row["amount"] for row in rows if row["epoch_height"] == 6) == scan["near"]
    frame = polars.scan_iceberg(table).filter(polars.col("epoch_height") == 6).select(polars.col("amount").sum()).collect()
    assert int(frame.item()) == sum(int(amount) for amount in scan.values())


@pytest.mark.slow
def test_one_query_gives_an_account_over_a_hundred_epochs(tmp_path: Path) -> None:
    """Small ones; each is a commit, and one file an epoch is read at most."""
    selection = TablesSelection.choose(("account",), ("account_id", "amount"), raw=False)
    with closing(iceberg_tables.open_catalogue(str(tmp_path), None)) as catalogue:
        for height in range(100, 200):
            context, dataset = exported(pairs_of(5, changed=(3,) if height % 2 else ()), height)
            iceberg_tables.export_iceberg(RUNNER, context, [dataset], str(tmp_path), selection, catalogue=catalogue)
        scan = catalogue.load_table(("test", "account")).scan(EqualTo("account_id", "user00003.near"), ("epoch_height", "amount"))
        assert len(list(scan.plan_files())) == 100
        found = sorted((row["epoch_height"], int(row["amount"])) for row in scan.to_arrow().to_pylist())
    assert found == [(height, 10**24 + 3 + (height % 2) * 10**24) for height in range(100, 200)]


def test_an_old_epoch_goes_by_one_commit_of_whole_files(tmp_path: Path, opened: Any) -> None:
    """As the documents show it; the snapshot before still has it, and a rerun gives it back."""
    for dataset in (genesis(), exported_localnet()):
        assert write(dataset, tmp_path, "--kind", "account").code == 0
    account = opened(tmp_path, "account")
    before = account.current_snapshot()
    account.delete("epoch_height < 6")
    assert account.current_snapshot().summary.operation.value == "delete"
    assert account.scan().to_arrow().column("epoch_height").unique().to_pylist() == [6]
    assert account.scan(snapshot_id=before.snapshot_id).to_arrow().num_rows == 2 * RECORDS["account"]
    assert write(genesis(), tmp_path, "--kind", "account").document["iceberg"][0]["new"]
    assert opened(tmp_path, "account").scan().to_arrow().num_rows == 2 * RECORDS["account"]


def test_the_two_formats_are_kept_apart(lake: Path, tmp_path: Path) -> None:
    """Side by side they would count each record twice; nothing is written."""
    before = objects_in(lake)
    plain = statecast("tables", f"dataset://{genesis()}", "--to", lake, "--in-process", "--json")
    assert plain.code == 10 and "Iceberg tables are here" in plain.document["error"]["problem"]
    assert objects_in(lake) == before
    (tmp_path / "_catalogue.json").write_text("{}")
    iceberg = write(genesis(), tmp_path)
    assert iceberg.code == 10 and "tables of the other format are here" in iceberg.document["error"]["problem"]
    odd = statecast("tables", f"dataset://{genesis()}", "--to", tmp_path / "plain", "--iceberg-catalog", "prod", "--in-process", "--json")
    assert odd.code == 2 and odd.document["error"]["where"] == "--iceberg-catalog"


def snapshots(folder: Path) -> int:
    """Return how many snapshots all tables have."""
    with closing(SqlCatalog("statecast", uri=f"sqlite:///{folder / 'iceberg.db'}")) as catalogue:
        names = [name for namespace in catalogue.list_namespaces() for name in catalogue.list_tables(namespace)]
        return sum(len(catalogue.load_table(name).metadata.snapshots) for name in names)


def test_a_run_that_ends_before_its_commit_leaves_no_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rerun decodes nothing again and commits each table once; another commits nothing."""
    folder = tmp_path / "lake"

    def broken(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(iceberg_tables, "_commit", broken)
        assert write(genesis(), folder).code != 0
    assert snapshots(folder) == 0
    assert list(folder.rglob("*.parquet"))
    monkeypatch.setattr(iceberg_files, "_write", broken)
    again = write(genesis(), folder)
    assert again.code == 0, again.stderr
    assert all(table["new"] for table in again.document["iceberg"])
    assert snapshots(folder) == 4
    once_more = write(genesis(), folder)
    assert not any(table["new"] for table in once_more.document["iceberg"])
    assert [table["snapshot_id"] for table in once_more.document["iceberg"]] == [
        table["snapshot_id"] for table in again.document["iceberg"]
    ]
    assert snapshots(folder) == 4


def test_a_table_whose_catalogue_fails_between_two_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typed error; the rest is committed by the rerun."""
    folder, commit = tmp_path / "lake", iceberg_tables._commit
    done: list[Any] = []

    def second_fails(*arguments: Any) -> Any:
        if len(done) == 1:
            raise sqlite3.OperationalError("database is locked")
        done.append(arguments)
        return commit(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(iceberg_tables, "_commit", second_fails)
        failed = write(genesis(), folder)
    assert (failed.code, failed.document["error"]["kind"]) == (30, "store")
    assert "database is locked" in failed.document["error"]["problem"]
    assert snapshots(folder) == 1
    assert [table["new"] for table in write(genesis(), folder).document["iceberg"]] == [False, True, True, True]


def test_a_shard_that_comes_later_takes_nothing_away(tmp_path: Path, opened: Any) -> None:
    """Each run's shards alone are replaced."""
    folder = tmp_path / "lake"
    options = ("--kind", "account", "--columns", "account_id,amount", "--no-raw")
    for shard_id in (0, 1, 1):
        assert write(exported_localnet(), folder, "--shard-id", shard_id, *options).code == 0
    table = opened(folder, "account")
    assert set(table.scan().to_arrow().column("shard_id").to_pylist()) == {0, 1}
    assert len(table.metadata.snapshots) == 2
    assert table.scan(row_filter=And(EqualTo("epoch_height", 6), EqualTo("shard_id", 0))).to_arrow().num_rows > 0
    refused = write(exported_localnet(), folder, "--kind", "account")
    assert refused.code == 2
    assert "of another selection" in refused.document["error"]["problem"]


def test_tables_in_a_bucket_are_in_the_catalogue_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of PyIceberg's configuration; PyIceberg reads the bucket by its own means."""
    with aws_environment(), moto_server() as url:
        make_s3_bucket(url, "lake")
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        settings = {"TYPE": "sql", "URI": f"sqlite:///{tmp_path / 'prod.db'}", "S3__ENDPOINT": url, "S3__REGION": "us-east-1"}
        for name, value in settings.items():
            monkeypatch.setenv(f"PYICEBERG_CATALOG__PROD__{name}", value)
        # PyIceberg reads its configuration when it is imported.
        monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())
        command = ("tables", f"dataset://{genesis()}", "--to", "s3://lake/iceberg", "--format", "iceberg", "--in-process", "--json")
        made = statecast(*command, "--kind", "account", "--iceberg-catalog", "prod")
        assert made.code == 0, made.stdout
        with closing(load_catalog("prod")) as catalogue:
            table = catalogue.load_table((NAMESPACE, "account"))
            assert table.location() == "s3://lake/iceberg/account"
            assert table.scan().to_arrow().num_rows == RECORDS["account"]


@pytest.mark.parametrize("to", ["memory://iceberg", "NONE"])
def test_a_catalogue_that_is_not_there_is_told(to: str, tmp_path: Path) -> None:
    """In a bucket one must be named; one that is named must be known."""
    named = ("--iceberg-catalog", "nowhere") if to == "NONE" else ()
    place = tmp_path / "lake" if to == "NONE" else to
    made = statecast("tables", f"dataset://{genesis()}", "--to", place, "--format", "iceberg", "--in-process", "--json", *named)
    assert made.code == 2
    assert "--iceberg-catalog" in str(made.document["error"])


def test_without_pyiceberg_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no dependency of the rest."""
    monkeypatch.setitem(sys.modules, "pyiceberg.catalog", None)
    with pytest.raises(StatecastError, match="can't be imported") as caught:
        iceberg_tables.open_catalogue(str(tmp_path), None)
    assert "statecast[iceberg]" in caught.value.remedy
