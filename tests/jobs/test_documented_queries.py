"""Every query that the documents show, run as it is shown against tables of two epochs, each with its right answer.

The right answers are worked out here from the datasets' raw records, by the decoders of single records.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import pandas
import polars
import pyarrow
import pyarrow.dataset
import pytest

import statecast
from pipelines.dataset.tables.export_tables import chosen_shards
from pipelines.dataset.tables.tables_place import open_tables
from schemas.dataset.decoded_record import decode_record
from schemas.dataset.tables_selection import TablesSelection
from schemas.nearcore.trie_key import TrieKeyKind
from tests.support.commands import statecast as command
from tests.support.exported import exported_genesis, exported_localnet, tables_of_two_epochs
from tests.support.folder_server import folder_server
from tests.support.nodes import localnet_home
from tests.support.servers import aws_environment, make_s3_bucket, moto_server

PROJECT = Path(__file__).resolve().parents[2]
PAGES = ("docs/operations/data.md", "docs/quickstart/data-engineer.md")
SHOWN_EPOCH, OLD, LATEST = 2950, 0, 6
"""What the documents name stands for the older one of the two."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The records of one epoch, a row each."""

    height: int
    rows: list[dict[str, Any]] = field(repr=False)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the rows of a kind."""
        return [row for row in self.rows if row["kind"] == kind]

    def total(self) -> int:
        """Return what all accounts have."""
        return sum(row["amount"] + row["locked"] for row in self.of("account"))

    def balances(self) -> list[tuple[str, int]]:
        """Return accounts and amounts."""
        return sorted((row["account_id"], row["amount"]) for row in self.of("account"))


@lru_cache
def truth(height: int) -> Truth:
    """Return an epoch's records, decoded one at a time."""
    dataset = exported_localnet() if height == LATEST else exported_genesis(localnet_home() / "genesis.json")
    rows = []
    for shard in chosen_shards(str(dataset)):
        for index in range(len(shard.summary.files)):
            for batch in shard.read_file(index):
                for record in batch.to_pylist():
                    row = decode_record(record["key"], record["value"], record["value_hash"])
                    rows.append(row | {"value_length": record["value_length"]})
    return Truth(height, rows)


def largest(epoch: Truth) -> list[tuple[str, Any]]:
    """Return the ten largest accounts, in NEAR."""
    found = sorted(((row["amount"] + row["locked"], row["account_id"]) for row in epoch.of("account")), reverse=True)[:10]
    return [(account_id, pytest.approx(total / 1e24)) for total, account_id in found]


def stored(epoch: Truth) -> list[tuple[str, int, int]]:
    """Return the ten contracts that store most: entries and bytes."""
    entries: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for row in epoch.of("contract_data"):
        entries[row["account_id"]] += 1
        sizes[row["account_id"]] += row["value_length"]
    return [(account_id, entries[account_id], size) for account_id, size in sizes.most_common(10)]


def shared_code(epoch: Truth) -> list[tuple[str, int]]:
    """Return the hashes of local contracts, and how many accounts have them."""
    found = Counter(row["code_hash"] for row in epoch.of("account") if row["contract_kind"] == "local")
    return sorted(found.items(), key=lambda one: (-one[1], one[0]))


def permissions(epoch: Truth) -> list[tuple[str, int]]:
    """Return how many access keys have each permission."""
    return sorted(Counter(row["permission"] for row in epoch.of("access_key")).items())


def in_all_epochs(account_id: str) -> list[tuple[int, int]]:
    """Return an account's amount in both epochs."""
    return [(height, dict(truth(height).balances())[account_id]) for height in (OLD, LATEST)]


SQL: dict[str, Callable[[], list[Any]]] = {
    "select account_id, (amount + locked) / 1e24 as near from account_latest": lambda: largest(truth(LATEST)),
    "select account_id, count(*) as entries": lambda: stored(truth(OLD)),
    "select code_hash, count(*) as accounts from account_latest": lambda: shared_code(truth(LATEST)),
    "from read_parquet('/data/tables/kind=account/**/*.parquet'": lambda: [(truth(OLD).total(),)],
}
"""By the begin of a statement: its answer."""


def blocks(language: str, page: str) -> list[str]:
    """Return a page's code blocks of a language that are about tables."""
    text = (PROJECT / page).read_text()
    found = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return [block for block in found if "/tables" in block or "account_latest" in block]


