"""What a watcher asks the store before it has seen an epoch."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from pipelines.near.node.genesis_head import read_genesis_fields
from pipelines.producing.watch.watch_production import WatchProduction
from pipelines.stores.open_store import open_store
from schemas.ids import CryptoHash
from schemas.published.latest_pointer import LatestPointer
from schemas.published.object_layout import latest_name
from tests.support.nodes import localnet_home


def production(store_url: str) -> WatchProduction:
    """Return what a watcher of the localnet node works with, as far as it looks at the store."""
    unused: dict[str, Any] = {field.name: None for field in fields(WatchProduction) if field.init and field.name != "_contexts"}
    return WatchProduction(**{**unused, "node_home": str(localnet_home()), "store_url": store_url, "shard_ids": ()})


def chain_id() -> str:
    """Return the localnet node's chain."""
    return str(read_genesis_fields(localnet_home() / "genesis.json", ("chain_id",))["chain_id"])


def test_the_latest_pointer_says_what_is_published(tmp_path: Path) -> None:
    """None where it is not there."""
    assert production(str(tmp_path)).latest_published() is None
    pointer = LatestPointer(chain_id(), 17, CryptoHash(b"\1" * 32), 1, "ab" * 32)
    open_store(str(tmp_path)).put(latest_name(chain_id()), pointer.to_bytes())
    assert production(str(tmp_path)).latest_published() == 17


@pytest.mark.parametrize("damaged", [b"", b"{", b"rotten" * 100_000])
def test_a_damaged_latest_pointer_keeps_no_watcher_from_its_work(tmp_path: Path, damaged: bytes) -> None:
    """Who publishes next replaces it; a watcher that waited for that would wait for ever."""
    open_store(str(tmp_path)).put(latest_name(chain_id()), damaged)
    assert production(str(tmp_path)).latest_published() is None
