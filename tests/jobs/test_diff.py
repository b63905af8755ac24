"""``statecast diff``: the real node's epochs compared, for people and engines."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.bucket.published_epoch import read_manifest
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.producing.deltas.ladder import published_layouts
from pipelines.producing.deltas.make_deltas import published_records
from pipelines.stores.open_store import open_store
from schemas.nearcore.account import decode_account
from tests.support.commands import Outcome, statecast
from tests.support.published_ladder import LADDER_SHARDS, published_ladder
from tests.support.records import pairs_of


def diff(*options: object) -> Outcome:
    """Compare epochs 4 and 6 in this process."""
    return statecast("diff", published_ladder(), "--from", 4, "--to", 6, "--in-process", *options)


def records_at(height: int) -> dict[bytes, bytes]:
    """Return all records of an epoch."""
    store = open_store(str(published_ladder()))
    chain_id = next(published_ladder().glob("chain_id=*")).name.removeprefix("chain_id=")
    (layout,) = [one for one in published_layouts(store, chain_id) if one.epoch_height == height]
    stored = read_manifest(store, layout)
    assert stored is not None
    found: dict[bytes, bytes] = {}
    for shard in stored.manifest.shards:
        records = published_records(store, stored.manifest, shard.shard_id, "auto")
        assert records is not None
        read = records.read(KeyRange(b"", None))
        found |= pairs_of(read.records, read.read_values(read.records))
    return found


@pytest.fixture(scope="module")
def accounts() -> dict[str, tuple[int | None, int | None]]:
    """Return the amounts of the accounts that changed, before and after."""
    before, after = records_at(4), records_at(6)
    changed = [key for key in before.keys() | after.keys() if key[:1] == b"\0" and before.get(key) != after.get(key)]
    return {
        key[1:].decode(): tuple(decode_account(state[key]).amount if key in state else None for state in (before, after))  # type: ignore[misc]
        for key in changed
    }


def test_accounts_before_and_after_as_parquet(tmp_path: Path, accounts: dict[str, tuple[int | None, int | None]]) -> None:
    """A row an account, decoded; the sums are those of the rows."""
    file = tmp_path / "changes.parquet"
    outcome = diff("--to", file, "--kind", "account", "--json")
    assert outcome.code == 0, outcome.stderr
    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    assert {row["account_id"]: (row["amount_before"], row["amount_after"]) for row in rows} == accounts
    assert all(row["kind"] == "account" and row["change"] == "changed" for row in rows)
    document = outcome.document
    assert document["rows"] == len(rows) == len(accounts)
    moved = {name: (after or 0) - (before or 0) for name, (before, after) in accounts.items()}
    assert int(document["totals"]["amount"]) == sum(moved.values())
    assert sum(shard["kinds"].get("account", {}).get("changed", 0) for shard in document["shards"]) == len(accounts)
    largest = max(document["largest"], key=lambda one: abs(int(one["movement"])))
    assert document["largest"][0] == largest
    assert not list(tmp_path.glob(".changes*"))


def test_every_kind_as_csv_and_by_the_delta(tmp_path: Path) -> None:
    """The published delta says the same as the parts of both epochs."""
    before, after = records_at(4), records_at(6)
    changed = {key.hex() for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    for number, options in enumerate(((), ("--by-delta",))):
        file = tmp_path / f"{number}.csv"
        assert diff("--to", file, "--json", *options).code == 0
        with file.open() as source:
            rows = list(csv.DictReader(source))
        assert {row["key"] for row in rows} == changed
        assert {row["change"] for row in rows} <= {"created", "changed", "deleted"}
        assert all(row["value_before"] == before.get(bytes.fromhex(row["key"]), b"").hex() for row in rows if not row["value_hash_before"])
    assert (tmp_path / "0.csv").read_text() == (tmp_path / "1.csv").read_text()
    assert any(Decimal(row["amount_after"]) for row in rows if row["amount_after"])


def test_a_table_for_people() -> None:
    """Totals a shard, and who gained and lost most."""
    outcome = diff("--kind", "account", "--kind", "access_key")
    assert outcome.code == 0, outcome.stderr
    assert "largest movements" in outcome.stdout
    assert all(f"s{shard_id}.v0" in outcome.stdout for shard_id in range(LADDER_SHARDS))
    assert "access_key" in outcome.stdout
    assert "NEAR" in outcome.stdout


def test_back_in_time_is_the_opposite() -> None:
    """From the later epoch to the earlier one."""
    forth = diff("--kind", "account", "--json").document
    back = statecast("diff", published_ladder(), "--from", 6, "--to", 4, "--in-process", "--kind", "account", "--json").document
    assert int(back["totals"]["amount"]) == -int(forth["totals"]["amount"])
    assert back["rows"] == forth["rows"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--from", 4, "--to", 4), 2),
        (("--from", 4, "--to", 9), 11),
        (("--from", 4, "--to", 6, "--to", "changes.txt"), 2),
        (("--from", 4, "--to", "changes.csv"), 2),
        (("--from", 4, "--to", 6, "--kind", "cat"), 2),
        (("--from", 6, "--to", 4, "--by-delta"), 11),
    ],
)
def test_what_can_not_be_is_told(options: tuple[object, ...], code: int) -> None:
    """Each with what to do."""
    outcome = statecast("diff", published_ladder(), "--in-process", *options)
    assert outcome.code == code
    assert "Traceback" not in outcome.stderr
