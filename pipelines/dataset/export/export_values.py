"""Copies referenced values from a source into a dataset: own values beside their records, shared values once and by hash.

A value that one record alone refers to is written where its record stands among its range's, so that a reader of adjacent records
finds their values adjacent. A value that several records refer to can't be beside all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dataset.export.export_records import CopiedValues, ExportSettings, ShardExport
from pipelines.dataset.export.references import FindSharedTask, SharedReferences, read_own_references, read_shared
from pipelines.dataset.record_files import write_values_files
from pipelines.near.node.flat_state_source import FlatStateSource
from schemas.dataset.dataset_summary import RangeSummary, schema_metadata, shard_folder
from schemas.dataset.flat_state import OWN_VALUE_SCHEMA, VALUE_SCHEMA
from schemas.errors import ValueMismatchError
from schemas.nearcore.epoch_context import EpochContext

OWN_VALUES_BATCH_BYTES_MAX = 1 << 20
"""Bytes of one record batch of own values, about: a part reads half a batch too much at both ends. The summary has a key a batch."""

SHARED_VALUES_BATCH_BYTES_MAX = 512 << 10
"""Bytes of one record batch of shared values, about: what reading a single one costs at least. The summary has a hash a batch."""

VALUES_TASK_BYTES_TARGET = 32 << 20
"""Bytes of referenced values that one task copies, about."""

SHARING_TASK_REFERENCES = 1 << 20
"""References that one task looks through for shared values, about; it holds all of them."""

SHARING_TASKS_MAX = 1 << 12
"""Most tasks that a shard's references are split into; by the first 16 bits of a hash no more than 65,536 could be."""


@dataclass(frozen=True, slots=True)
class ExportOwnValuesTask:
    """Copies some of the values that a range's records refer to and no other record does."""

    source: FlatStateSource
    context: EpochContext
    settings: ExportSettings
    range_index: int
    piece: int
    """Of those of the range: values that begin within the piece's `VALUES_TASK_BYTES_TARGET` bytes."""
    sharing: tuple[int, ...]
    """Intervals of hashes in which the range refers to shared values."""

    def run(self) -> CopiedValues:
        """Write the values' files.

        Raises:
            ValueMismatchError: a value is missing, does not hash or does not have its record's length.
            SourceError, StoreError: passed on.
        """
        store = self.settings.read_dataset()
        shard = self.context.shards[0]
        folder = shard_folder(self.context, shard.shard_uid)
        references = _piece(read_own_references(store, folder, self.range_index, self.sharing), self.piece)
        hashes = references["value_hash"].to_pylist()
        batches = _checking_lengths(
            self.source.values(shard, hashes, OWN_VALUES_BATCH_BYTES_MAX), hashes, references["value_length"].to_pylist()
        )
        schema = OWN_VALUE_SCHEMA.with_metadata(schema_metadata(self.context, shard, None))
        stem = f"values/range-{self.range_index:06d}-{self.piece:04d}"
        keyed = _with_keys(batches, references["key"].combine_chunks())
        return CopiedValues(own=tuple(write_values_files(keyed, schema, stem, self.settings.destination(store, folder))))


@dataclass(frozen=True, slots=True)
class ExportSharedValuesTask:
    """Copies some of the shared values of one interval of hashes, each once."""

    source: FlatStateSource
    context: EpochContext
    settings: ExportSettings
    interval: int
    piece: int

    def run(self) -> CopiedValues:
        """Write the values' files.

        Raises:
            As `ExportOwnValuesTask`.
        """
        store = self.settings.read_dataset()
        shard = self.context.shards[0]
        folder = shard_folder(self.context, shard.shard_uid)
        shared = _piece(read_shared(store, folder, self.interval), self.piece)
        hashes = shared["value_hash"].to_pylist()
        batches = _checking_lengths(
            self.source.values(shard, hashes, SHARED_VALUES_BATCH_BYTES_MAX), hashes, shared["value_length"].to_pylist()
        )
        schema = VALUE_SCHEMA.with_metadata(schema_metadata(self.context, shard, None))
        stem = f"shared_values/shared-{self.interval:04d}-{self.piece:04d}"
        return CopiedValues(shared=tuple(write_values_files(batches, schema, stem, self.settings.destination(store, folder))))


