"""Where a part's records are read from: an exported dataset, or the source itself, where no dataset is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from pipelines.dataset.arrow_dataset import DatasetReference, read_dataset
from pipelines.dataset.export.export_records import RECORD_BATCH_BYTES_MAX
from pipelines.near.node.flat_state_source import FlatStateSource, KeyRange
from pipelines.producing.build.plan_parts import PartPlan
from schemas.errors import SourceChangedError
from schemas.nearcore.epoch_context import ShardContext


class PartRecords(Protocol):
    """Reads the records of a shard's parts: a frozen, picklable value of one size, whatever the shard's."""

    @property
    def on_node_disk(self) -> bool:
        """Only where the node's disk is can this be read."""
        ...

    def read(self, plan: PartPlan) -> list[pa.RecordBatch]:
        """Return a part's records, ascending, as ``RECORD_SCHEMA``.

        Raises:
            DatasetError, SourceError, IntegrityError, StoreError: they can't be read.
        """
        ...

    def read_values(self, records: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
        """Return the values that records refer to, each once, as ``VALUE_SCHEMA``.

        Raises:
            ValueMismatchError: a value is missing.
            DatasetError, SourceError, StoreError: they can't be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class DatasetRecords:
    """The records of an exported dataset."""

    dataset: DatasetReference
    on_node_disk: bool = False

    def read(self, plan: PartPlan) -> list[pa.RecordBatch]:
        """See `PartRecords.read`."""
        dataset = read_dataset(self.dataset)
        return [batch for span in plan.spans for batch in dataset.read_span(span)]

    def read_values(self, records: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
        """See `PartRecords.read_values`."""
        return read_dataset(self.dataset).read_values(records)


@dataclass(frozen=True, slots=True)
class SourceRecords:
    """The records of a shard as its source gives them: each part's are read by its own key interval."""

    source: FlatStateSource
    shard: ShardContext

    @property
    def on_node_disk(self) -> bool:
        """See `PartRecords.on_node_disk`."""
        return self.source.on_node_disk

    def read(self, plan: PartPlan) -> list[pa.RecordBatch]:
        """See `PartRecords.read`.

        Raises:
            SourceChangedError: they are others than those that the part was planned by.
        """
        batches = list(self.source.records(self.shard, KeyRange(plan.key_begin, plan.key_end), RECORD_BATCH_BYTES_MAX))
        rows = sum(batch.num_rows for batch in batches)
        first_key = batches[0].column(0)[0].as_py() if rows else None
        if rows != plan.records or (plan.key_begin and first_key != plan.key_begin):
            raise SourceChangedError(
                problem=f"part {plan.part_id} has {rows} records now, it had {plan.records} when it was planned"
                if rows != plan.records
                else f"part {plan.part_id} begins with another record than when it was planned",
                where=f"shard {self.shard.shard_uid} of {self.source.describe()}",
                remedy="Run again: the source is then read again. If it stays so, the database is damaged.",
            )
        return batches

    def read_values(self, records: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
        """See `PartRecords.read_values`."""
        hashes = dict.fromkeys(
            value_hash
            for batch in records
            if batch.column(3).null_count < batch.num_rows
            for value_hash in batch.column(3).drop_null().to_pylist()
        )
        return list(self.source.values(self.shard, list(hashes), RECORD_BATCH_BYTES_MAX)) if hashes else []
