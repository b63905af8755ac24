"""Export: a source's flat state becomes an Arrow dataset, one task a key range, then one task a range of value hashes.

The driver (`plan_export`, `finish_export`) sees summaries only. From the moment that a shard's ``shard.json`` is written, nothing
later needs the source; boundary nodes are still taken from it where it has them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.sources.arrow_dataset import ShardDataset, load_shard
from pipelines.sources.protocol import FlatStateSource, FoundStateHeader, KeyRange, find_state_header
from pipelines.stages.record_files import RECORDS_FILE_BYTES_TARGET, FileDestination, FileFormat, write_record_files, write_values_files
from pipelines.stores.open_store import open_store
from pipelines.stores.protocol import Store
from schemas.dataset import (
    DatasetShard,
    RangeSummary,
    ValuesFile,
    range_summary_from_bytes,
    range_summary_to_bytes,
    schema_metadata,
    shard_folder,
)
from schemas.epoch_context import EpochContext, ShardContext
from schemas.errors import DatasetError, ObjectNotFoundError, RecordOrderError, ValueMismatchError
from schemas.flat_state import RECORD_SCHEMA, VALUE_SCHEMA

RANGE_BYTES_TARGET = 64 << 20
"""Stored bytes that one export task reads, about: small enough that a small shard too keeps several cores busy."""

RECORD_BATCH_BYTES_MAX = 4 << 20
"""Bytes of one record batch of records, about."""

VALUES_BATCH_BYTES_MAX = 512 << 10
"""Bytes of one record batch of referenced values, about: what reading a single value costs at least. The summary has a hash a batch."""

VALUES_TASK_BYTES_TARGET = 32 << 20
"""Bytes of referenced values that one task copies, about."""

VALUES_TASKS_MAX = 4096
"""Most tasks that a shard's referenced values are split into."""

_REFERENCE_SCHEMA = pa.schema(
    [pa.field("value_hash", pa.binary(32), nullable=False), pa.field("value_length", pa.uint32(), nullable=False)]
)


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
    """Wait for the disk with every file; False for a dataset that nobody keeps, whose damage the state root would show."""

    def open_dataset(self) -> Store:
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
        store = self.settings.open_dataset()
        folder = shard_folder(self.context, self.shard.shard_uid)
        summary_name = f"{folder}/ranges/range-{self.range_index:06d}.json"
        earlier = _earlier_summary(store, folder, summary_name, self.fingerprint)
        if earlier is not None:
            return earlier
        schema = RECORD_SCHEMA.with_metadata(schema_metadata(self.context, self.shard, self.memory_usage))
        references: dict[bytes, int] = {}
        batches = self.source.records(self.shard, self.key_range, self.settings.record_batch_bytes_max)
        files = tuple(
            write_record_files(
                _noting_references(batches, references, self.key_range, str(self.shard.shard_uid)),
                schema,
                f"flat_state/range-{self.range_index:06d}",
                self.settings.destination(store, folder),
            )
        )
        _put_references(store, folder, self.range_index, references)
        summary = RangeSummary(files, len(references), sum(references.values()))
        store.put(summary_name, range_summary_to_bytes(summary, self.fingerprint))
        return summary


@dataclass(frozen=True, slots=True)
class ExportValuesTask:
    """Copies the referenced values whose hashes begin in one interval, each once."""

    source: FlatStateSource
    context: EpochContext
    settings: ExportSettings
    task_index: int
    task_count: int
    range_count: int
    fingerprint: str

    def run(self) -> tuple[ValuesFile, ...]:
        """Write the values' files.

        Raises:
            ValueMismatchError: a value is missing or does not hash, or two records give one hash two lengths.
            SourceError, StoreError: as they say.
        """
        store = self.settings.open_dataset()
        shard = self.context.shards[0]
        folder = shard_folder(self.context, shard.shard_uid)
        references: dict[bytes, int] = {}
        for range_index in range(self.range_count):
            for value_hash, length in _references(store, folder, range_index):
                if int.from_bytes(value_hash[:2], "big") * self.task_count >> 16 != self.task_index:
                    continue
                if references.setdefault(value_hash, length) != length:
                    raise ValueMismatchError(
                        problem=f"records give the value {value_hash.hex()} two lengths", where=f"shard {shard.shard_uid}"
                    )
        batches = self.source.values(shard, sorted(references), VALUES_BATCH_BYTES_MAX)
        schema = VALUE_SCHEMA.with_metadata(schema_metadata(self.context, shard, None))
        stem = f"values/values-{self.task_index:04d}"
        return tuple(write_values_files(_checking_lengths(batches, references), schema, stem, self.settings.destination(store, folder)))


