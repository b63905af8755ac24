"""Decoded tables of one shard: the records of an Arrow dataset become Parquet files with typed columns, one task a file of the dataset.

The shard's ``tables.json`` comes last, so nothing half-written is ever taken for tables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import pyarrow as pa

from pipelines.dataset.arrow_dataset import ShardDataset, read_dataset
from pipelines.dataset.tables.decoded_span import DecodedSpan, Selection, decoded_spans
from pipelines.dataset.tables.key_intervals import key_intervals
from pipelines.dataset.tables.table_writer import rewrite_table, write_tables
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import find_document, read_object
from pipelines.stores.store import Store
from schemas.dataset.dataset_summary import SUMMARY_BYTES_MAX
from schemas.dataset.tables_selection import TablesSelection
from schemas.dataset.tables_summary import (
    TABLES_FORMAT,
    StateBlock,
    TableFile,
    TablesRange,
    TablesShard,
    shard_side_folder,
    shard_tables_name,
    table_folder,
    written_from_bytes,
    written_to_bytes,
)
from schemas.errors import DatasetError, ObjectMismatchError, ObjectNotFoundError
from schemas.nearcore.block import committed_supply, decode_block_header, header_prev_height
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.trie_key import TrieKeyKind

EarlierTables = Mapping[str, tuple[TableFile, ...]]
"""By the sha256 of a dataset's file: the files of an earlier epoch that its records are in."""


@dataclass(frozen=True, slots=True)
class WriteTablesTask:
    """Makes a Parquet file for each kind of record in one file of a dataset."""

    span: DecodedSpan
    """All of the file."""
    url: str
    """Where the tables go."""
    selection: TablesSelection
    earlier: tuple[TableFile, ...] | None = None
    """An earlier epoch's tables of the same file; None where there are none."""

    def run(self) -> tuple[TableFile, ...]:
        """Write the files, or return what an earlier run left.

        Raises:
            DatasetError: the dataset's file is missing or changed.
            MalformedValueError: a record does not decode, in strict mode.
            StoreError: the tables can't be written.
        """
        store, dataset = open_store(self.url), read_dataset(self.span.dataset)
        shard = shard_of(dataset, self.selection)
        stem = file_stem(self.span.file.name)
        note = f"{shard_side_folder(shard.context.epoch_height, shard.shard_uid.shard_id)}/written/{stem}.json"
        fingerprint = self._fingerprint(shard)
        left = left_by_task(store, note, fingerprint)
        if left is not None:
            return left
        files = self._rewritten(store, shard, stem)
        if files is None:
            files = write_tables(store, shard, self.span.read(), stem)
        store.put(note, written_to_bytes(files, fingerprint))
        return files

    def _fingerprint(self, shard: TablesShard) -> str:
        """Digest what the files follow from: the records, what is written of them and how, and what all rows say."""
        facts = (
            TABLES_FORMAT,
            self.span.file.sha256,
            self.span.selection.strict,
            self.selection.to_json(),
            None if shard.block is None else shard.block.to_json(),
            str(shard.context.epoch_id),
            [str(self.selection.schema(kind)) for kind in self.selection.written_kinds],
        )
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _rewritten(self, store: Store, shard: TablesShard, stem: str) -> tuple[TableFile, ...] | None:
        """Write the files out of an earlier epoch's; None where those are not what they were."""
        if self.earlier is None or self.span.selection.strict:
            return None
        found = []
        for file in self.earlier:
            try:
                data = read_object(store, file.name, file.size)
            except (ObjectNotFoundError, ObjectMismatchError):
                return None
            if hashlib.sha256(data).hexdigest() != file.sha256:
                return None
            found.append((TrieKeyKind(file.kind), pa.py_buffer(data)))
        return tuple(rewrite_table(store, shard, kind, data, stem) for kind, data in found)


def shard_of(dataset: ShardDataset, selection: TablesSelection) -> TablesShard:
    """Return what is known of a shard's tables before they are made."""
    summary = dataset.summary
    # The block headers are the dataset's own concern.
    context = replace(summary.context, block_headers=())
    return TablesShard(
        context,
        _state_block(summary.context, summary.shard),
        summary.records,
        summary.verified_state_root,
        selection,
        complete=False,
        files=(),
    )


