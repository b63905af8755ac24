"""The catalogue of a place of tables, made again out of the summaries that are there: the catalogue itself may be lost, the tables are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipelines.dataset.tables.decode_tables import read_shard_tables
from pipelines.stores.store import Store
from schemas.dataset.dataset_summary import SUMMARY_BYTES_MAX
from schemas.dataset.tables_selection import TablesSelection
from schemas.dataset.tables_summary import EpochEntry, ShardEntry, TablesCatalogue, TablesEpoch, epoch_tables_name, tables_height
from schemas.errors import DatasetError, ObjectNotFoundError

_REMEDY: Final = "A place has one chain and one selection: move what is of another away."


def survey_tables(store: Store) -> TablesCatalogue | None:
    """Return what the catalogue of a place would say; None where no epoch is finished there.

    An epoch is finished where its summary names the shards' summaries that are there by their sha256, and all their files are there in
    the size that those say. One that is being rebuilt, or was deleted in part, is not. Lists the place; reads no table.

    Raises:
        DatasetError: finished epochs are of several chains or selections.
        StoreError: the place can't be read.
    """
    sizes = {info.name: info.size for info in store.list() if tables_height(info.name) is not None}
    found: list[tuple[EpochEntry, str, TablesSelection]] = []
    for height in sorted({tables_height(name) for name in sizes} - {None}, key=lambda one: one or 0):
        assert height is not None, "names without a height were left out"
        one = _finished(store, height, sizes)
        if one is not None:
            found.append(one)
    if not found:
        return None
    _, chain_id, selection = found[0]
    if any((other_chain, other) != (chain_id, selection) for _, other_chain, other in found):
        raise DatasetError(problem="epochs of several chains or selections are here, and no catalogue", where=store.url, remedy=_REMEDY)
    return TablesCatalogue(chain_id, selection, tuple(entry for entry, _, _ in found))


def _finished(store: Store, epoch_height: int, sizes: Mapping[str, int]) -> tuple[EpochEntry, str, TablesSelection] | None:
    """Return an epoch's entry, chain and selection; None where it is not finished."""
    name = epoch_tables_name(epoch_height)
    if name not in sizes:
        return None
    try:
        epoch = TablesEpoch.from_bytes(store.get(name, 0, SUMMARY_BYTES_MAX + 1), f"{store.url}/{name}")
        shards = [read_shard_tables(store, epoch_height, listed.shard_uid.shard_id) for listed in epoch.shards]
    except (DatasetError, ObjectNotFoundError):
        return None
    whole = [
        shard
        for shard, listed in zip(shards, epoch.shards, strict=True)
        if shard is not None and ShardEntry.of(shard) == listed and all(sizes.get(file.name) == file.size for file in shard.files)
    ]
    if not whole or len(whole) < len(epoch.shards) or len({shard.selection for shard in whole}) > 1:
        return None
    return EpochEntry.of(epoch), epoch.chain_id, whole[0].selection
