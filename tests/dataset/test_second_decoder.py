"""Every decoded column of every record, against a decoder that was written from the format page alone."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.tables.decoded_span import Selection, decoded_spans
from pipelines.dataset.tables.export_tables import chosen_shards
from schemas.dataset.decoded_record import DECODED_SCHEMA
from tests.dataset.test_decoded_records import batch_of, damaged, decoded
from tests.support.exported import exported_genesis, exported_localnet
from tests.support.nodes import localnet_home
from tests.support.receipt_records import receipt_records
from tests.support.second_decoder import second_decoding
from tests.support.state_records import state_records

MAINNET_GENESIS = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "real" / "mainnet_genesis.json"
RAW = ("shard_uid", "key", "value", "value_length", "value_hash")


def compared(row: dict[str, Any]) -> dict[str, Any]:
    """Return what of a row is compared: typed columns that are not null, and whether there is an error or a note."""
    typed = {name: value for name, value in row.items() if value is not None and name not in RAW}
    for name in ("decode_error", "decode_note"):
        if name in typed:
            typed[name] = True
    return {name: int(value) if isinstance(value, Decimal) else value for name, value in typed.items()}


def assert_same(batches: Iterator[pa.RecordBatch], values: dict[bytes, bytes]) -> int:
    """Compare all rows; return how many there were."""
    count = 0
    for batch in batches:
        for row in batch.to_pylist():
            value = values.get(row["value_hash"]) if row["value"] is None else row["value"]
            assert compared(row) == second_decoding(row["key"], value, row["value_hash"]), row["key"].hex()
            count += 1
    return count


def rows_of(shard: ShardDataset) -> Iterator[pa.RecordBatch]:
    """Yield all records of a shard with all columns."""
    for span in decoded_spans(shard, Selection(tuple(DECODED_SCHEMA.names))):
        yield from span.read()


@pytest.mark.parametrize("which", ["localnet", "localnet genesis", "mainnet genesis"])
def test_all_records_of_a_chain_decode_to_the_same(which: str, tmp_path: Path) -> None:
    """A real node's state, its genesis, and mainnet's where it is beside the checkout."""
    path = localnet_home() / "genesis.json"
    if which == "mainnet genesis":
        if not MAINNET_GENESIS.exists():
            pytest.skip("the mainnet genesis is not beside this checkout")
        path = tmp_path / "genesis.json"
        path.write_text(json.dumps(json.loads(MAINNET_GENESIS.read_bytes())["genesis"]), encoding="utf-8")
    dataset = exported_localnet() if which == "localnet" else exported_genesis(path)
    for shard in chosen_shards(str(dataset)):
        assert assert_same(rows_of(shard), {}) == shard.summary.records


def test_records_of_all_kinds_decode_to_the_same() -> None:
    """Those that nearcore's code encoded, and receipts of every kind and form in every place."""
    rows: list[tuple[bytes, bytes | None]] = [(record.key, record.value) for record in state_records()]
    kinds = {row["receipt_kind"] for row in decoded(batch_of([*receipt_records()]))}
    assert len(kinds) == 8, kinds
    for some in (rows, rows[:0] + receipt_records()):
        batch = batch_of(some)
        for row in decoded(batch):
            assert compared(row) == second_decoding(row["key"], row["value"], row["value_hash"])


@pytest.mark.parametrize("seed", range(10))
def test_damaged_records_decode_to_the_same(seed: int) -> None:
    """An error in the one is an error in the other."""
    chance = random.Random(seed)
    some = [(record.key, record.value) for record in state_records()] + receipt_records()
    rows: list[tuple[bytes, bytes | None]] = [(damaged(key, chance) or b"", damaged(value, chance) or b"") for key, value in some]
    for row in decoded(batch_of(rows)):
        assert compared(row) == second_decoding(row["key"], row["value"], row["value_hash"]), (row["key"].hex(), row["value"].hex())
