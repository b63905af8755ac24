"""``statecast get``: many records out of many epochs, each part read once."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import statecast as package
from pipelines.proving import get_records
from pipelines.proving.published_state import PublishedState
from pipelines.proving.wanted_record import wanted_record
from pipelines.stores.file_store import FileStore
from pipelines.stores.memory_store import MemoryStore
from pipelines.stores.open_store import open_store
from pipelines.trust.policy import TrustPolicy
from schemas.errors import EpochNotReadyError
from schemas.ids import PartId
from tests.support.commands import statecast
from tests.support.exported import exported_localnet
from tests.support.folder_server import folder_server
from tests.support.productions import new_store_url
from tests.support.published import public_key, published_localnet, revise
from tests.support.stored_bytes import stored_bytes
from tests.support.stored_epochs import NUM_PARTS, epoch_layout, publish_epoch

NODE_KEY = "ed25519:7PGseFbWxvYVgZ89K1uTJKYoKetWs7BJtbyXDzfbAcqX"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the objects that a folder or a store in memory is asked for."""
    names: Counter[str] = Counter()
    lock = threading.Lock()

    def counted(get: Any) -> Any:
        def ask(self: Any, name: str, *arguments: Any) -> bytes:
            with lock:
                names[name] += 1
            data: bytes = get(self, name, *arguments)
            return data

        return ask

    for store in (FileStore, MemoryStore):
        monkeypatch.setattr(store, "get", counted(store.get))
    return names


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Read answers as Parquet."""
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


@lru_cache
def epochs_from_2900(count: int) -> str:
    """Publish small epochs, but for the last but one."""
    url = new_store_url()
    for height in range(2900, 2900 + count):
        if height != 2898 + count:
            publish_epoch(url, height)
    return url


@pytest.mark.parametrize("count", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_one_account_over_many_epochs_costs_a_part_an_epoch(count: int, tmp_path: Path, asked: Counter[str]) -> None:
    """And its manifest, its statement and its state header; nothing is asked for twice."""
    url, to, heights = epochs_from_2900(count), tmp_path / "balances.parquet", range(2900, 2900 + count)
    asked.clear()
    made = statecast("get", url, "--account", "account042.near", "--epochs", f"2900..{heights[-1]}", "--skip-missing", "--to", to, "--json")
    assert made.code == 0, made.stderr
    assert made.document["missing_epochs"] == [heights[-2]]
    assert made.document["parts_read"] == made.document["rows"] == count - 1
    of_parts = {name: number for name, number in asked.items() if "/state_part_" in name}
    assert len({name.split("/shard_id=")[0] for name in of_parts}) == len(of_parts) == count - 1
    assert set(asked.values()) == {1}
    assert sum(asked.values()) == 4 * (count - 1) + 1
    assert [row["epoch_height"] for row in rows_of(to)] == [height for height in heights if height != heights[-2]]
    assert list(tmp_path.iterdir()) == [to]


def test_epochs_that_are_not_there_are_named(tmp_path: Path) -> None:
    """With those that are; nothing is written."""
    to = tmp_path / "balances.parquet"
    made = statecast("get", epochs_from_2900(8), "--account", "account042.near", "--epochs", "2904..2909", "--to", to, "--json")
    assert made.code == 11
    assert "epochs 2906, 2908..2909 are not published" in made.document["error"]["problem"]
    assert "2900..2905, 2907;" in made.document["error"]["remedy"]
    assert not list(tmp_path.iterdir())
    with pytest.raises(EpochNotReadyError, match="epochs 2906 are not published"):
        package.get(epochs_from_2900(8), accounts=["account042.near"], epochs=[2905, 2906], trust=package.Trust(anybody=True))


def test_a_run_that_failed_goes_on_where_it_ended(tmp_path: Path, asked: Counter[str]) -> None:
    """Answers of another question are not taken for its own."""
    url, to = new_store_url(), tmp_path / "balances.csv"
    for height in (5, 6, 7):
        publish_epoch(url, height)
    store = open_store(url)
    for part_id in range(NUM_PARTS):
        name = epoch_layout(7).state_part(0, PartId(part_id, NUM_PARTS))
        store.put(name, stored_bytes(store, name)[:-1])
    command = ("get", url, "--account", "account042.near", "--epochs", "5..7", "--to", to, "--connections", "1", "--json")
    failed = statecast(*command)
    assert (failed.code, failed.document["error"]["kind"]) == (20, "object_mismatch")
    assert not to.exists()
    publish_epoch(url, 7)
    planned = statecast(*command, "--plan")
    asked.clear()
    again = statecast(*command)
    assert again.code == 0, again.stderr
    assert again.document["epochs_kept"] == 3 - again.document["parts_read"] == planned.document["epochs_kept"] == 2
    assert planned.document["parts"] == sum(1 for name in asked if "/state_part_" in name)
    assert len(_read(to)) == 3
    assert list(tmp_path.iterdir()) == [to]


def test_a_place_that_can_not_be_written_is_known_before_anything_is_read(asked: Counter[str]) -> None:
    """With an error of the disk; nothing is left where it could be."""
    url = new_store_url()
    publish_epoch(url, 5)
    asked.clear()
    made = statecast("get", url, "--account", "account042.near", "--to", "/proc/out.csv", "--json")
    assert (made.code, made.document["error"]["kind"]) == (30, "store")
    assert not any("/shard_id=" in name for name in asked)


def test_who_is_stopped_reads_no_more_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is under way ends, those that wait for it are not read, and what waits for them ends too."""
    url, closing, reads, read = new_store_url(), threading.Event(), 0, PublishedState.read_part
    for height in (5, 6, 7):
        publish_epoch(url, height)

    def slow(*arguments: Any) -> list[bytes]:
        nonlocal reads
        reads += 1
        assert reads <= NUM_PARTS or closing.wait(60)
        return read(*arguments)

    class Told(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            closing.set()
            super().shutdown(wait, cancel_futures=cancel_futures)

    monkeypatch.setattr(PublishedState, "read_part", slow)
    monkeypatch.setattr(get_records, "ThreadPoolExecutor", Told)
    monkeypatch.setattr(get_records, "EPOCHS_AT_ONCE", 1)
    wanted = tuple(wanted_record(f"account{number:03d}.near") for number in range(100))
    request = get_records.GetRequest(open_store(url), wanted, TrustPolicy(insecure=True), connections=1)
    answers = get_records.get_records(request, [epoch_layout(height) for height in (5, 6, 7)])
    next(answers)
    while reads <= NUM_PARTS:
        pass
    answers.close()  # type: ignore[attr-defined]
    assert reads == NUM_PARTS + 1


def test_answers_of_another_list_are_asked_for_again(tmp_path: Path) -> None:
    """What an unfinished run left beside the file belongs to its own question."""
    url, to = new_store_url(), tmp_path / "balances.jsonl"
    for height in (5, 6):
        publish_epoch(url, height)
    left = tmp_path / f".{to.name}.answers"
    left.mkdir()
    first = statecast("get", url, "--account", "account001.near", "--epochs", "5", "--to", tmp_path / "other.parquet", "--json")
    assert first.code == 0
    (left / f"{5:020d}-{epoch_layout(5).epoch_id}.parquet").write_bytes((tmp_path / "other.parquet").read_bytes())
    made = statecast("get", url, "--account", "account042.near", "--epochs", "5..6", "--to", to, "--json")
    assert (made.code, made.document["epochs_kept"]) == (0, 0)
    assert [json.loads(line)["account_id"] for line in to.read_text().splitlines()] == ["account042.near"] * 2
    assert not left.exists()


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_real_nodes_records_are_those_of_its_dataset(ending: str, tmp_path: Path) -> None:
    """Accounts of four shards, in the order asked for, and one that does not exist; amounts are exact in each form."""
    scan = package.open_dataset(str(exported_localnet())).scan(kinds=["account"], columns=["account_id", "amount", "locked"])
    expected = {row["account_id"]: (int(row["amount"]), int(row["locked"])) for row in scan.table().to_pylist()}
    names = [*sorted(expected, reverse=True)[::10][:40], "nobody.near"]
    (tmp_path / "accounts.txt").write_text("# whom to ask for\n\n" + "\n".join(names) + "\nnobody.near  # twice\n")
    to = tmp_path / f"balances.{ending}"
    made = statecast(
        "get", published_localnet(), "--accounts", tmp_path / "accounts.txt", "--to", to, "--trust-key", public_key(), "--json"
    )
    assert made.code == 0, made.stderr
    assert (made.document["rows"], made.document["signers"]) == (41, [public_key()])
    assert made.document["parts_read"] == 4
    rows = _read(to)
    assert [row["account_id"] for row in rows] == names
    for row in rows:
        exists = row["account_id"] in expected
        assert row["exists"] in (exists, str(exists).lower())
        if exists:
            assert (int(row["amount"]), int(row["locked"])) == expected[row["account_id"]]
        else:
            assert not row["amount"]
        assert int(row["committed_height"]) == 243
        assert str(row["shard_id"]) in "0123"


def _read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return rows_of(path)
    if path.suffix == ".csv":
        return list(csv.DictReader(path.read_text().splitlines()))
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_access_keys_and_contract_entries_likewise(tmp_path: Path) -> None:
    """With their own columns; those that are not there are told."""
    (tmp_path / "keys.txt").write_text(f"node0 {NODE_KEY}\nnode1 {NODE_KEY}\n")
    made = statecast("get", published_localnet(), "--access-keys", tmp_path / "keys.txt", "--to", tmp_path / "keys.parquet", "--json")
    assert made.code == 0, made.stderr
    rows = [(row["account_id"], row["public_key"], row["exists"], row["permission"]) for row in rows_of(tmp_path / "keys.parquet")]
    assert rows == [("node0", NODE_KEY, True, "full_access"), ("node1", NODE_KEY, False, None)]
    entries = package.open_dataset(str(exported_localnet())).scan(kinds=["contract_data"]).table().to_pylist()
    entries = [entry for entry in entries if entry["value"] is not None][::20]
    lines = [f"{entry['account_id']} hex:{entry['data_key'].hex()}" for entry in entries]
    (tmp_path / "entries.txt").write_text("\n".join([*lines, f"{entries[0]['account_id']} no such key"]))
    made = statecast(
        "get", published_localnet(), "--contract-keys", tmp_path / "entries.txt", "--to", tmp_path / "entries.parquet", "--json"
    )
    assert made.code == 0, made.stderr
    found = rows_of(tmp_path / "entries.parquet")
    assert [(row["data_key"], row["value"], row["exists"]) for row in found] == [
        *((entry["data_key"], entry["value"], True) for entry in entries),
        (b"no such key", None, False),
    ]


def test_a_web_server_is_read_by_its_catalogue() -> None:
    """It can't be listed, so the chain is named."""
    with folder_server(published_localnet()) as url, tempfile.TemporaryDirectory() as folder:
        chain = next(path.name for path in published_localnet().glob("chain_id=*"))
        for place, code in ((f"{url}/{chain}", 0), (url, 2)):
            made = statecast("get", place, "--account", "node0", "--epochs", "latest", "--to", Path(folder) / "out.jsonl", "--json")
            assert made.code == code, made.stdout
        assert _read(Path(folder) / "out.jsonl")[0]["exists"] is True


def test_without_a_layout_every_shard_is_searched(tmp_path: Path) -> None:
    """So absence is from the whole state, and each part is read once for all accounts."""
    folder = tmp_path / "copy"
    shutil.copytree(published_localnet(), folder)
    revise(folder, lambda manifest: dataclasses.replace(manifest, shard_layout=None))
    trust = package.Trust(anybody=True)
    table = package.get(str(folder), accounts=["nobody.near", "node0", "node1", "near"], trust=trust)
    known = package.get(str(published_localnet()), accounts=["nobody.near", "node0", "node1", "near"], trust=trust)
    assert table.column("exists").to_pylist() == known.column("exists").to_pylist() == [False, True, True, True]
    assert table.column("shard_id").to_pylist()[1:] == known.column("shard_id").to_pylist()[1:]
    assert table.column("shard_id").to_pylist()[0] is None
    assert table.column("amount").to_pylist() == known.column("amount").to_pylist()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ((), "nothing says what is looked up"),
        (("--account", "near", "--access-keys", "FILE"), "a table is of one kind"),
        (("--accounts", "FILE"), "a line is an account id"),
        (("--access-keys", "NONE"), "the file can't be read"),
        (("--contract-keys", "NAMES"), "a line is an account id and a key"),
        (("--accounts", "EMPTY"), "nothing is asked for"),
        (("--account", "Not An Account"), "is no account id"),
        (("--account", "near", "--to", "balances.txt"), "does not say what to write"),
        (("--account", "near", "--to", "NONE/out.csv"), "is not there"),
        (("--account", "near", "--to", "FOLDER.csv"), "a folder has this name"),
        (("--account", "near", "--epochs", "7..5"), "a range of epochs"),
        (("--account", "near", "--epochs", "all"), "is no range"),
    ],
)
def test_what_can_not_be_meant_is_refused(options: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    """Before anything is read or written."""
    (tmp_path / "FILE").write_text("near ed25519:x\n")
    (tmp_path / "NAMES").write_text("near\n")
    (tmp_path / "EMPTY").write_text("# nothing\n")
    (tmp_path / "FOLDER.csv").mkdir()
    words = [str(tmp_path / word) if word.split("/")[0] in ("FILE", "NONE", "NAMES", "EMPTY", "FOLDER.csv") else word for word in options]
    given = () if "--to" in options else ("--to", str(tmp_path / "out.csv"))
    made = statecast("get", published_localnet(), *words, *given, "--json")
    assert made.code == 2
    assert problem in made.document["error"]["problem"]
    assert {path.name for path in tmp_path.iterdir()} == {"FILE", "NAMES", "EMPTY", "FOLDER.csv"}