@dataclass(frozen=True, slots=True)
class ShardExport:
    """The plan of one shard's export; ``done`` is the dataset when an earlier run finished it."""

    context: EpochContext
    fingerprint: str
    tasks: tuple[ExportRangeTask, ...]
    done: ShardDataset | None


def plan_export(source: FlatStateSource, context: EpochContext, shard: ShardContext, settings: ExportSettings) -> ShardExport:
    """Split a shard's export into tasks, or find it done.

    Raises:
        SourceError: the source can't give the shard's flat state at the wanted block.
    """
    shard_context = replace(context, shards=(shard,))
    fingerprint = f"{source.fingerprint(shard)}:{settings.range_bytes_target}:{settings.file_format}"
    earlier = load_shard(settings.dataset_url, context, shard.shard_uid)
    if (
        earlier is not None
        and earlier.summary.fingerprint == fingerprint
        and earlier.summary.shard.state_root == shard.state_root
        and _is_whole(earlier)
    ):
        return ShardExport(shard_context, fingerprint, (), earlier)
    memory_usage = source.root_memory_usage(shard)
    ranges = source.key_ranges(shard, settings.range_bytes_target)
    tasks = tuple(
        ExportRangeTask(source, shard_context, settings, key_range, index, fingerprint, memory_usage)
        for index, key_range in enumerate(ranges)
    )
    return ShardExport(shard_context, fingerprint, tasks, None)


