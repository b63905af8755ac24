"""The place of a chain's tables: what all epochs there have in common, and which epochs are finished.

Files lie under their final names before their epoch is finished; what makes an epoch readable is its entry in the catalogue, which the
views, the pointer to the latest and `open_tables` follow. The catalogue is swapped, so that epochs may be finished beside each other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from pipelines.dataset.tables.decode_tables import read_shard_tables
from pipelines.dataset.tables.survey_tables import survey_tables
from pipelines.stores.compare_and_swap import swapped
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import find_document
from pipelines.stores.store import ObjectInfo, Store
from schemas.dataset.dataset_summary import SUMMARY_BYTES_MAX
from schemas.dataset.tables_selection import TablesSelection
from schemas.dataset.tables_sql import athena_ddl, bigquery_ddl, duckdb_views
from schemas.dataset.tables_summary import (
    CATALOGUE_NAME,
    EPOCHS_FOLDER,
    ICEBERG_NOTES,
    LATEST_NAME,
    SQL_FOLDER,
    EpochEntry,
    ShardEntry,
    TableFile,
    TablesCatalogue,
    TablesEpoch,
    TablesShard,
    epoch_tables_name,
    shard_tables_name,
)
from schemas.errors import (
    ClaimedError,
    DatasetError,
    EpochNotReadyError,
    InvalidInputError,
    StatecastError,
    StoreNotListedError,
)
from schemas.nearcore.epoch_context import EpochContext

_OLD_LAYOUT: Final = re.compile(r"chain_id=[^/]+/epoch_height=[^/]+/epoch_id=[^/]+/shard_uid=[^/]+/(kind=.*|tables\.json|written/.*)")
_EPOCHS_SHOWN_MAX: Final = 8
"""Most epochs that an error names."""

_SQL: Final = {"views.sql": duckdb_views, "bigquery.sql": bigquery_ddl, "athena.sql": athena_ddl}


@dataclass(frozen=True, slots=True)
class TablesPlace:
    """A place that tables of one chain are written to."""

    url: str
    chain_id: str
    selection: TablesSelection

    @classmethod
    def take(cls, url: str, chain_id: str, selection: TablesSelection | None = None) -> TablesPlace:
        """Note what the place is for, or find that it is for that already. Nothing else is written.

        A catalogue that is gone is made again out of the summaries.

        Args:
            selection: None for what the place has, or everything where it has nothing yet.
        Raises:
            DatasetError: tables of another chain, of the old layout or with other columns are there.
            InvalidInputError: they are of another selection.
            StoreError: the place can't be read or written.
        """
        store = open_store(url)

        def noted(info: ObjectInfo | None) -> tuple[bytes | None, TablesCatalogue]:
            found = None if info is None else read_tables_catalogue(store)
            if found is None:
                refuse_old_layout(store)
                refuse_iceberg(store)
                made = survey_tables(store) or TablesCatalogue(chain_id, selection or TablesSelection())
                _check_same(store.url, made, chain_id, selection)
                return made.to_bytes(), made
            return None, found

        found = swapped(store, CATALOGUE_NAME, noted)
        _check_same(store.url, found, chain_id, selection)
        return cls(url, chain_id, found.selection)

    def refuse_other_epoch(self, context: EpochContext) -> None:
        """Refuse an epoch where another of the same height is, finished or begun, or where one is being deleted.

        Raises:
            DatasetError: another one is there.
            ClaimedError: a collection is deleting the epoch's tables.
        """
        store = open_store(self.url)
        catalogue = read_tables_catalogue(store)
        _refuse_leaving(store, catalogue, context.epoch_height)
        entries = () if catalogue is None else catalogue.epochs
        known = {entry.epoch_id for entry in entries if entry.epoch_height == context.epoch_height}
        for shard in context.shards:
            left = read_shard_tables(store, context.epoch_height, shard.shard_id)
            known |= set() if left is None else {left.context.epoch_id}
        other = sorted(map(str, known - {context.epoch_id}))
        if other:
            raise DatasetError(
                problem=f"epoch height {context.epoch_height} is here with id {other[0]}, not {context.epoch_id}",
                where=store.url,
                remedy="It is another chain of the same name, or another fork: write to another place.",
            )

    def tables_before(self, epoch_height: int, shard_id: int) -> TablesShard | None:
        """Return a shard's tables of the newest finished epoch before a height; None where there are none."""
        store = open_store(self.url)
        catalogue = read_tables_catalogue(store)
        for entry in reversed(() if catalogue is None else catalogue.epochs):
            if entry.epoch_height < epoch_height and shard_id in entry.shard_ids:
                return read_shard_tables(store, entry.epoch_height, shard_id)
        return None

    def withdraw(self, epoch_height: int, shard_id: int) -> None:
        """Take an epoch out of the catalogue: the tables of a shard are about to become others. Those of its other shards stay.

        Raises:
            ClaimedError: a collection is deleting the epoch's tables.
        """
        store = open_store(self.url)

        def without(info: ObjectInfo | None) -> tuple[bytes | None, None]:
            catalogue = read_tables_catalogue(store)
            _refuse_leaving(store, catalogue, epoch_height)
            if catalogue is None or all(entry.epoch_height != epoch_height for entry in catalogue.epochs):
                return None, None
            return catalogue.without_epoch(epoch_height).to_bytes(), None

        swapped(store, CATALOGUE_NAME, without)
        follow_catalogue(store)
        store.delete(shard_tables_name(epoch_height, shard_id))

    def finish(self, context: EpochContext, shards: Sequence[TablesShard]) -> EpochEntry:
        """Enter an epoch in the catalogue, with its shards that earlier runs made; what follows the catalogue is rebuilt.

        Args:
            context: of the epoch; its shard layout says which shards it has, where that is known.
            shards: the finished shards of this run.
        Raises:
            DatasetError: another epoch of the height is there.
            ClaimedError: a collection is deleting the epoch's tables.
            StoreError: the place can't be written.
        """
        self.refuse_other_epoch(context)
        store = open_store(self.url)
        name = epoch_tables_name(context.epoch_height)
        layout = context.shard_layout
        own = {shard.shard_uid.shard_id: ShardEntry.of(shard) for shard in shards}

        def listed(info: ObjectInfo | None) -> tuple[bytes | None, None]:
            earlier = None if info is None else _read_epoch(store, context.epoch_height)
            others = () if earlier is None else earlier.shards
            entries = {
                entry.shard_uid.shard_id: entry
                for entry in others
                if entry.shard_uid.shard_id not in own and _is_as_it_was(store, context, entry)
            } | own
            known = set() if layout is None else set(layout.shard_ids)
            missing = tuple(sorted(known - set(entries)))
            epoch = TablesEpoch(
                self.chain_id, context.epoch_height, context.epoch_id, tuple(entries[shard_id] for shard_id in sorted(entries)), missing
            )
            data = epoch.to_bytes()
            return None if earlier is not None and earlier.to_bytes() == data else data, None

        def entered(info: ObjectInfo | None) -> tuple[bytes | None, EpochEntry]:
            catalogue, epoch = read_tables_catalogue(store), _read_epoch(store, context.epoch_height)
            _refuse_leaving(store, catalogue, context.epoch_height)
            if catalogue is None or epoch is None:
                raise DatasetError(problem="the place was emptied during the run", where=store.url, remedy="Run again.")
            entry = EpochEntry.of(epoch)
            changed = catalogue.with_epoch(entry)
            return None if changed == catalogue else changed.to_bytes(), entry

        swapped(store, name, listed)
        entry = swapped(store, CATALOGUE_NAME, entered)
        follow_catalogue(store)
        return entry


