"""The records of a shard by key ranges, out of its state parts: those of a folder, or of a bucket, of which only what is asked for is read."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dataset.delta.shard_records import RangeRecords
from pipelines.dataset.roll_forward.merge_changes import cut_to_range
from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.trie_kernel import AppliedPart
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.restoring.part_object import PartObject, located
from schemas.errors import IntegrityError, ValueMismatchError
from schemas.ids import PartId
from schemas.published.manifest import Manifest
from schemas.published.shard_statement import ShardStatement


@dataclass(frozen=True, slots=True)
class RecordsInParts:
    """A shard's parts as `pipelines.dataset.delta.shard_records.ShardRecords`."""

    parts: tuple[PartObject, ...]
    """Adjacent ones, ascending."""
    part_begins: tuple[bytes, ...]
    """First key of each part's interval, by the shard's statement."""
    kernel_name: str

    @classmethod
    def of_shard(cls, store_url: str, manifest: Manifest, statement: ShardStatement, kernel_name: str) -> RecordsInParts:
        """Return the records of a published shard; whether its parts are there shows when they are read."""
        layout = manifest.layout
        listed = manifest.shard(statement.shard_id)
        assert listed is not None, "the statement is of a listed shard"
        stored = {part.part_id: part.sha256 for part in listed.parts}
        parts = tuple(
            PartObject(
                store_url,
                layout.state_part(listed.shard_id, PartId(part.part_id, listed.num_parts)),
                PartId(part.part_id, listed.num_parts),
                listed.state_root,
                manifest.encoding,
                stored.get(part.part_id),
                part.sha256,
            )
            for part in statement.parts
        )
        return cls(parts, tuple(part.key_begin for part in statement.parts), kernel_name)

    def begins(self) -> tuple[bytes, ...]:
        """Return where the parts begin; parts without keys begin where the next does."""
        return tuple(dict.fromkeys((b"", *self.part_begins)))

    def read(self, key_range: KeyRange) -> RangeRecords:
        """Read the records of a key range.

        Raises:
            IntegrityError, StoreError: a part is not what it should be, or can't be read; it is named.
        """
        first = max(0, bisect_right(self.part_begins, key_range.begin) - 1)
        # Of parts that begin at the same key all but the last have no keys.
        end = len(self.parts) if key_range.end is None else bisect_left(self.part_begins, key_range.end)
        records: list[pa.RecordBatch] = []
        values: list[pa.RecordBatch] = []
        for part in self.parts[first:end]:
            applied = applied_part(part, self.kernel_name)
            records += (cut_to_range(batch, "key", key_range) for batch in applied.records)
            values += applied.values

        def read_values(wanted: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
            return _chosen(values, wanted)

        return RangeRecords(tuple(batch for batch in records if batch.num_rows), read_values)

    def content_of(self, key_range: KeyRange) -> str | None:
        """Return None: a part holds the way from the root, which changes with any record."""
        return None


@lru_cache(maxsize=2)
def applied_part(part: PartObject, kernel_name: str) -> AppliedPart:
    """Return a part's records; adjacent key ranges, which a process works on one after another, mostly lie in the same two parts.

    Raises:
        IntegrityError, StoreError: the part is not what it should be, or can't be read; it is named.
    """
    decoded = part.read()
    try:
        return choose_kernel(kernel_name).apply(decoded, part.state_root, part.part_id)
    except IntegrityError as error:
        raise located(error, part.where) from None


def _chosen(values: Sequence[pa.RecordBatch], wanted: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Return the values that some records refer to."""
    hashes = pa.concat_arrays([pa.array([], pa.binary(32)), *(batch["value_hash"].drop_null() for batch in wanted)]).unique()
    found = [batch.filter(pc.is_in(batch["value_hash"], value_set=hashes)) for batch in values] if len(hashes) else []
    there = pa.concat_arrays([pa.array([], pa.binary(32)), *(batch["value_hash"] for batch in found)])
    missing = hashes.filter(pc.invert(pc.is_in(hashes, value_set=there)))
    if len(missing):
        raise ValueMismatchError(problem=f"no part of the range holds the value with sha256 {missing[0].as_py().hex()}")
    return [batch for batch in found if batch.num_rows]
