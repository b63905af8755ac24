"""Access keys and receipts whose values lie beside the records, and what a real state adds up to."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import statecast
from pipelines.dataset.tables import decoded_records
from pipelines.dataset.tables.decoded_span import decoded_spans, select
from pipelines.dataset.tables.export_tables import chosen_shards
from pipelines.near.epoch.chain_rows import open_chain_rows
from pipelines.near.node.node_columns import BLOCK, CHUNKS
from pipelines.near.node.node_home import read_node_home
from schemas.errors import IntegrityError
from schemas.nearcore.block import decode_block_chunks, decode_block_header
from schemas.nearcore.borsh import BorshReader
from schemas.nearcore.receipt import decode_receipt, skip_receipt
from tests.support.exported import exported_genesis, exported_localnet
from tests.support.nodes import localnet_home

KEY = "ed25519:" + "1" * 32
SOME_ID = "1" * 32
METHODS = [chr(97 + number % 26) for number in range(1000)]


def rows_of(dataset: Path, kinds: list[str], columns: list[str] | None = None, strict: bool = True) -> list[dict[str, Any]]:
    """Scan a dataset."""
    spans = (span for shard in chosen_shards(str(dataset)) for span in decoded_spans(shard, select(kinds, columns, strict=strict)))
    return [row for span in spans for batch in span.read() for row in batch.to_pylist()]


@pytest.fixture(scope="module")
def genesis_with_long_values(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export a genesis with a key of 1,000 method names and delayed receipts of 5,000 bytes and more."""

    def receipt(length: int, gas: int) -> dict[str, object]:
        call = {"method_name": "f", "args": base64.b64encode(bytes([length % 251]) * length).decode(), "gas": gas, "deposit": "9"}
        body = {"signer_id": "bob", "signer_public_key": KEY, "gas_price": "5", "output_data_receivers": [], "input_data_ids": []}
        actions = {**body, "actions": [{"FunctionCall": call}, {"Transfer": {"deposit": "4"}}]}
        return {"predecessor_id": "bob", "receiver_id": "alice", "receipt_id": SOME_ID, "receipt": {"Action": actions}}

    limits = {"FunctionCall": {"allowance": None, "receiver_id": "alice", "method_names": METHODS}}
    fields = {"amount": "7", "locked": "0", "code_hash": SOME_ID, "storage_usage": 0}
    records = [
        {"Account": {"account_id": "alice", "account": fields}},
        {"AccessKey": {"account_id": "alice", "public_key": KEY, "access_key": {"nonce": 3, "permission": limits}}},
        *({"DelayedReceipt": receipt(length, 100 + length)} for length in (1, 5000, 6000, 7000)),
    ]
    path = tmp_path_factory.mktemp("genesis") / "genesis.json"
    path.write_text(json.dumps({"chain_id": "test", "protocol_version": 74, "validators": [], "records": records}))
    return exported_genesis(path)


def test_an_access_key_of_a_thousand_methods_decodes_like_any_other(genesis_with_long_values: Path) -> None:
    """Its value is looked up; what the row shows of it stays a reference."""
    (row,) = rows_of(genesis_with_long_values, ["access_key"])
    assert row["method_names"] == METHODS
    assert (row["nonce"], row["allowance"], row["allowance_is_unlimited"], row["decode_error"]) == (3, None, True, None)
    assert (row["value"], row["value_length"]) == (None, 8 + 1 + 1 + 4 + 5 + 4 + 5000)


@pytest.mark.parametrize("at_once", [1 << 25, 1])
def test_long_receipts_decode_like_short_ones(genesis_with_long_values: Path, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few are looked up at once."""
    monkeypatch.setattr(decoded_records, "LOOKED_UP_BYTES_MAX", at_once)
    rows = rows_of(genesis_with_long_values, ["delayed_receipt"])
    assert [row["attached_gas"] for row in rows] == [101, 5100, 6100, 7100]
    assert {(row["deposit"], row["predecessor_id"], row["receiver_id"], row["num_actions"]) for row in rows} == {(13, "bob", "alice", 2)}
    assert [row["attached_gas_cost"] for row in rows] == [505, 25500, 30500, 35500]


def test_values_are_not_looked_up_for_what_the_key_says(genesis_with_long_values: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of public keys reads no long value."""
    monkeypatch.setattr("pipelines.dataset.arrow_dataset.read_referenced_values", None)
    rows = rows_of(genesis_with_long_values, ["access_key"], ["account_id", "public_key"], strict=False)
    assert rows == [{"account_id": "alice", "public_key": KEY}]


# what a state adds up to

TRANSFER_GAS = 115_123_062_500 + 108_059_500_000
"""Execution of a transfer and of the receipt that brings it, in protocol 74."""

IMPLICIT_ACCOUNT_GAS = TRANSFER_GAS + 3_850_000_000_000 + 101_765_125_000
"""Of a transfer that creates its account, with a key."""


def test_what_a_real_state_lacks_is_on_its_way_in_receipts() -> None:
    """Accounts, and receipts between shards with the gas that was bought for them, are the supply of the header, to the yoctoNEAR."""
    context = chosen_shards(str(exported_localnet()))[0].summary.context
    parent = decode_block_header(context.block_headers[1], "parent of the sync block")
    accounts = rows_of(exported_localnet(), ["account"], ["amount", "locked"])
    supply = statecast.open_dataset(str(exported_localnet())).total_supply
    assert supply is not None
    missing = supply - sum(int(row["amount"]) + int(row["locked"]) for row in accounts)
    in_flight = 0
    with open_chain_rows(read_node_home(localnet_home()), (BLOCK, CHUNKS)) as rows:
        block = rows.get(BLOCK, parent.hash)
        assert block is not None
        for header in decode_block_chunks(block, parent, "block"):
            chunk = rows.get(CHUNKS, header.chunk_hash)
            assert chunk is not None
            in_flight += sum(_cost(receipt) for receipt in _outgoing_receipts(chunk))
    assert (missing, missing - in_flight) == (1021970827562500001715, 0)


def _cost(encoded: bytes) -> int:
    receipt = decode_receipt(encoded, may_be_stored=False)
    assert receipt.deposit is not None and receipt.gas_price is not None
    gas = 0 if receipt.predecessor_id == "system" else IMPLICIT_ACCOUNT_GAS if len(receipt.receiver_id or "") == 64 else TRANSFER_GAS
    return receipt.deposit + receipt.gas_price * gas


def _outgoing_receipts(chunk: bytes) -> list[bytes]:
    """Return the receipts that a chunk ends in: the place where a count and so many receipts reach the end."""
    for at in range(100, len(chunk) - 3):
        reader, ends = BorshReader(chunk[at + 4 :], "chunk", IntegrityError), [0]
        count = int.from_bytes(chunk[at : at + 4], "little")
        try:
            while len(ends) <= min(count, 100):
                skip_receipt(reader)
                ends.append(len(chunk) - at - 4 - reader.remaining)
        except IntegrityError:
            continue
        if count == len(ends) - 1 and not reader.remaining:
            return [chunk[at + 4 + begin : at + 4 + end] for begin, end in pairwise(ends)]
    raise AssertionError("no list of receipts ends the chunk")
