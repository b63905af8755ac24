"""The records that a chain of deltas makes of a base state: read by key ranges, never written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dataset.delta.record_changes import within_ranges
from pipelines.dataset.delta.shard_records import RangeRecords, ReadValues, ShardRecords
from pipelines.dataset.delta.stored_delta import StoredDelta
from pipelines.dataset.roll_forward.merge_changes import merge_records
from pipelines.near.node.flat_state_source import KeyRange
from schemas.errors import EpochNotReadyError, InvalidInputError, StateRootMismatchError
from schemas.published.delta_statement import WHOLE_BASE, DeltaEnd

CHANGES_BYTES_MAX: Final = 512 << 20
"""Most bytes of one delta within one part's keys: nobody vouches for a delta before its shard is rebuilt. A part has some 30 MB, or one subtree more."""


@dataclass(frozen=True, slots=True)
class AppliedRecords:
    """A base state with deltas applied, one after the other. Whether it is the target's state only the target's root can tell."""

    base: ShardRecords
    steps: tuple[StoredDelta, ...]
    """From the base to the target; each leads from where the one before leads to."""

    @classmethod
    def of(cls, base: ShardRecords, end: DeltaEnd, steps: Sequence[StoredDelta], target: DeltaEnd, chain_id: str) -> AppliedRecords:
        """Return what a chain of deltas makes of a base, once it is sure by their statements that it leads to the target.

        Args:
            end: the state that the base is of.
            chain_id: of base and target.
        Raises:
            InvalidInputError: a delta is of another chain.
            StateRootMismatchError: the base, or the state that a delta leads from, has another state root.
            EpochNotReadyError: a rung is missing: a delta leads from another epoch or shard than the one before leads to.
        """
        _check_chain(end, chain_id, steps, target)
        return cls(base, tuple(steps))

    def begins(self) -> tuple[bytes, ...]:
        """See `ShardRecords.begins`: the base's pieces."""
        return self.base.begins()

    def read(self, key_range: KeyRange) -> RangeRecords:
        """See `ShardRecords.read`: of at most a part's keys, which is what a rebuilding asks for."""
        found = self.base.read(key_range)
        records = [batch.replace_schema_metadata(None) for batch in found.records]
        values: list[pa.RecordBatch] = []
        for step in self.steps:
            if step.statement.base_ranges != WHOLE_BASE:
                records = within_ranges(records, step.statement.base_ranges)
            changes = step.changes(key_range, CHANGES_BYTES_MAX)
            if changes.records:
                records = merge_records(records, changes.records)
            values += (batch for batch in changes.values if batch.num_rows)
        return RangeRecords(tuple(records), _with_values(found.read_values, values))

    def content_of(self, key_range: KeyRange) -> str | None:
        """See `ShardRecords.content_of`: only reading tells."""
        return None


def _with_values(read_base: ReadValues, values: Sequence[pa.RecordBatch]) -> ReadValues:
    if not values:
        return read_base
    known = pa.concat_arrays([batch["value_hash"] for batch in values])

    def read(records: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
        rest = [batch.filter(pc.invert(pc.is_in(batch["value_hash"], value_set=known))) for batch in records]
        return [*values, *read_base([batch for batch in rest if batch.num_rows])]

    return read


def _check_chain(base: DeltaEnd, chain_id: str, steps: Sequence[StoredDelta], target: DeltaEnd) -> None:
    at = base
    for step in steps:
        statement = step.statement
        if statement.chain_id != chain_id:
            raise InvalidInputError(problem=f"the delta is of chain {statement.chain_id}, not {chain_id}", where=step.where)
        _check_same(at, statement.base, step.where)
        at = statement.target
    _check_same(at, target, steps[-1].where if steps else f"epoch {base.epoch_height}")


def _check_same(at: DeltaEnd, wanted: DeltaEnd, where: str) -> None:
    if (at.epoch_id, at.shard_uid) != (wanted.epoch_id, wanted.shard_uid):
        raise EpochNotReadyError(
            problem=f"no delta leads from shard {at.shard_uid} of epoch {at.epoch_height} ({at.epoch_id}) "
            f"to shard {wanted.shard_uid} of epoch {wanted.epoch_height} ({wanted.epoch_id})",
            where=where,
            remedy="Take another base, or whole parts.",
        )
    if at.state_root != wanted.state_root:
        raise StateRootMismatchError(
            problem=f"shard {at.shard_uid} of epoch {at.epoch_height} has another state root than the one that the delta leads from or to",
            where=where,
            remedy="The base is of another chain or was changed: take another, or whole parts.",
            expected=str(wanted.state_root),
            actual=str(at.state_root),
        )
