"""``produce --tables``: an epoch's tables beside its parts, named by its manifest and checked against the chain's state roots."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import statecast as package
from pipelines.dataset.tables.decode_tables import read_shard_tables
from pipelines.dataset.tables.verify_tables import VerifiedTables, verify_tables
from pipelines.execution.stage_runner import silent_runner
from pipelines.kernel.choice import choose_kernel
from pipelines.stores.open_store import open_store
from schemas.dataset.tables_summary import TablesCatalogue, TablesShard
from schemas.ids import CryptoHash
from schemas.published.dsse import parse_envelope
from schemas.published.manifest import Manifest
from tests.support.commands import Outcome, epoch_folder, objects_in, statecast
from tests.support.exported import exported_localnet
from tests.support.nodes import localnet_home
from tests.support.published import produce, produce_localnet, public_key, session_folder, signing_key
from tests.support.stored_bytes import flip_bit


@lru_cache
def published() -> Path:
    """Return a folder with the real node's epoch in ``out`` and its tables in ``tables``, made once; only copied."""
    folder = session_folder() / "with-tables"
    outcome = produce_localnet(folder / "out", "--tables", folder / "tables")
    assert outcome.code == 0, outcome.stderr
    return folder


@pytest.fixture
def epoch(tmp_path: Path) -> Path:
    """A copy."""
    shutil.copytree(published(), tmp_path / "epoch")
    return tmp_path / "epoch"


def check(folder: Path, *options: object) -> Outcome:
    """Check the epoch with its tables."""
    return statecast("check", folder / "out", "--tables", folder / "tables", "--in-process", "--json", *options)


def manifest_of(folder: Path) -> Manifest:
    """Return the epoch's manifest."""
    data = (epoch_folder(folder / "out") / "manifest.json").read_bytes()
    return Manifest.from_payload(parse_envelope(data, "test").payload, "test")


def lasting(tables: Path) -> dict[str, str]:
    """Return the digests of what does not name the place itself, as the views do."""
    return {name: digest for name, digest in objects_in(tables).items() if not name.startswith("_sql/")}


def test_the_tables_prove_the_state_roots(epoch: Path) -> None:
    """Read back by the check, all records of all shards hash to the chain's roots; anybody reads them like any tables."""
    outcome = check(epoch, "--trust-key", public_key())
    assert outcome.code == 0, outcome.stderr
    assert outcome.document["tables"].items() >= {"shards_proved": [0, 1, 2, 3], "records": 1937, "files": 16, "unproved": ""}.items()
    assert package.scan(str(epoch / "tables"), kind="account").rows == 423
    assert "the state root of 4 shards recomputed" in statecast("check", epoch / "out", "--tables", epoch / "tables", "--in-process").stdout


def test_a_place_that_nobody_who_is_trusted_named_is_not_asked(epoch: Path) -> None:
    """The check says so, and that the option does it."""
    outcome = statecast("check", epoch / "out", "--in-process", "--json")
    assert outcome.code == 0 and outcome.document["tables"]["url"] is None
    assert outcome.document["tables"]["unproved"] == "the manifest does not say where they are; --tables says it"


def one_table(folder: Path) -> Path:
    """Return a file of the tables."""
    return next((folder / "tables" / "kind=account").glob("**/shard_id=2/*.parquet"))


def flip(folder: Path) -> None:
    """A byte changes."""
    flip_bit(one_table(folder))


def change_summary(folder: Path) -> None:
    """A summary is another."""
    path = folder / "tables" / "_epochs" / "epoch_height=6" / "shard_id=2" / "tables.json"
    path.write_text(path.read_text().replace('"complete": true', '"complete": false'))


