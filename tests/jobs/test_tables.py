"""``statecast tables``, read by the libraries that analysts use."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow.dataset
import pyarrow.parquet
import pytest

import statecast as package
from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.tables.decoded_records import decode_batch
from pipelines.dataset.tables.export_tables import chosen_shards
from pipelines.near.files.genesis_records import read_genesis_head
from schemas.dataset.dataset_summary import shard_folder
from schemas.dataset.tables_selection import TablesSelection
from schemas.dataset.tables_summary import TablesShard
from schemas.errors import DatasetError, SourceError
from schemas.nearcore.access_key import AccessKey, decode_access_key
from schemas.nearcore.account import Account, decode_account
from schemas.nearcore.trie_key import TrieKeyKind
from tests.support.commands import Outcome, objects_in, statecast
from tests.support.exported import exported_genesis, exported_localnet
from tests.support.nodes import localnet_home
from tests.support.published import published_localnet, session_folder

RECORDS = {"access_key": 862, "account": 423, "contract_code": 11, "contract_data": 641}
MAINNET_GENESIS = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "real" / "mainnet_genesis.json"


def write_tables(dataset: Path, to: Path, *options: object) -> Outcome:
    """Run the command in this process."""
    outcome = statecast("tables", f"dataset://{dataset}", "--to", to, "--in-process", "--json", *options)
    assert outcome.code == 0, outcome.stderr
    return outcome


@lru_cache
def localnet_tables() -> Path:
    """Return the localnet's tables, made once and only read."""
    folder = session_folder()
    write_tables(exported_localnet(), folder)
    return folder


def files_of(folder: Path, kind: str) -> str:
    """Return the pattern of a kind's files in all shards."""
    return str(folder / f"kind={kind}" / "chain_id=*" / "epoch_height=*" / "shard_id=*" / "*.parquet")


def side_file(folder: Path, shard: ShardDataset) -> Path:
    """Return the summary of a shard's tables."""
    context, shard_id = shard.summary.context, shard.summary.shard.shard_id
    return folder / "_epochs" / f"epoch_height={context.epoch_height}" / f"shard_id={shard_id}" / "tables.json"


def query(sql: str) -> list[tuple[Any, ...]]:
    """Run DuckDB."""
    return list(duckdb.sql(sql).fetchall())


def genesis_balances(path: Path) -> dict[str, int]:
    """Return what each account has at the genesis, by the file's text: amounts, and stakes locked out of nothing."""
    document = json.loads(path.read_bytes())
    genesis = document.get("genesis", document)
    stakes = {entry["account_id"]: int(entry["amount"]) for entry in genesis["validators"]}
    accounts = [record["Account"] for record in genesis["records"] if "Account" in record]
    return {
        account["account_id"]: int(account["account"]["amount"]) + stakes.get(account["account_id"], int(account["account"]["locked"]))
        for account in accounts
    }


def test_kinds_and_records_are_those_of_the_dataset() -> None:
    """Counted by DuckDB over the files and told by the summaries; nothing fails to decode."""
    for kind, count in RECORDS.items():
        ((rows, errors),) = query(f"select count(*), count(decode_error) from read_parquet('{files_of(localnet_tables(), kind)}')")
        assert (rows, errors) == (count, 0)
    for shard in chosen_shards(str(exported_localnet())):
        document = json.loads(side_file(localnet_tables(), shard).read_bytes())
        assert sum(document["records_by_kind"].values()) == document["records"] == shard.summary.records
        assert document["verified_state_root"] == str(shard.summary.shard.state_root)
        assert document["complete"]


def test_a_number_that_no_integer_is_makes_a_summary_a_damaged_one() -> None:
    """JSON has numbers that are too large for one."""
    text = side_file(localnet_tables(), chosen_shards(str(exported_localnet()))[0]).read_text()
    assert TablesShard.from_bytes(text.encode(), "here").records > 0
    changed = re.sub(r'"source_records": \d+', '"source_records": 1e400', text)
    with pytest.raises(DatasetError, match="lacks or misstates a field"):
        TablesShard.from_bytes(changed.encode(), "here")


def test_balances_add_up_to_the_supply_in_the_block_header() -> None:
    """All that is missing is what one block's chunks burnt as gas, and the rest of divided rewards."""
    accounts = files_of(localnet_tables(), "account")
    ((total,),) = query(f"select sum(amount) + sum(locked) from read_parquet('{accounts}')")
    frame = polars.scan_parquet(accounts).select(polars.col("amount").sum(), polars.col("locked").sum()).collect()
    assert sum(int(value) for value in frame.row(0)) == int(total)
    # Of the sync block, whose parent's state this is.
    supply = 3000000779707734747433141868218338
    assert 0 <= supply - int(total) < 10**21