@dataclass(frozen=True, slots=True)
class FinishedTables:
    """The tables of one finished epoch."""

    url: str
    catalogue: TablesCatalogue
    entry: EpochEntry
    shards: tuple[TablesShard, ...]
    """Ascending by shard id."""

    def files(self, kind: str | None = None) -> Iterator[tuple[TablesShard, TableFile]]:
        """Yield the epoch's files with their shards, ascending by shard id and name.

        Args:
            kind: None for all.
        """
        for shard in self.shards:
            for file in shard.files:
                if kind in (None, file.kind):
                    yield shard, file


def open_tables(url: str, epoch: str = "latest") -> FinishedTables:
    """Return the tables of a finished epoch, out of the summaries that say which files it has.

    Args:
        url: of the tables: a folder, or a place in a bucket or on the web.
        epoch: ``latest`` (the newest complete one), a height or an id.
    Raises:
        DatasetError: no tables are there, or of the old layout, or a summary is damaged.
        EpochNotReadyError: no such epoch is finished; the remedy says which are.
        StoreError: the place can't be read.
    """
    store = open_store(url)
    catalogue = read_tables_catalogue(store)
    if catalogue is None:
        # A place on the web can't be listed.
        with suppress(StoreNotListedError):
            refuse_old_layout(store)
        raise no_tables(store)
    entry = find_tables_epoch(catalogue, epoch, store.url)
    found = _read_epoch(store, entry.epoch_height)
    if found is None or hashlib.sha256(found.to_bytes()).hexdigest() != entry.sha256:
        raise DatasetError(
            problem=f"the summary of epoch {entry.epoch_height} is missing, or another than the catalogue says",
            where=f"{store.url}/{epoch_tables_name(entry.epoch_height)}",
            remedy="The epoch is being rewritten, or that run was stopped: let it end, or run it again.",
        )
    shards = []
    for listed in found.shards:
        shard = read_shard_tables(store, entry.epoch_height, listed.shard_uid.shard_id, listed.sha256)
        if shard is None:
            raise DatasetError(
                problem=f"the summary of shard {listed.shard_uid} is missing", where=store.url, remedy="Write the tables again."
            )
        shards.append(shard)
    return FinishedTables(url, catalogue, entry, tuple(shards))