def placed(text: str) -> str:
    """Return a document's text with this machine's tables, and the older epoch in place of the one it names."""
    for shown in ("/data/tables", "demo/tables"):
        text = text.replace(shown, str(tables_of_two_epochs()))
    return text.replace(str(SHOWN_EPOCH), str(OLD))


def statements() -> list[str]:
    """Return all documented statements of DuckDB."""
    text = "\n".join(block for page in PAGES for block in blocks("sql", page))
    text = re.sub(r"^(--|\.read).*\n", "", text, flags=re.MULTILINE)
    return list(dict.fromkeys(" ".join(one.split()) for one in text.split(";") if one.strip()))


def connection() -> duckdb.DuckDBPyConnection:
    """Return DuckDB with the views that the documents read first."""
    connected = duckdb.connect()
    connected.execute((tables_of_two_epochs() / "_sql" / "views.sql").read_text())
    return connected


@pytest.mark.parametrize("statement", statements())
def test_a_documented_statement_gives_its_epochs_answer(statement: str) -> None:
    """Which is another in the other epoch, and in both together."""
    with connection() as connected:
        rows = connected.execute(placed(statement)).fetchall()
    if "where account_id = 'near'" in statement:
        assert [(height, int(amount)) for height, _, amount in rows] == in_all_epochs("near")
        genesis = json.loads((localnet_home() / "genesis.json").read_bytes())
        assert rows[0][1] == datetime.fromisoformat(genesis["genesis_time"]).replace(tzinfo=None)
        return
    (answer,) = [answer for begin, answer in SQL.items() if statement.startswith(begin)]
    assert rows == answer()


def test_the_two_epochs_differ() -> None:
    """Else an answer out of the wrong one would pass."""
    assert truth(OLD).balances() != truth(LATEST).balances()
    assert truth(OLD).total() != truth(LATEST).total()


def shown_values(page: str) -> dict[str, Any]:
    """Run a page's Python about tables, and return the values of its expressions by their text."""
    found: dict[str, Any] = {}
    for block in blocks("python", page):
        if "spark" in block or "ray" in block.replace("accounts.ray()", "") or "open_dataset" in block:
            continue
        names: dict[str, Any] = {}
        for node in ast.parse(block).body:
            text = ast.unparse(node)
            if "accounts.ray()" in text:
                continue
            if isinstance(node, ast.Expr):
                found[text] = eval(placed(text), names)
            else:
                exec(placed(text), names)
    return found