def test_duckdb_and_polars_read_the_dataset_in_place() -> None:
    """The Arrow files, and the Parquet form of the same."""
    pattern = str(exported_localnet() / "chain_id=*" / "epoch_height=*" / "epoch_id=*" / "shard_uid=*" / "flat_state")
    assert polars.scan_ipc(f"{pattern}/*.arrow").select(polars.len()).collect().item() == sum(RECORDS.values())
    files = sorted(str(path) for path in exported_localnet().rglob("flat_state/*.arrow"))
    records = pyarrow.dataset.dataset(files, format="ipc")
    with duckdb.connect() as connection:
        connection.register("records", records)
        ((rows,),) = connection.sql("select count(*) from records").fetchall()
    assert rows == sum(RECORDS.values())
    parquet = str(exported_localnet("parquet") / "**" / "flat_state" / "*.parquet")
    assert query(f"select count(*) from read_parquet('{parquet}')") == [(sum(RECORDS.values()),)]
    assert polars.scan_parquet(parquet).select(polars.len()).collect().item() == sum(RECORDS.values())


def test_partitions_of_the_folders_names_agree_with_the_columns() -> None:
    """DuckDB and polars may prune by kind and shard."""
    pattern = files_of(localnet_tables(), "*")
    rows = query(
        f"select shard_uid, shard_id, count(*) from read_parquet('{pattern}', hive_partitioning=true, union_by_name=true)"
        " where kind = 'access_key' group by all order by all"
    )
    frame = polars.scan_parquet(localnet_tables() / "kind=access_key")
    assert rows == sorted(frame.group_by("shard_uid", "shard_id").len().collect().rows())
    assert [f"s{shard_id}.v0" for _, shard_id, _ in rows] == [shard_uid for shard_uid, _, _ in rows]
    assert sum(count for _, _, count in rows) == RECORDS["access_key"]


def test_accounts_and_access_keys_of_a_real_chain_encode_to_their_bytes() -> None:
    """Every one, decoded and encoded again."""
    seen = 0
    for shard in chosen_shards(str(exported_localnet())):
        for file_index in range(len(shard.summary.files)):
            seen += sum(encodes_again(batch) for batch in decoded(shard, file_index))
    assert seen == RECORDS["account"] + RECORDS["access_key"]


def decoded(shard: ShardDataset, file_index: int) -> list[list[dict[str, Any]]]:
    """Return a file's records as rows."""
    return [result.to_pylist() for batch in shard.read_file(file_index) for result in decode_batch(batch, "s0.v0")]


def encodes_again(rows: list[dict[str, Any]]) -> int:
    """Check rows of the two kinds; return how many there were."""
    decoders: dict[str, Callable[[bytes], Account | AccessKey]] = {"account": decode_account, "access_key": decode_access_key}
    chosen = [row for row in rows if row["kind"] in decoders]
    for row in chosen:
        assert decoders[row["kind"]](row["value"]).to_bytes() == row["value"]
    return len(chosen)


@pytest.mark.parametrize("which", ["localnet", "mainnet"])
def test_a_genesis_has_the_amounts_that_its_file_says(which: str, tmp_path: Path) -> None:
    """Account by account, and in sum the supply that the file says."""
    path = localnet_home() / "genesis.json" if which == "localnet" else MAINNET_GENESIS
    if not path.exists():
        pytest.skip("the mainnet genesis is not beside this checkout")
    if which == "mainnet":
        genesis = json.loads(path.read_bytes())["genesis"]
        path = tmp_path / "genesis.json"
        path.write_text(json.dumps(genesis), encoding="utf-8")
    write_tables(exported_genesis(path), tmp_path / "tables")
    rows = query(f"select account_id, amount + locked from read_parquet('{files_of(tmp_path / 'tables', 'account')}')")
    assert {account_id: int(total) for account_id, total in rows} == genesis_balances(path)
    assert sum(total for _, total in rows) == Decimal(json.loads(path.read_bytes())["total_supply"])


