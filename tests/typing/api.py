"""The signatures of the package `statecast`: mypy checks them, and nothing runs this."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import assert_type

import duckdb
import polars

import statecast


def of_datasets() -> None:
    """Open, look, scan, verify."""
    dataset = statecast.open_dataset("gs://bucket/state", epoch="latest")
    assert_type(dataset, statecast.Dataset)
    assert_type(dataset.chain_id, str)
    assert_type(dataset.epoch_height, int)
    assert_type(dataset.epoch_id, str)
    assert_type(dataset.shard_ids, tuple[int, ...])
    assert_type(dataset.state_roots, dict[int, str | None])
    assert_type(dataset.records, int)
    assert_type(dataset.total_supply, int | None)
    dataset.verify()
    scan = dataset.scan(shard_ids=[0], kinds={"account"}, columns=("account_id",), decode=True, strict=False)
    assert_type(scan, statecast.Scan)
    batches: Iterator[object] = scan.batches()
    dataset.scan(["account"])  # type: ignore[call-arg, list-item]
    del batches


def of_tables() -> None:
    """Choose a table of an epoch, and a library."""
    table = statecast.scan("gs://bucket/tables", kind="account", epoch="latest")
    assert_type(table, statecast.TableScan)
    assert_type(table.kind, str)
    assert_type(table.chain_id, str)
    assert_type(table.epoch_height, int)
    assert_type(table.epoch_id, str)
    assert_type(table.block_height, int | None)
    assert_type(table.block_timestamp, datetime | None)
    assert_type(table.rows, int)
    assert_type(table.polars(), polars.LazyFrame)
    assert_type(table.duckdb(), duckdb.DuckDBPyRelation)
    statecast.scan("gs://bucket/tables", kind="account", epoch=2950)
    statecast.scan("gs://bucket/tables", "account")  # type: ignore[call-arg]


def of_epochs() -> None:
    """Open under a trust, prove, fetch."""
    trust = statecast.Trust(keys=["ed25519:…"], threshold=1, block=None, anybody=False)
    epoch = statecast.open_epoch("gs://bucket/prefix", trust=trust)
    assert_type(epoch, statecast.Epoch)
    assert_type(epoch.url, str)
    assert_type(epoch.sync_hash, str)
    assert_type(epoch.revision, int)
    assert_type(epoch.signers, tuple[str, ...])
    assert_type(epoch.state_roots, dict[int, str])
    assert_type(epoch.prove("alice.near", access_key="ed25519:…"), statecast.VerifiedProof)
    assert_type(epoch.fetch(Path("parts"), shard_ids={1}, sources=["https://mirror"], use_mirrors=False), statecast.FetchResult)
    statecast.get("gs://bucket/prefix", accounts=["alice.near"], epochs=range(2900, 3001), trust=trust)
    statecast.get("gs://bucket/prefix", access_keys=[("alice.near", "ed25519:…")])  # type: ignore[call-arg]
    statecast.open_epoch("gs://bucket/prefix")  # type: ignore[call-arg]


def of_proofs() -> None:
    """From bytes or a file."""
    assert_type(statecast.verify_proof(b"", block="hash", state_root="root"), statecast.VerifiedProof)
    assert_type(statecast.verify_proof(Path("proof.json")).tied_to, tuple[str, ...])
    statecast.verify_proof(1)  # type: ignore[arg-type]


def of_errors(error: statecast.StatecastError) -> None:
    """Each has what a handler needs."""
    assert_type(error.problem, str)
    assert_type(error.exit_code, int)