def sorted_balances(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """Return accounts and amounts of rows."""
    return sorted((row["account_id"], int(row["amount"])) for row in rows)


def test_documented_python_gives_its_epochs_answer() -> None:
    """polars, pyarrow, pandas, and the libraries that `statecast.scan` gives."""
    values = shown_values(PAGES[0])
    seen = {type(value).__module__.partition(".")[0] for value in values.values()}
    assert seen >= {"polars", "pyarrow", "pandas", "_duckdb"} or seen >= {"polars", "pyarrow", "pandas", "duckdb"}
    for text, value in values.items():
        if "_latest.json" in text:
            assert value == LATEST
        elif "_catalogue.json" in text:
            assert value == [OLD, LATEST]
        elif isinstance(value, polars.DataFrame):
            assert value.rows() == permissions(truth(OLD))
        elif isinstance(value, pandas.DataFrame):
            assert sorted_balances(value.to_dict("records")) == truth(OLD).balances()
        elif isinstance(value, pyarrow.Table):
            assert sorted_balances(value.to_pylist()) == truth(OLD).balances()
        elif isinstance(value, polars.LazyFrame):
            assert sorted_balances(value.select("account_id", "amount").collect().to_dicts()) == truth(LATEST).balances()
        elif isinstance(value, duckdb.DuckDBPyRelation):
            assert value.aggregate("sum(amount) + sum(locked)").fetchall() == [(truth(LATEST).total(),)]
        else:
            assert isinstance(value, pyarrow.dataset.Dataset), text
            assert sorted_balances(value.to_table(["account_id", "amount"]).to_pylist()) == truth(LATEST).balances()


def test_the_quickstart_shows_the_latest_epoch() -> None:
    """Whatever else lies there."""
    ((_, frame),) = shown_values(PAGES[1]).items()
    assert sorted_balances(frame.to_dicts()) == truth(LATEST).balances()


def test_a_macro_says_which_epochs_are_finished() -> None:
    """In place of no rows."""
    with connection() as connected, pytest.raises(duckdb.InvalidInputException, match="epoch 5 is not finished here; finished are 0, 6"):
        connected.execute("select count(*) from account_at(5)").fetchall()


def test_every_view_can_be_read() -> None:
    """Also of kinds that no epoch has, with their columns."""
    with connection() as connected:
        views = [name for (name,) in connected.execute("select view_name from duckdb_views() where not internal").fetchall()]
        assert len(views) == 1 + 2 * 25
        counted = {view: connected.execute(f"select count(*) from {view}").fetchone() for view in views}
        columns = {row[0] for row in connected.execute("describe delayed_receipt").fetchall()}
    assert counted["account"] == (2 * 423,) and counted["account_latest"] == (423,) and counted["epochs"] == (2,)
    assert {"queue_index", "epoch_height", "shard_id", "block_timestamp"} <= columns


def test_tables_folders_open_without_options() -> None:
    """By the libraries' own defaults; what the path says is there where they look at paths."""
    folder = tables_of_two_epochs() / "kind=account"
    assert len(pandas.read_parquet(folder)) == 2 * 423
    assert polars.scan_parquet(f"{folder}/**/*.parquet").select(polars.len()).collect().item() == 2 * 423
    found = pyarrow.dataset.dataset(folder, partitioning="hive")
    assert {"chain_id", "epoch_height", "shard_id"} <= {*found.schema.names}
    assert polars.scan_parquet(folder).select("epoch_height", "shard_id").unique().collect().height == 8


def test_bigquery_and_athena_name_finished_epochs_alone() -> None:
    """In partitions, views and functions."""
    folder = tables_of_two_epochs() / "_sql"
    bigquery, athena = (folder / "bigquery.sql").read_text(), (folder / "athena.sql").read_text()
    assert "view DATASET.account_latest as\n  select * from DATASET.account where epoch_height = 6;" in bigquery
    # In a view's body a default data set does not count; one name a line, so that sed needs no more than its first match.
    assert not re.search(r"(?:from|table|view|function) (?!DATASET\.|columns|if|external|function)[a-z_]+", re.sub("--.*", "", bigquery))
    assert max(line.count("DATASET.") for line in bigquery.splitlines()) == 1
    assert "epoch_height in (0, 6)" in bigquery and "if(epoch in (0, 6), epoch, error(" in bigquery
    assert "'projection.epoch_height.values' = '0,6'" in athena and "'projection.shard_id.values' = '0,1,2,3'" in athena
    assert "`amount` decimal(38,0)" in athena and "`method_names` array<string>" in athena


def test_a_file_taken_alone_says_what_it_is() -> None:
    """In its metadata and in each row."""
    file = next((tables_of_two_epochs() / "kind=account" / "chain_id=test-chain-klplt" / "epoch_height=6" / "shard_id=2").glob("*"))
    table = pyarrow.parquet.ParquetFile(file).read()
    facts = {key.decode().removeprefix("statecast."): value.decode() for key, value in table.schema.metadata.items()}
    assert (facts["chain_id"], facts["epoch_height"], facts["kind"], facts["shard_id"]) == ("test-chain-klplt", "6", "account", "2")
    assert facts["epoch_id"] == table.column("epoch_id")[0].as_py() == "3jRZ8aoF7c92LXvfL7FCe4tqNzypHe5n7fDD3DP3hZ7H"
    # The block that the chunks of the sync block's parent name the state root of.
    assert int(facts["block_height"]) == table.column("block_height")[0].as_py() == 242
    assert table.column("block_timestamp")[0].as_py().isoformat() + "Z" == facts["block_timestamp"]


def test_scan_refuses_what_is_not_there() -> None:
    """And says what is."""
    url = str(tables_of_two_epochs())
    with pytest.raises(statecast.StatecastError, match=r"epoch 5 is not finished here.*Finished are 6 \(3jRZ8.*\), 0 \(1111"):
        statecast.scan(url, kind="account", epoch=5)
    with pytest.raises(statecast.StatecastError, match=r"no kind of record is called 'accounts'.*There are account"):
        statecast.scan(url, kind="accounts")
    assert statecast.scan(url, kind="account", epoch="3jRZ8aoF7c92LXvfL7FCe4tqNzypHe5n7fDD3DP3hZ7H").rows == 423
    empty = statecast.scan(url, kind="delayed_receipt", epoch=0)
    assert empty.rows == 0 and empty.polars().collect().is_empty() and empty.block_height == 0


def test_a_place_on_the_web_is_scanned_and_one_without_tables_says_so() -> None:
    """It can't be listed; a place may be a path of Python's as well."""
    with folder_server(tables_of_two_epochs()) as url:
        assert sorted_balances(statecast.scan(url, kind="account").arrow().to_table().to_pylist()) == truth(LATEST).balances()
        with pytest.raises(statecast.StatecastError, match=r"no tables are there.*statecast tables"):
            statecast.scan(f"{url}/kind=account", kind="account")
    assert statecast.scan(tables_of_two_epochs(), kind="account").rows == 423
    assert statecast.open_dataset(exported_localnet(), epoch=LATEST).epoch_height == LATEST


def test_what_the_pointer_names_can_be_followed() -> None:
    """Pointer, catalogue and summaries agree, down to the files' digests."""
    folder = tables_of_two_epochs()
    latest, catalogue = (json.loads((folder / name).read_bytes()) for name in ("_latest.json", "_catalogue.json"))
    assert latest.items() >= catalogue["epochs"][-1].items()
    files = list(open_tables(str(folder)).files())
    assert sum(file.records for _, file in files) == latest["records"] and len(files) == latest["files"]
    for _, file in files:
        assert pyarrow.parquet.ParquetFile(folder / file.name).metadata.num_rows == file.records


def test_the_data_dictionary_has_every_column_with_its_type() -> None:
    """And none that is not there."""
    text = (PROJECT / "docs" / "spec" / "data-dictionary.md").read_text()
    listed = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE))
    schemas = [TablesSelection().schema(kind) for kind in TrieKeyKind]
    columns = {field.name: str(field.type) for schema in schemas for field in schema}
    of_path = {"kind": "string", "chain_id": "string", "epoch_height": "int64", "shard_id": "int64"}
    assert listed == columns | {name: f"{kind}, of the path" for name, kind in of_path.items()}


