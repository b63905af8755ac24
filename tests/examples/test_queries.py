"""The queries of examples/queries, each run by DuckDB over tables, with its right answer by Python."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest

import statecast as package
from tests.support.commands import statecast
from tests.support.exported import exported_genesis, exported_localnet, tables_of_two_epochs
from tests.support.nodes import localnet_home

QUERIES = Path(__file__).resolve().parents[2] / "examples" / "queries"


def answer(query: str, tables: Path) -> list[dict[str, Any]]:
    """Run a query after the views; numbers of decimals are whole."""
    with duckdb.connect() as connection:
        connection.execute((tables / "_sql" / "views.sql").read_text())
        relation = connection.sql((QUERIES / query).read_text())
        return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def rows(*kinds: str) -> list[dict[str, Any]]:
    """Return the localnet's newest records of some kinds."""
    found: list[dict[str, Any]] = package.open_dataset(str(exported_localnet())).scan(kinds=kinds).table().to_pylist()
    return found


def test_every_query_is_run_here() -> None:
    """One that is added gets a test."""
    assert {path.name for path in QUERIES.iterdir()} == {"storage_by_account.sql", "contracts_by_code.sql", "top_holders.sql", "supply.sql"}


def test_storage_and_keys_of_each_account() -> None:
    """All accounts, those without keys and entries too."""
    keys = Counter(row["account_id"] for row in rows("access_key"))
    entries = Counter(row["account_id"] for row in rows("contract_data"))
    codes = {row["account_id"]: row["value_length"] for row in rows("contract_code")}
    found = answer("storage_by_account.sql", tables_of_two_epochs())
    assert [(row["account_id"], row["storage_usage"], row["access_keys"], row["contract_entries"], row["code_bytes"]) for row in found] == [
        (row["account_id"], row["storage_usage"], keys[row["account_id"]], entries[row["account_id"]], codes.get(row["account_id"], 0))
        for row in sorted(rows("account"), key=lambda row: (-row["storage_usage"], row["account_id"]))
    ]
    assert sum(row["contract_entry_bytes"] for row in found) == sum(row["value_length"] for row in rows("contract_data"))


def test_contracts_by_code_with_their_users() -> None:
    """Counted, and the first of them named."""
    users: dict[str, list[str]] = {}
    for row in rows("account"):
        if row["code_hash"] is not None:
            users.setdefault(row["code_hash"], []).append(row["account_id"])
    found = answer("contracts_by_code.sql", tables_of_two_epochs())
    assert [(row["code_hash"], row["users"], row["first_users"]) for row in found] == [
        (code_hash, len(names), sorted(names)[:10]) for code_hash, names in sorted(users.items(), key=lambda one: (-len(one[1]), one[0]))
    ]
    assert found and all(row["with_own_copy"] == row["users"] for row in found)


def test_top_holders() -> None:
    """A hundred, and their shares."""
    totals = sorted(
        ((int(row["amount"]) + int(row["locked"]), row["account_id"]) for row in rows("account")), key=lambda one: (-one[0], one[1])
    )
    found = answer("top_holders.sql", tables_of_two_epochs())
    assert [(int(row["total"]), row["account_id"]) for row in found] == totals[:100]
    assert found[0]["percent"] == pytest.approx(100 * totals[0][0] / sum(total for total, _ in totals))


def test_a_real_state_adds_up_to_the_supply_but_for_what_is_on_its_way() -> None:
    """The same figure as by the receipts themselves in tests/dataset/test_long_values.py."""
    (row,) = answer("supply.sql", tables_of_two_epochs())
    assert row["epoch_height"] == 6
    assert int(row["total_supply"]) == 3000000779708241515226891868218338
    assert (int(row["not_in_state"]), int(row["deposits"]), int(row["attached_gas"])) == (1021970827562500001715, 0, 0)
    assert int(row["in_state"]) + int(row["not_in_state"]) == int(row["total_supply"])


def tables_of_genesis(path: Path, to: Path) -> Path:
    """Write the tables of a genesis file."""
    outcome = statecast("tables", f"dataset://{exported_genesis(path)}", "--to", to, "--in-process")
    assert outcome.code == 0, outcome.stderr
    return to


def test_a_genesis_adds_up_to_its_supply_to_the_yocto(tmp_path: Path) -> None:
    """By the file's own words."""
    path = localnet_home() / "genesis.json"
    (row,) = answer("supply.sql", tables_of_genesis(path, tmp_path))
    assert int(row["in_state"]) == int(json.loads(path.read_bytes())["total_supply"])
    assert (int(row["total_supply"]), int(row["not_in_state"])) == (int(row["in_state"]), 0)


def test_receipts_and_gas_keys_are_counted(tmp_path: Path) -> None:
    """Deposits and attached gas of delayed receipts and yielded promises; refunds' gas is nobody's."""
    key, some = "ed25519:" + "1" * 32, "1" * 32
    body = {"signer_id": "bob", "signer_public_key": key, "gas_price": "5", "output_data_receivers": [], "input_data_ids": []}
    call = {"FunctionCall": {"method_name": "f", "args": "", "gas": 100, "deposit": "9"}}

    def receipt(kind: str, predecessor_id: str, **changes: object) -> dict[str, object]:
        content = {**body, "actions": [call, {"Transfer": {"deposit": "4"}}], **changes}
        return {"predecessor_id": predecessor_id, "receiver_id": "alice", "receipt_id": some, "receipt": {kind: content}}

    account = {"amount": "7", "locked": "3", "code_hash": some, "storage_usage": 0}
    gas_key = {"nonce": 0, "permission": {"GasKeyFullAccess": {"balance": "11", "num_nonces": 0}}}
    records = [
        {"Account": {"account_id": "alice", "account": account}},
        {"AccessKey": {"account_id": "alice", "public_key": key, "access_key": gas_key}},
        {"DelayedReceipt": receipt("Action", "bob")},
        {"DelayedReceipt": receipt("Action", "system")},
        {"PostponedReceipt": receipt("PromiseYield", "bob", input_data_ids=[some])},
    ]
    path = tmp_path / "genesis.json"
    path.write_text(json.dumps({"chain_id": "test", "protocol_version": 74, "validators": [], "records": records}))
    (row,) = answer("supply.sql", tables_of_genesis(path, tmp_path / "tables"))
    found = [int(row[name]) for name in ("amount", "locked", "on_gas_keys", "deposits", "attached_gas", "in_state")]
    assert found == [7, 3, 11, 3 * 13, 2 * 500, 7 + 3 + 11 + 39 + 1000]