def look_at_place(url: str, chain_id: str | None) -> TablesCatalogue | None:
    """Return what a place has, before anything is written there; None where it has no tables yet.

    Args:
        chain_id: of what would be written; None where that is not known yet.
    Raises:
        DatasetError: tables of another chain or of another layout are there, or the catalogue is damaged.
        StoreError: the place can't be read.
    """
    store = open_store(url)
    found = read_tables_catalogue(store)
    if found is None:
        refuse_old_layout(store)
        refuse_iceberg(store)
        found = survey_tables(store)
    if found is not None and chain_id is not None:
        _check_same(store.url, found, chain_id, None)
    return found


def find_tables_epoch(catalogue: TablesCatalogue, selector: str, where: str) -> EpochEntry:
    """Return a finished epoch of a catalogue.

    Args:
        selector: ``latest``, a height or an id.
    Raises:
        EpochNotReadyError: none such is finished.
    """
    if selector == "latest":
        found = catalogue.latest
    else:
        found = next((entry for entry in catalogue.epochs if selector in (str(entry.epoch_height), str(entry.epoch_id))), None)
    if found is not None:
        return found
    shown = [_shown(entry) for entry in reversed(catalogue.epochs)][:_EPOCHS_SHOWN_MAX]
    more = "" if len(shown) == len(catalogue.epochs) else f", and {len(catalogue.epochs) - len(shown)} older ones"
    raise EpochNotReadyError(
        problem="no complete epoch is finished here" if selector == "latest" else f"epoch {selector} is not finished here",
        where=where,
        remedy=f"Finished are {', '.join(shown)}{more}." if shown else "No epoch is finished yet.",
    )


def read_tables_catalogue(store: Store) -> TablesCatalogue | None:
    """Return the catalogue of a place; None where there is none.

    Raises:
        DatasetError: it can't be decoded.
    """
    data = find_document(store, CATALOGUE_NAME, SUMMARY_BYTES_MAX)
    return None if data is None else TablesCatalogue.from_bytes(data, f"{store.url}/{CATALOGUE_NAME}")


def refuse_old_layout(store: Store) -> None:
    """Refuse a place that holds tables as they were laid out before: a folder an epoch and shard, with the kinds within.

    Raises:
        DatasetError: it does.
    """
    old = next((info.name for info in store.list() if _OLD_LAYOUT.fullmatch(info.name)), None)
    if old is not None:
        raise DatasetError(
            problem="tables of the layout before are here, a folder an epoch; the present one has a folder a kind of record",
            where=f"{store.url}/{old}",
            remedy="Write to another place, or delete the folders chain_id=… here if nothing else is in them; tables are rebuilt out of the dataset.",
        )


