"""Small epochs as datasets in memory, and their tables."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import replace

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_records import ExportSettings
from pipelines.dataset.tables.export_tables import export_tables
from pipelines.dataset.tables.tables_place import TablesPlace
from pipelines.dataset.verify_dataset import verify_dataset
from pipelines.execution.stage_runner import silent_runner
from pipelines.kernel.choice import choose_kernel
from pipelines.stores.open_store import open_store
from schemas.dataset.tables_selection import TablesSelection
from schemas.dataset.tables_summary import TablesShard
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.trie_key import access_key_key, account_key, contract_code_key, contract_data_key
from tests.support.list_source import context_of, list_source
from tests.support.records import Pairs

RUNNER = silent_runner()
KERNEL = choose_kernel("auto")
EVERYTHING = TablesSelection()


def account_value(amount: int) -> bytes:
    """Return an account of version 1 without a contract."""
    return amount.to_bytes(16, "little") + bytes(16) + bytes(32) + (182).to_bytes(8, "little")


def pairs_of(accounts: int, changed: Sequence[int] = ()) -> Pairs:
    """Return accounts, each with a key and an entry; those that are changed have another amount."""
    records: dict[bytes, bytes] = {}
    for number in range(accounts):
        name = f"user{number:05d}.near"
        records[account_key(name)] = account_value(10**24 + number + (number in changed) * 10**24)
        public_key = b"\0" + hashlib.sha256(name.encode()).digest()
        records[access_key_key(name, public_key)] = number.to_bytes(8, "little") + b"\1"
        records[contract_data_key(name, b"STATE")] = name.encode() * 3
    records[contract_code_key("user00001.near")] = b"code" * 2000
    return sorted(records.items())


def exported(
    pairs: Pairs, height: int = 7, cuts: Sequence[int] = (), chain_id: str = "test", shard_id: int = 0
) -> tuple[EpochContext, ShardDataset]:
    """Return a dataset in memory, of one range a cut, its root recomputed."""
    shards = (ShardContext(ShardUId(0, shard_id), None),)
    context = replace(context_of(None), epoch_height=height, epoch_id=CryptoHash(bytes([height]) * 32), chain_id=chain_id, shards=shards)
    source = list_source(pairs, cuts)
    (dataset,) = export_epoch(RUNNER, source, context, ExportSettings(f"memory://{uuid.uuid4().hex}"))
    return context, verify_dataset(RUNNER, KERNEL, dataset, source)


def new_url() -> str:
    """Return a place in memory."""
    return f"memory://{uuid.uuid4().hex}"


def written(
    url: str, epoch: tuple[EpochContext, ShardDataset], selection: TablesSelection | None = EVERYTHING, strict: bool = False
) -> TablesShard:
    """Write an epoch's tables."""
    context, dataset = epoch
    (tables,) = export_tables(RUNNER, context, [dataset], TablesPlace.take(url, context.chain_id, selection), strict)
    return tables


def objects(url: str) -> dict[str, bytes]:
    """Return what is stored."""
    store = open_store(url)
    return {info.name: store.get(info.name, 0, info.size) for info in store.list()}
