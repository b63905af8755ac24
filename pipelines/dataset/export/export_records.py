"""Export: a source's flat state becomes an Arrow dataset, one task a key range; `pipelines.dataset.export.export_values` then copies values.

The driver (`plan_export`, `finish_export`) sees summaries only. From the moment that a shard's ``shard.json`` is written, nothing
later needs the source; boundary nodes are still taken from it where it has them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dataset.arrow_dataset import SUMMARY_NAME, ShardDataset, load_shard
from pipelines.dataset.export.references import has_references, put_references, references_in
from pipelines.dataset.record_files import RECORDS_FILE_BYTES_TARGET, FileDestination, FileFormat, write_record_files
from pipelines.near.node.flat_state_source import FlatStateSource, FoundStateHeader, KeyRange
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import find_document
from pipelines.stores.store import Store
from schemas.dataset.dataset_summary import (
    SUMMARY_BYTES_MAX,
    DatasetSummary,
    RangeSummary,
    ValuesFile,
    range_summary_from_bytes,
    range_summary_to_bytes,
    schema_metadata,
    shard_folder,
)
from schemas.dataset.flat_state import RECORD_SCHEMA
from schemas.errors import DatasetError, RecordOrderError
from schemas.nearcore.epoch_context import EpochContext, ShardContext

RANGE_BYTES_TARGET = 64 << 20
"""Stored bytes that one export task reads, about: small enough that a small shard too keeps several cores busy."""

RECORD_BATCH_BYTES_MAX = 4 << 20
"""Bytes of one record batch of records, about."""

_DATA_FOLDERS = ("flat_state", "values", "shared_values", "changes")
"""In a shard's folder: files that its summary names, and those that a roll forward has while it lasts."""


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """How a dataset is written."""

    dataset_url: str
    file_format: FileFormat = FileFormat.IPC
    range_bytes_target: int = RANGE_BYTES_TARGET
    record_batch_bytes_max: int = RECORD_BATCH_BYTES_MAX
    file_bytes_target: int = RECORDS_FILE_BYTES_TARGET
    """Bytes of one file, about."""
    durable: bool = True
    """Wait for the disk with every file; False for a temporary dataset, where the state root would show damage."""

    def read_dataset(self) -> Store:
        """Open the store that the dataset goes to."""
        return open_store(self.dataset_url, durable=self.durable)

    def destination(self, store: Store, folder: str) -> FileDestination:
        """Return where a shard's files go."""
        return FileDestination(store, folder, self.file_format, self.file_bytes_target)


@dataclass(frozen=True, slots=True)
class ExportRangeTask:
    """Reads one key range of a shard and writes its records as files."""

    source: FlatStateSource
    context: EpochContext
    """Of this shard alone."""
    settings: ExportSettings
    key_range: KeyRange
    range_index: int
    fingerprint: str
    memory_usage: int | None

    @property
    def shard(self) -> ShardContext:
        """The shard that is exported."""
        return self.context.shards[0]

    def run(self) -> RangeSummary:
        """Export the range, or return the summary of an earlier run.

        Raises:
            SourceError, IntegrityError: from the source; RecordOrderError when its keys are not ascending.
            StoreError: the dataset can't be written.
        """
        store = self.settings.read_dataset()
        folder = shard_folder(self.context, self.shard.shard_uid)
        summary_name = f"{folder}/ranges/range-{self.range_index:06d}.json"
        earlier = _earlier_summary(store, folder, summary_name, self.fingerprint)
        if earlier is not None and has_references(store, folder, self.range_index, earlier.reference_count):
            return earlier
        schema = RECORD_SCHEMA.with_metadata(schema_metadata(self.context, self.shard, self.memory_usage))
        references: list[pa.RecordBatch] = []
        batches = self.source.records(self.shard, self.key_range, self.settings.record_batch_bytes_max)
        files = tuple(
            write_record_files(
                _noting_references(batches, references, self.key_range, str(self.shard.shard_uid)),
                schema,
                f"flat_state/range-{self.range_index:06d}",
                self.settings.destination(store, folder),
            )
        )
        put_references(store, folder, self.range_index, references)
        lengths = [pc.sum(pc.cast(batch.column("value_length"), pa.uint64())).as_py() for batch in references]
        summary = RangeSummary(files, sum(batch.num_rows for batch in references), sum(lengths))
        store.put(summary_name, range_summary_to_bytes(summary, self.fingerprint))
        return summary


@dataclass(frozen=True, slots=True)
class CopiedValues:
    """Files of values that one task wrote."""

    own: tuple[ValuesFile, ...] = ()
    shared: tuple[ValuesFile, ...] = ()


@dataclass(frozen=True, slots=True)
class ShardExport:
    """The plan of one shard's export."""

    source: FlatStateSource
    context: EpochContext
    """Of this shard alone."""
    fingerprint: str
    tasks: tuple[ExportRangeTask, ...]


def plan_export(
    source: FlatStateSource, context: EpochContext, shard: ShardContext, settings: ExportSettings
) -> ShardExport | ShardDataset:
    """Split a shard's export into tasks; return the dataset where an earlier run has finished it.

    Raises:
        SourceError: the source can't give the shard's flat state at the wanted block.
    """
    shard_context = replace(context, shards=(shard,))
    fingerprint = f"{source.fingerprint(shard)}:{settings.range_bytes_target}:{settings.file_format}"
    earlier = find_readable_shard(settings.dataset_url, shard_context)
    if (
        earlier is not None
        and earlier.summary.fingerprint == fingerprint
        and earlier.summary.shard.state_root == shard.state_root
        and earlier.is_whole()
    ):
        return earlier
    memory_usage = source.root_memory_usage(shard)
    ranges = source.key_ranges(shard, settings.range_bytes_target)
    if earlier is None:
        # Only now: the source can give the shard.
        discard_unreadable_shard(settings.dataset_url, shard_context)
    tasks = tuple(
        ExportRangeTask(source, shard_context, settings, key_range, index, fingerprint, memory_usage)
        for index, key_range in enumerate(ranges)
    )
    return ShardExport(source, shard_context, fingerprint, tasks)