def refuse_iceberg(store: Store) -> None:
    """Refuse a place that holds Iceberg tables: a reader of all Parquet files there would count each record twice.

    Raises:
        DatasetError: it does.
    """
    if next(store.list(ICEBERG_NOTES), None) is not None:
        raise DatasetError(problem="Iceberg tables are here", where=store.url, remedy="Write to another place, or with --format iceberg.")


def no_tables(store: Store) -> DatasetError:
    """Return the error of a place without a catalogue: no tables are there, or what says which are is gone."""
    # A place on the web can't be listed.
    with suppress(StatecastError):
        if next(store.list(EPOCHS_FOLDER), None) is not None:
            remedy = "Write an epoch's tables there again, or run statecast gc --tables: both rebuild it from the summaries."
            return DatasetError(problem="the catalogue of the tables is not there", where=f"{store.url}/{CATALOGUE_NAME}", remedy=remedy)
    return DatasetError(problem="no tables are there", where=store.url, remedy="statecast tables --to writes them.")


def _refuse_leaving(store: Store, catalogue: TablesCatalogue | None, epoch_height: int) -> None:
    if catalogue is not None and epoch_height in catalogue.leaving:
        raise ClaimedError(
            problem=f"the tables of epoch {epoch_height} are being deleted, or that was begun and not ended",
            where=store.url,
            remedy="Run statecast gc --tables to its end first, and keep more epochs to keep this one.",
        )


def _check_same(where: str, found: TablesCatalogue, chain_id: str, selection: TablesSelection | None) -> None:
    if found.chain_id != chain_id:
        raise DatasetError(
            problem=f"the tables here are of chain {found.chain_id}, not {chain_id}",
            where=where,
            remedy="Write to another place: a query over two chains adds them up.",
        )
    if selection is not None and found.selection != selection:
        raise InvalidInputError(
            problem=f"the tables here are of {_options(found.selection)}, not of {_options(selection)}",
            where=where,
            remedy="Give the same options, or another place: all files of a table have the same columns.",
        )


def _options(selection: TablesSelection) -> str:
    return selection.describe() or "everything"


def _shown(entry: EpochEntry) -> str:
    return f"{entry.epoch_height} ({entry.epoch_id}{'' if entry.complete else ', not complete'})"


def _read_epoch(store: Store, epoch_height: int) -> TablesEpoch | None:
    name = epoch_tables_name(epoch_height)
    data = find_document(store, name, SUMMARY_BYTES_MAX)
    return None if data is None else TablesEpoch.from_bytes(data, f"{store.url}/{name}")


def follow_catalogue(store: Store) -> None:
    """Bring the pointer to the latest epoch and the views to what the catalogue says."""

    def latest(info: ObjectInfo | None) -> tuple[bytes | None, bool]:
        catalogue = read_tables_catalogue(store)
        data = None if catalogue is None else catalogue.latest_to_bytes()
        return (None if info is not None and data == find_document(store, LATEST_NAME, SUMMARY_BYTES_MAX) else data), data is None

    if swapped(store, LATEST_NAME, latest):
        store.delete(LATEST_NAME)
    root = store.local_root()
    url = store.url if root is None else str(root)

    def views(file: str, info: ObjectInfo | None) -> tuple[bytes | None, None]:
        catalogue = read_tables_catalogue(store)
        text = b"" if catalogue is None else _SQL[file](url, catalogue).encode()
        return (None if info is not None and text == find_document(store, f"{SQL_FOLDER}/{file}", SUMMARY_BYTES_MAX) else text), None

    for file in _SQL:
        swapped(store, f"{SQL_FOLDER}/{file}", partial(views, file))


def _is_as_it_was(store: Store, context: EpochContext, entry: ShardEntry) -> bool:
    """Tell whether a shard's tables are those that an epoch's summary names; not where a run began others and did not end."""
    shard = read_shard_tables(store, context.epoch_height, entry.shard_uid.shard_id)
    return shard is not None and ShardEntry.of(shard) == entry