@pytest.fixture
def bucket_tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The two epochs' tables in a bucket, and the environment that every library finds it by."""
    with aws_environment(), moto_server() as url:
        make_s3_bucket(url, "lake")
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        for dataset in (exported_localnet(), exported_genesis(localnet_home() / "genesis.json")):
            outcome = command(
                "tables", f"dataset://{dataset}", "--to", "s3://lake/near", "--in-process", "--kind", "account", "--kind", "access_key"
            )
            assert outcome.code == 0, outcome.stderr
        yield "s3://lake/near"


@pytest.mark.slow
def test_tables_in_a_bucket_are_read_as_those_in_a_folder(bucket_tables: str) -> None:
    """By `statecast.scan`, and by polars, pyarrow and pandas themselves."""
    for height in (OLD, LATEST):
        found = statecast.scan(bucket_tables, kind="account", epoch=height)
        wanted = truth(height).balances()
        assert sorted_balances(found.arrow().to_table(["account_id", "amount"]).to_pylist()) == wanted
        assert sorted_balances(found.polars().select("account_id", "amount").collect().to_dicts()) == wanted
        with duckdb.connect() as connected:
            assert found.duckdb(connected).aggregate("sum(amount) + sum(locked)").fetchall() == [(truth(height).total(),)]
        kept = [("epoch_height", "==", height)]
        frame = pandas.read_parquet(f"{bucket_tables}/kind=account", columns=["account_id", "amount"], filters=kept)
        assert sorted_balances(frame.to_dict("records")) == wanted
        keys = polars.scan_parquet(f"{bucket_tables}/kind=access_key/**/*.parquet", hive_partitioning=True)
        assert keys.filter(polars.col("epoch_height") == height).group_by("permission").len().sort(
            "permission"
        ).collect().rows() == permissions(truth(height))
    assert statecast.scan(bucket_tables, kind="account").epoch_height == LATEST
    collected = command("gc", "--tables", bucket_tables, "--keep-epochs", 1, "--json")
    assert collected.code == 0 and collected.document["tables"]["collected"] == 1, collected.stderr
    assert len(pandas.read_parquet(f"{bucket_tables}/kind=account")) == len(truth(LATEST).of("account"))
    with pytest.raises(statecast.StatecastError, match="epoch 0 is not finished here"):
        statecast.scan(bucket_tables, kind="account", epoch=OLD)