def find_readable_shard(url: str, context: EpochContext) -> ShardDataset | None:
    """Return an exported shard; None when it is not there, or can't be decoded, as one of another format.

    Args:
        context: of this shard alone.
    """
    try:
        return load_shard(url, context, context.shards[0].shard_uid)
    except DatasetError:
        return None


def discard_unreadable_shard(url: str, context: EpochContext) -> None:
    """Remove what has been exported of a shard in another format, before it is exported again: names of files differ.

    Args:
        context: of this shard alone.
    """
    store, folder = open_store(url), shard_folder(context, context.shards[0].shard_uid)
    if store.info(f"{folder}/{SUMMARY_NAME}") is not None and find_readable_shard(url, context) is None:
        _discard_folder(store, folder)


def finish_export(
    export: ShardExport, settings: ExportSettings, summaries: Sequence[RangeSummary], values: Sequence[CopiedValues]
) -> ShardDataset:
    """Write ``shard.json``: from here on the dataset is complete.

    Args:
        summaries: in the order of the export's tasks.
        values: in the order of `pipelines.dataset.export.export_values.plan_values`' tasks.
    Raises:
        RecordOrderError: the files of adjacent ranges overlap.
    """
    files = tuple(file for summary in summaries for file in summary.files)
    for left, right in itertools.pairwise(files):
        if left.last_key >= right.first_key:
            raise RecordOrderError(problem="key ranges of the export overlap", where=f"{left.name}, {right.name}")
    shard = export.context.shards[0]
    header = export.source.state_header(shard, export.context.sync_hash)
    put_state_header(settings, export.context, header)
    summary = DatasetSummary(
        context=export.context,
        source=export.source.describe(),
        fingerprint=export.fingerprint,
        files=files,
        values_files=tuple(file for copied in values for file in copied.own),
        shared_values_files=tuple(file for copied in values for file in copied.shared),
        state_header_origin=header.origin,
        state_header_reason=header.reason,
        verified_state_header_sha256=header.verified_sha256,
    )
    remove_unnamed(settings.dataset_url, summary)
    return store_summary(settings.dataset_url, summary)


def put_state_header(settings: ExportSettings, context: EpochContext, header: FoundStateHeader) -> None:
    """Put a shard's state header into its dataset, if there is one; `DatasetSummary.state_header_origin` tells that it is there.

    Args:
        context: of this shard alone.
    """
    if header.data is not None:
        settings.read_dataset().put(f"{shard_folder(context, context.shards[0].shard_uid)}/state_header", header.data)


def store_summary(url: str, summary: DatasetSummary, summary_name: str = SUMMARY_NAME) -> ShardDataset:
    """Write or replace a shard's ``shard.json``, or another summary in its folder."""
    dataset = ShardDataset.of(url, summary, summary_name)
    open_store(url).put(f"{dataset.folder}/{summary_name}", summary.to_bytes())
    return dataset


def remove_unnamed(url: str, summary: DatasetSummary) -> None:
    """Remove files of an earlier plan before ``shard.json`` is written: a reader that lists the folder would take them for the shard's."""
    store, folder = open_store(url), shard_folder(summary.context, summary.shard.shard_uid)
    named = {f"{folder}/{file.name}" for file in summary.all_files}
    places = tuple(f"{folder}/{place}/" for place in _DATA_FOLDERS)
    strays = [info.name for info in store.list(folder) if info.name.startswith(places) and info.name not in named]
    for name in (f"{folder}/{SUMMARY_NAME}", *strays) if strays else ():
        store.delete(name)


def discard_export(dataset: ShardDataset) -> None:
    """Remove a shard's dataset, its summary first: from then on it is not taken for one."""
    _discard_folder(open_store(dataset.url), dataset.folder)


def _discard_folder(store: Store, folder: str) -> None:
    store.delete(f"{folder}/shard.json")
    store.delete_folder(folder)


def _earlier_summary(store: Store, folder: str, name: str, fingerprint: str) -> RangeSummary | None:
    data = find_document(store, name, SUMMARY_BYTES_MAX)
    summary = None if data is None else range_summary_from_bytes(data, fingerprint, name)
    if summary is None:
        return None
    for file in summary.files:
        info = store.info(f"{folder}/{file.name}")
        if info is None or info.size != file.size:
            return None
    return summary


def _noting_references(
    batches: Iterator[pa.RecordBatch], references: list[pa.RecordBatch], key_range: KeyRange, where: str
) -> Iterator[pa.RecordBatch]:
    """Pass batches on, collecting references and checking that keys ascend across batches and stay in the range."""
    last_key: bytes | None = None
    for batch in batches:
        if not batch.num_rows:
            continue
        first = batch.column(0)[0].as_py()
        if (last_key is not None and first <= last_key) or first < key_range.begin:
            raise RecordOrderError(problem=f"the source's keys do not ascend at {first.hex()}", where=where)
        last_key = batch.column(0)[batch.num_rows - 1].as_py()
        if key_range.end is not None and last_key >= key_range.end:
            raise RecordOrderError(problem=f"the source gave key {last_key.hex()} past the end of its range", where=where)
        if (referring := references_in(batch)) is not None:
            references.append(referring)
        yield batch