def plan_sharing(export: ShardExport, summaries: Sequence[RangeSummary]) -> tuple[FindSharedTask, ...]:
    """Split the search for shared values into tasks; there is none where no record refers to a value.

    Args:
        summaries: in the order of the export's tasks.
    """
    references = sum(summary.reference_count for summary in summaries)
    count = min(SHARING_TASKS_MAX, -(-references // SHARING_TASK_REFERENCES))
    sizes = tuple(summary.reference_bytes for summary in summaries)
    return tuple(FindSharedTask(export.tasks[0].settings.dataset_url, export.context, sizes, interval, count) for interval in range(count))


def plan_values(
    export: ShardExport, summaries: Sequence[RangeSummary], sharing: Sequence[SharedReferences]
) -> tuple[ExportOwnValuesTask | ExportSharedValuesTask, ...]:
    """Split the copying of a shard's referenced values into tasks: own ones by their records, then shared ones by hash.

    Args:
        summaries: in the order of the export's tasks.
        sharing: in the order of `plan_sharing`'s tasks.
    """
    tasks: list[ExportOwnValuesTask | ExportSharedValuesTask] = []
    for index, (task, summary) in enumerate(zip(export.tasks, summaries, strict=True)):
        own_bytes = summary.reference_bytes - sum(found.range_bytes[index] for found in sharing)
        where = tuple(found.interval for found in sharing if found.range_bytes[index])
        pieces = range(-(-own_bytes // VALUES_TASK_BYTES_TARGET))
        tasks += (ExportOwnValuesTask(task.source, export.context, task.settings, index, piece, where) for piece in pieces)
    for found in sharing:
        settings, pieces = export.tasks[0].settings, range(-(-found.value_bytes // VALUES_TASK_BYTES_TARGET))
        tasks += (ExportSharedValuesTask(export.source, export.context, settings, found.interval, piece) for piece in pieces)
    return tuple(tasks)


def _piece(references: pa.Table, piece: int) -> pa.Table:
    """Return the rows whose values begin within a piece's bytes, if they are laid one behind the other."""
    lengths = references["value_length"].to_numpy().astype(np.int64)
    begins = np.cumsum(lengths) - lengths
    first, end = np.searchsorted(begins, (piece * VALUES_TASK_BYTES_TARGET, (piece + 1) * VALUES_TASK_BYTES_TARGET))
    return references.slice(int(first), int(end - first))


def _checking_lengths(batches: Iterator[pa.RecordBatch], hashes: Sequence[bytes], lengths: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """Pass value batches on; they must be those that were asked for, in their lengths and their order, and none may be left out."""
    row = 0
    for batch in batches:
        for value_hash, length in zip(
            batch.column("value_hash").to_pylist(), pc.binary_length(batch.column("value")).to_pylist(), strict=True
        ):
            if row == len(hashes) or value_hash != hashes[row]:
                raise _not_found(hashes[row] if row < len(hashes) else value_hash)
            if length != lengths[row]:
                raise ValueMismatchError(problem=f"the value {value_hash.hex()} has {length} bytes, its records say {lengths[row]}")
            row += 1
        yield batch
    if row < len(hashes):
        raise _not_found(hashes[row])


def _not_found(value_hash: bytes) -> ValueMismatchError:
    return ValueMismatchError(problem=f"the source did not give the referenced value {value_hash.hex()}")


def _with_keys(batches: Iterator[pa.RecordBatch], keys: pa.Array) -> Iterator[pa.RecordBatch]:
    """Put the keys beside values, which are in the same order."""
    row = 0
    for batch in batches:
        columns = [keys.slice(row, batch.num_rows), batch.column("value_hash"), batch.column("value")]
        yield pa.RecordBatch.from_arrays(columns, schema=OWN_VALUE_SCHEMA)
        row += batch.num_rows