def test_a_restored_dataset_knows_its_blocks_height_and_the_supply(tmp_path: Path) -> None:
    """By the header of the block after it, which the manifest has; not the time."""
    restored = statecast("restore", published_localnet(), "--to", f"dataset://{tmp_path / 'restored'}", "--in-process")
    assert restored.code == 0, restored.stderr
    write_tables(tmp_path / "restored", tmp_path / "tables", "--kind", "account")
    (entry,) = json.loads((tmp_path / "tables" / "_catalogue.json").read_bytes())["epochs"]
    (known,) = json.loads((localnet_tables() / "_catalogue.json").read_bytes())["epochs"]
    assert (entry["block_height"], entry["total_supply"]) == (known["block_height"], known["total_supply"]) == (242, known["total_supply"])
    assert entry["block_timestamp"] is None and known["block_timestamp"] is not None
    assert query(f"select distinct block_height, block_timestamp from read_parquet('{files_of(tmp_path / 'tables', 'account')}')") == [
        (242, None)
    ]
    views = (tmp_path / "tables" / "_sql" / "views.sql").read_text()
    with duckdb.connect() as connection:
        connection.execute(views)
        assert connection.execute("select block_height, block_timestamp from epochs").fetchall() == [(242, None)]
    assert package.scan(str(tmp_path / "tables"), kind="account").block_timestamp is None


def test_a_genesis_says_its_height_time_and_supply() -> None:
    """As its file does."""
    path = localnet_home() / "genesis.json"
    genesis = json.loads(path.read_bytes())
    dataset = package.open_dataset(str(exported_genesis(path)))
    assert dataset.total_supply == int(genesis["total_supply"])
    head = read_genesis_head(path)
    assert head.block is not None and head.block.height == genesis["genesis_height"]


@pytest.mark.parametrize("time", ["yesterday", "2020-07-21T16:55:51.591948", "0001-01-01T00:00:00+23:59"])
def test_a_genesis_whose_time_is_none_is_refused(time: str, tmp_path: Path) -> None:
    """With the field's name."""
    genesis = json.loads((localnet_home() / "genesis.json").read_bytes()) | {"genesis_time": time, "records": []}
    (tmp_path / "genesis.json").write_text(json.dumps(genesis), encoding="utf-8")
    with pytest.raises(SourceError, match="field genesis_time"):
        read_genesis_head(tmp_path / "genesis.json")


def test_a_rerun_writes_nothing_anew_and_mends_what_is_gone(tmp_path: Path) -> None:
    """The same names and bytes; a file of another run is removed."""
    write_tables(exported_localnet(), tmp_path)
    before = objects_in(tmp_path)
    victim = next(tmp_path.glob("kind=account/**/*.parquet"))
    stamp = {path: path.stat().st_mtime_ns for path in tmp_path.glob("kind=*/**/*.parquet") if path.parent.name != victim.parent.name}
    victim.unlink()
    (victim.parent / "write-old.parquet").write_bytes(b"left over")
    write_tables(exported_localnet(), tmp_path)
    assert objects_in(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in stamp} == stamp


def test_a_dataset_whose_root_was_not_recomputed_is_refused(tmp_path: Path) -> None:
    """And nothing is written."""
    (shard, *_) = chosen_shards(str(exported_localnet()), shard_ids=[0])
    folder = tmp_path / "dataset" / shard_folder(shard.summary.context, shard.summary.shard.shard_uid)
    folder.mkdir(parents=True)
    document = json.loads((exported_localnet() / shard.folder / "shard.json").read_bytes())
    (folder / "shard.json").write_text(json.dumps(document | {"verified_state_root": None}), encoding="utf-8")
    outcome = statecast("tables", f"dataset://{tmp_path / 'dataset'}", "--to", tmp_path / "out", "--in-process", "--json")
    assert outcome.code == 10
    assert "was not recomputed" in outcome.document["error"]["problem"]
    assert not (tmp_path / "out").exists()


def test_a_changed_record_is_found_by_verify(tmp_path: Path) -> None:
    """The dataset's files are hashed again, whatever its summary says."""
    changed = tmp_path / "dataset"
    for path in exported_localnet().rglob("*"):
        if path.is_file():
            target = changed / path.relative_to(exported_localnet())
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    file = next(changed.rglob("flat_state/*.arrow"))
    data = bytearray(file.read_bytes())
    at = data.index(b"app.near") if b"app.near" in data else len(data) // 2
    data[at] ^= 1
    file.write_bytes(bytes(data))
    outcome = statecast("tables", f"dataset://{changed}", "--to", tmp_path / "out", "--in-process", "--verify", "--json")
    assert outcome.code == 20
    assert outcome.document["error"]["kind"] == "state_root_mismatch"
    assert not (tmp_path / "out").exists()


def test_a_tables_columns_are_those_of_its_kind() -> None:
    """Types too; none is a key of the path."""
    for kind in RECORDS:
        paths = list(localnet_tables().glob(f"kind={kind}/**/*.parquet"))
        assert len(paths) == 4
        for path in paths:
            schema = pyarrow.parquet.ParquetFile(path).schema_arrow
            assert schema.equals(TablesSelection().schema(TrieKeyKind(kind)), check_metadata=False)
            assert not {"kind", "chain_id", "epoch_height", "shard_id"} & {*schema.names}