def _state_block(context: EpochContext, shard: ShardContext) -> StateBlock | None:
    """Return the block that a shard's state is after, out of its header, or the genesis; its height alone where it is the one before the
    sync block's parent and that block's header is there, as in restored datasets; else None.

    Raises:
        IntegrityError: a header does not hash to its block.
    """
    if shard.genesis_block is not None:
        return StateBlock(shard.genesis_block.height, shard.genesis_block.timestamp_us, shard.genesis_block.total_supply)
    where = f"header of the block of shard {shard.shard_uid}"
    if shard.flat_head_header:
        header = decode_block_header(shard.flat_head_header, where, shard.flat_head_target)
        return StateBlock(header.height, header.timestamp_ns // 1000, committed_supply(context.block_headers, where))
    if shard.flat_head_target is None or len(context.block_headers) < 2:
        return None
    sync_block = decode_block_header(context.block_headers[0], where, context.sync_hash)
    parent = decode_block_header(context.block_headers[1], where, sync_block.prev_hash)
    height = header_prev_height(parent) if parent.prev_hash == shard.flat_head_target else None
    return None if height is None else StateBlock(height, None, committed_supply(context.block_headers, where))


def plan_tables(
    dataset: ShardDataset, url: str, selection: TablesSelection, strict: bool = False, earlier: EarlierTables | None = None
) -> list[WriteTablesTask]:
    """Return a task a file of a shard's dataset that can hold selected records."""
    names = None
    if selection.columns:
        names = tuple(dict.fromkeys(name for kind in selection.written_kinds for name in selection.schema(kind).names))
        names = ("kind", *(name for name in names if name not in ("epoch_id", "block_height", "block_timestamp", "shard_uid")))
    wanted = Selection(
        columns=names,
        kinds=None if len(selection.written_kinds) == len(TrieKeyKind) else frozenset(selection.written_kinds),
        strict=strict,
        keys=key_intervals(selection.accounts, selection.contracts) if selection.accounts or selection.contracts else None,
    )
    return [WriteTablesTask(span, url, selection, (earlier or {}).get(span.file.sha256)) for span in decoded_spans(dataset, wanted)]


def finish_tables(
    dataset: ShardDataset,
    url: str,
    selection: TablesSelection,
    written: Iterable[Sequence[TableFile]],
    *,
    complete: bool | None = None,
) -> TablesShard:
    """Write the shard's ``tables.json``: from here on its tables are complete. Files of earlier tables that are not of these are removed.

    Args:
        written: what the tasks left.
        complete: whether all selected records are there; None where the tasks read the dataset's files.
    """
    summary = dataset.summary
    files = tuple(sorted((file for group in written for file in group), key=lambda file: file.name))
    shard = replace(shard_of(dataset, selection), files=files, complete=complete is None or complete)
    if complete is None:
        ranges = tuple(
            TablesRange(file_stem(file.name), file.sha256, file.records, file.first_key, file.last_key) for file in summary.files
        )
        shard = replace(shard, ranges=ranges)
    store = open_store(url)
    name = shard_tables_name(shard.context.epoch_height, shard.shard_uid.shard_id)
    kept = {file.name for file in files}
    context = shard.context
    folders = [table_folder(kind, context.chain_id, context.epoch_height, shard.shard_uid.shard_id) for kind in TrieKeyKind]
    # A reader of all files in the folder would take an earlier run's for these.
    strays = [info.name for folder in folders for info in store.list(folder) if info.name not in kept]
    if strays:
        store.delete(name)
        for stray in strays:
            store.delete(stray)
    store.put(name, shard.to_bytes())
    return shard


def load_tables(dataset: ShardDataset, url: str) -> TablesShard | None:
    """Return the finished tables of a shard; None where there are none.

    Raises:
        DatasetError: the summary can't be decoded.
    """
    context = dataset.summary.context
    return read_shard_tables(open_store(url), context.epoch_height, dataset.summary.shard.shard_id)


def read_shard_tables(store: Store, epoch_height: int, shard_id: int, sha256: str | None = None) -> TablesShard | None:
    """Return the finished tables of a shard; None where there are none.

    Args:
        sha256: of the summary, where the epoch's summary names it.
    Raises:
        DatasetError: the summary can't be decoded, or is another than it was.
    """
    name = shard_tables_name(epoch_height, shard_id)
    data = find_document(store, name, SUMMARY_BYTES_MAX)
    if data is None:
        return None
    where = f"{store.url}/{name}"
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise DatasetError(
            problem="the shard's tables are others than the epoch's summary says",
            where=where,
            remedy="They are being rewritten, or that run was stopped: let it end, or run it again.",
        )
    return TablesShard.from_bytes(data, where)


def earlier_tables(shard: TablesShard | None) -> EarlierTables:
    """Return an epoch's tables of a shard by the dataset's files that they were made of."""
    if shard is None:
        return {}
    by_stem: dict[str, list[TableFile]] = {one.stem: [] for one in shard.ranges}
    for file in shard.files:
        by_stem.setdefault(file_stem(file.name), []).append(file)
    return {one.source_sha256: tuple(by_stem[one.stem]) for one in shard.ranges}


def file_stem(name: str) -> str:
    """Return what the name of a file has before its ending: the tables of a dataset's file have its own."""
    return PurePosixPath(name).stem


def left_by_task(store: Store, note: str, fingerprint: str) -> tuple[TableFile, ...] | None:
    """Return the files that a task of an earlier run left; None where one is gone, or they are of another fingerprint."""
    data = find_document(store, note, SUMMARY_BYTES_MAX)
    files = None if data is None else written_from_bytes(data, fingerprint, note)
    if files is None:
        return None
    infos = [store.info(file.name) for file in files]
    whole = all(info is not None and info.size == file.size for info, file in zip(infos, files, strict=True))
    return files if whole else None