def plan_values(export: ShardExport, summaries: Sequence[RangeSummary]) -> tuple[ExportValuesTask, ...]:
    """Split the copying of a shard's referenced values into tasks."""
    reference_bytes = sum(summary.reference_bytes for summary in summaries)
    if not reference_bytes:
        return ()
    first = export.tasks[0]
    task_count = min(VALUES_TASKS_MAX, -(-reference_bytes // VALUES_TASK_BYTES_TARGET))
    return tuple(
        ExportValuesTask(first.source, export.context, first.settings, index, task_count, len(export.tasks), export.fingerprint)
        for index in range(task_count)
    )


def finish_export(
    export: ShardExport,
    source: FlatStateSource,
    settings: ExportSettings,
    summaries: Sequence[RangeSummary],
    values: Sequence[Sequence[ValuesFile]],
) -> ShardDataset:
    """Write ``shard.json``: from here on the dataset is complete.

    Args:
        summaries: in the order of the export's tasks.
        values: in the order of `plan_values`' tasks.
    Raises:
        RecordOrderError: the files of adjacent ranges overlap.
    """
    files = tuple(file for summary in summaries for file in summary.files)
    for left, right in itertools.pairwise(files):
        if left.last_key >= right.first_key:
            raise RecordOrderError(problem="key ranges of the export overlap", where=f"{left.name}, {right.name}")
    shard = export.context.shards[0]
    header = find_state_header(source, shard, export.context.sync_hash)
    put_state_header(settings, export.context, header)
    summary = DatasetShard(
        context=export.context,
        source=source.describe(),
        fingerprint=export.fingerprint,
        files=files,
        values_files=tuple(file for group in values for file in group),
        state_header_origin=header.origin,
        state_header_reason=header.reason,
        verified_state_header_sha256=header.verified_sha256,
    )
    return store_summary(ShardDataset(settings.dataset_url, summary))


def put_state_header(settings: ExportSettings, context: EpochContext, header: FoundStateHeader) -> None:
    """Put a shard's state header into its dataset, if there is one; `DatasetShard.state_header_origin` tells that it is there.

    Args:
        context: of this shard alone.
    """
    if header.data is not None:
        settings.open_dataset().put(f"{shard_folder(context, context.shards[0].shard_uid)}/state_header", header.data)


def store_summary(dataset: ShardDataset) -> ShardDataset:
    """Write or replace a shard's ``shard.json``."""
    open_store(dataset.url).put(f"{dataset.folder}/shard.json", dataset.summary.to_bytes())
    return dataset


def discard_export(dataset: ShardDataset) -> None:
    """Remove a shard's dataset, its summary first: from then on it is not taken for one."""
    store = open_store(dataset.url)
    store.delete(f"{dataset.folder}/shard.json")
    for info in list(store.list(dataset.folder)):
        store.delete(info.name)


def _is_whole(dataset: ShardDataset) -> bool:
    """Tell whether all files of a dataset are there in their sizes, and its state header as it was put."""
    try:
        dataset.state_header()
    except DatasetError:
        return False
    store = open_store(dataset.url)
    sizes = {info.name: info.size for info in store.list(dataset.folder)}
    return all(sizes.get(f"{dataset.folder}/{file.name}") == file.size for file in dataset.summary.all_files)


def _earlier_summary(store: Store, folder: str, name: str, fingerprint: str) -> RangeSummary | None:
    try:
        summary = range_summary_from_bytes(store.get(name), fingerprint, name)
    except ObjectNotFoundError:
        return None
    if summary is None:
        return None
    for file in summary.files:
        info = store.info(f"{folder}/{file.name}")
        if info is None or info.size != file.size:
            return None
    return summary


def _noting_references(
    batches: Iterator[pa.RecordBatch], references: dict[bytes, int], key_range: KeyRange, where: str
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
        if batch.column(3).null_count != batch.num_rows:
            referring = batch.filter(pc.is_valid(batch.column(3)))
            for value_hash, length in zip(referring.column(3).to_pylist(), referring.column(2).to_pylist(), strict=True):
                if references.setdefault(value_hash, length) != length:
                    raise ValueMismatchError(problem=f"records give the value {value_hash.hex()} two lengths", where=where)
        yield batch


def _checking_lengths(batches: Iterator[pa.RecordBatch], references: dict[bytes, int]) -> Iterator[pa.RecordBatch]:
    """Pass value batches on; each must be one that was asked for, in its length, and none may be left out."""
    left = set(references)
    for batch in batches:
        for value_hash, length in zip(batch.column(0).to_pylist(), pc.binary_length(batch.column(1)).to_pylist(), strict=True):
            if references.get(value_hash) != length:
                raise ValueMismatchError(
                    problem=f"the value {value_hash.hex()} has {length} bytes, its records say {references.get(value_hash)}"
                )
            left.discard(value_hash)
        yield batch
    if left:
        raise ValueMismatchError(problem=f"{len(left)} referenced values were not found, among them {min(left).hex()}")


def _references_name(folder: str, range_index: int) -> str:
    return f"{folder}/ranges/range-{range_index:06d}.references.arrow"


def _put_references(store: Store, folder: str, range_index: int, references: dict[bytes, int]) -> None:
    hashes = sorted(references)
    table = pa.table(
        {"value_hash": pa.array(hashes, pa.binary(32)), "value_length": pa.array([references[h] for h in hashes], pa.uint32())},
        _REFERENCE_SCHEMA,
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, _REFERENCE_SCHEMA) as writer:
        writer.write_table(table)
    store.put(_references_name(folder, range_index), sink.getvalue())


def _references(store: Store, folder: str, range_index: int) -> Iterator[tuple[bytes, int]]:
    with store.open(_references_name(folder, range_index)) as source:
        table = pa.ipc.open_file(source).read_all()
    return zip(table.column("value_hash").to_pylist(), table.column("value_length").to_pylist(), strict=True)