def change_statement(folder: Path) -> None:
    """The statement is another."""
    path = epoch_folder(folder / "out") / "statements" / "tables.json"
    path.write_bytes(path.read_bytes().replace(b'"payload":"', b'"payload":"AAAA'))


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a byte of a file": (flip, "wrong", "sha256"),
    "a file is gone": (lambda folder: one_table(folder).unlink(), "missing", "it is missing"),
    "a shorter file": (lambda folder: one_table(folder).write_bytes(b"PAR1"), "wrong", "sha256"),
    "a summary": (change_summary, "wrong", "others than"),
    "the statement": (change_statement, "wrong", "not the statement that the manifest names"),
    "no statement": (lambda folder: (epoch_folder(folder / "out") / "statements" / "tables.json").unlink(), "missing", "it is missing"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damage_is_found(damage: str, epoch: Path) -> None:
    """By kind and name; nothing else is wrong then."""
    change, kind, problem = DAMAGE[damage]
    change(epoch)
    outcome = check(epoch)
    assert outcome.code == 20
    (finding,) = outcome.document["findings"]
    assert finding["kind"] == kind and problem in finding["problem"], finding


def test_damage_of_the_tables_is_mended_by_a_repair(epoch: Path) -> None:
    """The same bytes again."""
    before = lasting(epoch / "tables")
    flip(epoch)
    outcome = produce_localnet(epoch / "out", "--tables", epoch / "tables", "--repair")
    assert outcome.code == 0, outcome.stderr
    assert lasting(epoch / "tables") == before


def test_records_that_are_not_the_chains_are_found_whatever_the_digests_say(epoch: Path) -> None:
    """Tables that somebody changed and stated anew: the state root is another."""
    store = open_store(str(epoch / "tables"))
    shard = read_shard_tables(store, 6, 2)
    assert shard is not None
    path = one_table(epoch)
    table = pq.ParquetFile(path).read()
    values = table.column("value").to_pylist()
    values[3] = bytes([values[3][0] ^ 1]) + values[3][1:]
    place = table.schema.get_field_index("value")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(values, pa.binary())), path)
    name = str(path.relative_to(epoch / "tables"))
    verified = verify(epoch, shard, name)
    assert not verified.wrong and verified.state_root not in (None, shard.verified_state_root)


def verify(epoch: Path, shard: TablesShard, name: str) -> VerifiedTables:
    """Verify a shard's tables, one of which has the digest that it has now."""
    data = (epoch / "tables" / name).read_bytes()
    digest = sha256(data).hexdigest()
    stated = [replace(file, size=len(data), sha256=digest) if file.name == name else file for file in shard.files]
    runner = silent_runner()
    return verify_tables(runner, choose_kernel("auto"), str(epoch / "tables"), replace(shard, files=tuple(stated)))


