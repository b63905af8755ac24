"""State parts as what the export reads: one key range a part, its records by applying the part.

The keys at which parts begin are known only once a part is applied, so `key_ranges` gives as many ranges as parts without bounds,
and `of_part` makes the source of one range; the export itself checks that the ranges' files ascend and do not overlap. Referenced
values, which only the part of their key holds whole, are put beside the dataset until it is complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from pipelines.dataset.dataset_files import read_table
from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.trie_kernel import AppliedPart
from pipelines.near.node.flat_state_source import NO_STATE_HEADER, FoundStateHeader, KeyRange
from pipelines.near.record_batches import bounded
from pipelines.restoring.part_folder import EpochParts, ShardParts
from pipelines.restoring.part_object import PartObject, located
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import read_object
from schemas.dataset.dataset_summary import shard_folder
from schemas.dataset.flat_state import VALUE_SCHEMA
from schemas.errors import DatasetError, IntegrityError, ValueMismatchError
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.state_header import STATE_HEADER_BYTES_MAX, HeaderOrigin


@dataclass(frozen=True, slots=True)
class PartsSource:
    """One shard's parts as a `FlatStateSource`."""

    context: EpochContext
    """Of this shard alone."""
    shard: ShardParts
    """With all its parts, or the one of a range."""
    dataset_url: str
    """Where the values are kept meanwhile."""
    kernel_name: str
    url: str
    """Of the epoch's folder, for people."""
    store_url: str
    on_node_disk: bool = False

    @classmethod
    def of_shard(cls, epoch: EpochParts, shard: ShardParts, dataset_url: str, kernel_name: str) -> PartsSource:
        """Return the source of a shard."""
        return cls(
            context=replace(epoch.context, shards=(shard.context,)),
            shard=shard,
            dataset_url=dataset_url,
            kernel_name=kernel_name,
            url=epoch.url,
            store_url=epoch.store_url,
        )

    def of_part(self, index: int) -> PartsSource:
        """Return the source of one part's range alone, which is small to send to a worker."""
        return replace(self, shard=replace(self.shard, parts=(self.shard.parts[index],)))

    def describe(self) -> str:
        """Return what is read, for people."""
        return f"state parts at {self.url}"

    def fingerprint(self, shard: ShardContext) -> str:
        """Return a text that changes when the records could: root and number of parts say which records a part has."""
        return f"parts-{hashlib.sha256(f'{shard.shard_uid} {shard.state_root} {len(self.shard.parts)}'.encode()).hexdigest()[:32]}"

    def key_ranges(self, shard: ShardContext, range_bytes_target: int) -> tuple[KeyRange, ...]:
        """Return a range a part, without bounds."""
        return tuple(KeyRange(b"", None) for _ in self.shard.parts)

    def records(self, shard: ShardContext, key_range: KeyRange, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield the records of the parts, and keep the values that they refer to.

        Raises:
            IntegrityError, StoreError: a part is not what it should be, or can't be read.
        """
        for part in self.shard.parts:
            applied = self._applied(part)
            yield from bounded(iter(applied.records), record_batch_bytes_max)

    def values(self, shard: ShardContext, value_hashes: Sequence[bytes], record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield referenced values in the order asked for, out of what `records` has kept.

        Raises:
            ValueMismatchError: no part holds a value.
            IntegrityError, StoreError: as `records`.
        """
        yield from bounded(self._value_rows(value_hashes), record_batch_bytes_max)

    def state_header(self, shard: ShardContext, sync_hash: bytes) -> FoundStateHeader:
        """Return the state header that lies beside the parts."""
        name = self.shard.header_name
        if name is None:
            return NO_STATE_HEADER
        return FoundStateHeader(read_object(open_store(self.store_url), name, STATE_HEADER_BYTES_MAX), HeaderOrigin.COPIED)

    def root_memory_usage(self, shard: ShardContext) -> int | None:
        """Return what a statement or the state header says."""
        return self.shard.memory_usage

    def forget_values(self) -> None:
        """Remove the kept values; for when the dataset is complete."""
        store = open_store(self.dataset_url)
        for part in self.shard.parts:
            store.delete(self._values_name(part))

    def _applied(self, part: PartObject) -> AppliedPart:
        decoded = part.read()
        try:
            applied = choose_kernel(self.kernel_name).apply(decoded, part.state_root, part.part_id)
        except IntegrityError as error:
            raise located(error, part.where) from None
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, VALUE_SCHEMA) as writer:
            for batch in applied.values:
                writer.write_batch(batch)
        open_store(self.dataset_url).put(self._values_name(part), sink.getvalue())
        return applied

    def _value_rows(self, value_hashes: Sequence[bytes]) -> Iterator[pa.RecordBatch]:
        found: dict[bytes, pa.RecordBatch] = {}
        wanted = set(value_hashes)
        for part in self.shard.parts:
            if not wanted:
                break
            for batch in self._kept_values(part):
                rows = {value_hash: row for row, value_hash in enumerate(batch.column(0).to_pylist()) if value_hash in wanted}
                # Taken, which copies: a slice would hold all values of its part, of as many parts as there are.
                found |= {value_hash: batch.take(pa.array([row])) for value_hash, row in rows.items()}
                wanted -= rows.keys()
        if wanted:
            raise ValueMismatchError(problem=f"no part holds the value with sha256 {min(wanted).hex()}", where=self.url)
        for value_hash in value_hashes:
            yield found[value_hash]

    def _kept_values(self, part: PartObject) -> list[pa.RecordBatch]:
        store, name = open_store(self.dataset_url), self._values_name(part)
        try:
            kept = read_table(store, name, VALUE_SCHEMA)
        except DatasetError:
            # An earlier run completed the dataset and removed them, and one of its files was lost since; or a power cut has damaged them.
            self._applied(part)
            kept = read_table(store, name, VALUE_SCHEMA)
        batches: list[pa.RecordBatch] = kept.to_batches()
        return batches

    def _values_name(self, part: PartObject) -> str:
        folder = shard_folder(self.context, self.context.shards[0].shard_uid)
        return f"{folder}/ranges/part-{part.part_id.idx:06d}-of-{part.part_id.total:06d}.values.arrow"