def test_without_the_raw_columns_the_statement_and_the_check_say_that_it_can_not_be_checked(tmp_path: Path) -> None:
    """Digests are checked all the same. The epoch was published without tables before: its next manifest names them."""
    assert produce_localnet(tmp_path / "out").code == 0
    some = statecast(
        "tables", f"dataset://{exported_localnet()}", "--to", tmp_path / "tables", "--no-raw", "--kind", "account", "--in-process"
    )
    assert some.code == 0, some.stderr
    assert produce_localnet(tmp_path / "out", "--tables", tmp_path / "tables").code == 0
    assert manifest_of(tmp_path).revision == 2 and manifest_of(tmp_path).tables is not None
    outcome = check(tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert outcome.document["tables"]["shards_proved"] == [] and outcome.document["tables"]["records"] == 423
    assert (
        "(they are of --kind account --no-raw), so that they hold the chain's records can't be checked"
        in outcome.document["tables"]["unproved"]
    )
    statement = json.loads(parse_envelope((epoch_folder(tmp_path / "out") / "statements" / "tables.json").read_bytes(), "x").payload)
    assert [shard["gives_state_root"] for shard in statement["predicate"]["shards"]] == [False] * 4
    flip(tmp_path)
    assert check(tmp_path).code == 20


def test_a_rerun_has_nothing_to_do_and_a_revision_keeps_the_tables(epoch: Path) -> None:
    """Also one of a producer without tables."""
    before = objects_in(epoch)
    again = produce_localnet(epoch / "out", "--tables", epoch / "tables", "--json")
    assert again.code == 0 and again.document["nothing_to_do"]
    assert objects_in(epoch) == before
    other = produce_localnet(epoch / "out", "--web-seed", "https://host.example/out/", "--repair")
    assert other.code == 0, other.stderr
    assert manifest_of(epoch).revision == 2
    assert manifest_of(epoch).tables is not None and check(epoch).code == 0


def test_tables_of_another_chain_are_refused_before_anything_is_published(tmp_path: Path) -> None:
    """Whatever the bucket holds."""
    (tmp_path / "tables").mkdir()
    shutil.copy(published() / "tables" / "_catalogue.json", tmp_path / "tables")
    catalogue = tmp_path / "tables" / "_catalogue.json"
    catalogue.write_text(catalogue.read_text().replace("test-chain-klplt", "mainnet"))
    outcome = produce_localnet(tmp_path / "out", "--tables", tmp_path / "tables", "--json")
    assert outcome.code == 10 and "of chain mainnet, not test-chain-klplt" in outcome.document["error"]["problem"]
    assert not list((tmp_path / "out").rglob("state_part_*"))


def test_tables_that_a_collection_took_are_no_finding_of_the_check(epoch: Path) -> None:
    """It says from which epoch on the place keeps tables; one that should be there is missed all the same."""
    store, tables = open_store(str(epoch / "tables")), epoch / "tables"
    catalogue = TablesCatalogue.from_bytes((tables / "_catalogue.json").read_bytes(), "test")
    newer = replace(catalogue.epochs[0], epoch_height=7, epoch_id=CryptoHash(bytes(32)))
    store.put("_catalogue.json", catalogue.with_epoch(newer).to_bytes())
    planned = statecast("gc", "--tables", tables, "--keep-epochs", 1, "--plan", "--json")
    collected = statecast("gc", epoch / "out", "--tables", tables, "--keep-epochs", 1, "--json")
    assert planned.code == collected.code == 0, collected.stderr
    assert planned.document.keys() == {"message_type", "tables"}
    assert planned.document["tables"]["deleted_objects"] == collected.document["tables"]["deleted_objects"] == 16 + 9
    assert collected.document["collected"] == 0 and collected.document["tables"]["collected"] == 1
    outcome = check(epoch)
    assert outcome.code == 0 and outcome.document["tables"]["unproved"] == "the place keeps tables from epoch 7 on"
    store.put("_catalogue.json", catalogue.to_bytes())
    assert check(epoch).code == 20


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("gc", "--keep-epochs", "1"), "nothing says where epochs are deleted"),
        (("gc", "--tables", "PLACE", "--keep-epochs", "1"), "no tables are there"),
        (("gc", "--tables", "https://host.example/x", "--keep-epochs", "1"), "https:// is only read"),
        (("gc", "--tables", "PLACE", "--keep-epochs", "1", "--full-every", "2"), "--full-every is of a bucket's epochs"),
        (("watch", "--node-home", "PLACE", "--to", "PLACE", "--keep-tables", "1"), "there are no tables to keep"),
    ],
)
def test_a_collection_of_tables_needs_a_place_of_tables(arguments: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    """Said before anything is done."""
    outcome = statecast(*(str(tmp_path) if word == "PLACE" else word for word in arguments))
    assert outcome.code in (2, 10) and problem in outcome.stderr


@pytest.mark.parametrize("command", ["produce", "watch", "backfill"])
def test_tables_need_a_dataset(command: str, tmp_path: Path) -> None:
    """Said before anything is read."""
    epochs = ("--epochs", "6") if command == "backfill" else ()
    outcome = statecast(
        *(command, "--node-home", localnet_home(), *epochs, "--to", tmp_path / "out", "--tables", tmp_path / "tables"),
        *("--dataset", "none", "--allow-unsigned"),
    )
    assert outcome.code == 2 and "tables are made of a dataset" in outcome.stderr


def test_tables_of_an_exported_epoch_come_with_its_production(tmp_path: Path) -> None:
    """From a dataset as from a node."""
    outcome = produce(tmp_path / "out", "--from", f"dataset://{exported_localnet()}", "--tables", tmp_path / "tables")
    assert outcome.code == 0, outcome.stderr
    assert lasting(tmp_path / "tables") == lasting(published() / "tables")


@pytest.mark.slow
def test_a_backfill_leaves_the_tables_of_each_epoch(tmp_path: Path) -> None:
    """Side by side; each is proved."""
    outcome = statecast(
        *("backfill", "--node-home", localnet_home(), "--epochs", "4..6", "--to", tmp_path / "out", "--tables", tmp_path / "tables"),
        *("--signing-key", signing_key(), "--work", tmp_path / "work", "--in-process"),
    )
    assert outcome.code == 0, outcome.stderr
    catalogue = json.loads((tmp_path / "tables" / "_catalogue.json").read_bytes())
    assert [entry["epoch_height"] for entry in catalogue["epochs"]] == [4, 5, 6]
    heights = [entry["block_height"] for entry in catalogue["epochs"]]
    assert None not in heights and heights == sorted(heights)
    for folder in (tmp_path / "out" / "chain_id=test-chain-klplt").glob("epoch_height=*/epoch_id=*"):
        checked = statecast("check", folder, "--tables", tmp_path / "tables", "--in-process", "--json")
        assert checked.code == 0 and checked.document["tables"]["shards_proved"] == [0, 1, 2, 3]


@pytest.mark.parametrize("damage", ["a file is gone", "a file is cut", "a bit is flipped", "a summary is gone", "the statement is gone"])
def test_a_scrub_names_what_is_not_as_stated(damage: str, epoch: Path) -> None:
    """Files by name and size, those of the sample by their bytes; nothing is repaired, and nothing else is wrong."""
    file = next((epoch / "tables").glob("kind=account/**/*.parquet"))
    summary = next((epoch / "tables").glob("_epochs/*/shard_id=*/tables.json"))
    statement = epoch_folder(epoch / "out") / "statements" / "tables.json"
    named = statement if "statement" in damage else summary if "summary" in damage else file
    if damage.endswith("gone"):
        named.unlink()
    else:
        data = named.read_bytes()
        named.write_bytes(data[:-1] if damage.endswith("cut") else data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    call = ("scrub", epoch_folder(epoch / "out"), "--tables", epoch / "tables", "--in-process", "--json")
    outcome = statecast(*call, "--full", "--repair")
    assert outcome.code == 20
    (found,) = outcome.document["epochs"][0]["findings"]
    assert found["object"].endswith(str(named.relative_to(epoch / "tables" if named is not statement else epoch / "out")))
    assert found["not_repaired"]
    if damage == "a bit is flipped":
        samples = [statecast(*call, "--sample", "50%").document["epochs"][0] for _ in range(2)]
        assert sorted(len(one["findings"]) for one in samples) == [0, 1]
        assert sum(one["tables"]["files_read"] for one in samples) == samples[0]["tables"]["files"]


def test_a_scrub_of_tables_that_can_not_be_looked_at_says_so(epoch: Path, tmp_path: Path) -> None:
    """Without --tables nothing that only the manifest names is asked; the epoch is scrubbed all the same."""
    outcome = statecast("scrub", epoch_folder(epoch / "out"), "--full", "--in-process", "--json")
    assert outcome.code == 0, outcome.stderr
    assert "--tables" in outcome.document["epochs"][0]["tables"]["unread"]
    assert "not looked at" in statecast("scrub", epoch_folder(epoch / "out"), "--in-process").stdout
