"""Roll forward: an exported shard of an older epoch and what has changed since become the export of a later epoch.

One task collects a shard's changes, then one task a file of the older dataset rewrites the file, or gives it a second name where nothing
in its key range has changed. What it costs follows from the changes and the files that they touch.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import pyarrow as pa

from pipelines.dataset.arrow_dataset import DatasetReference, ShardDataset, read_dataset
from pipelines.dataset.export.export_records import CopiedValues, ExportSettings, store_summary
from pipelines.dataset.export.export_values import OWN_VALUES_BATCH_BYTES_MAX, SHARED_VALUES_BATCH_BYTES_MAX
from pipelines.dataset.record_files import FileDestination, FileFormat, write_record_files, write_values_files
from pipelines.dataset.roll_forward.merge_changes import (
    FileSlots,
    changed_keys_within,
    changes_within,
    merge_own_values,
    merge_records,
    merge_shared_values,
    own_values_within,
    shared_values_within,
)
from pipelines.near.files.external_sort import ExternalSort, ValueSpill
from pipelines.near.node.flat_state_source import FoundStateHeader
from pipelines.near.node.node_home import NodeHome, read_node_home
from pipelines.near.node.state_column import READ_ROWS_MAX, StateColumn
from pipelines.near.record_batches import bounded
from pipelines.near.trie.changed_records import BlockChanges, KindFilter
from pipelines.near.trie.walk_difference import trie_difference
from pipelines.near.trie.walk_trie import Leaf
from pipelines.stores.held_folder import held_folder
from pipelines.stores.held_work_folder import scratch_folder
from pipelines.stores.open_store import open_store
from pipelines.stores.reuse import reuse_object
from schemas.dataset.dataset_summary import DatasetSummary, RecordsFile, ValuesFile, schema_metadata, shard_folder
from schemas.dataset.flat_state import OWN_VALUE_SCHEMA, RECORD_SCHEMA, VALUE_SCHEMA
from schemas.errors import InvalidInputError, ValueMismatchError
from schemas.ids import CryptoHash
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX
from schemas.nearcore.shard_layout import ShardLayout
from schemas.nearcore.state_changes import RECORDED_KINDS

CHANGES_BATCH_ROWS: Final = 4096
"""Changes that are put into one record batch."""

CHANGES_SUMMARY_NAME: Final = "changes/summary.json"
"""In the wanted shard's folder: what the changes are made of. It goes with them when the shard is complete."""

_ALL_KINDS: Final = frozenset(range(256))
_GONE: Final = b"\0"
_INLINED: Final = b"\1"
_REFERENCE: Final = b"\2"
_LENGTH_BYTES: Final = 4

File = TypeVar("File", RecordsFile, ValuesFile)


@dataclass(frozen=True, slots=True)
class ShardChanges:
    """What changed in a shard since an older dataset, ready to be merged."""

    dataset: DatasetReference
    """Of changes, as `pipelines.dataset.roll_forward.merge_changes` describes them."""
    count: int
    """Keys whose records changed."""
    size: int
    """Bytes of the changes' files."""
    touched: frozenset[int]
    """Slots of the older dataset's files of records in which something changed."""
    own_touched: frozenset[int]
    """The same of its files of own values, where a changed record brings one."""
    shared_touched: frozenset[int]
    """The same of its files of shared values."""


@dataclass(frozen=True, slots=True)
class CollectChangesTask:
    """Brings together what happened to one shard between an older dataset's state and the wanted one."""

    node_home: str
    older: DatasetReference
    context: EpochContext
    """Of the wanted epoch and this shard alone."""
    layout: ShardLayout | None
    """Assigns each StateChanges row to a shard; None to take all from the difference of the two tries."""
    settings: ExportSettings
    read_limit_bytes_per_s: int | None = None

    def run(self) -> ShardChanges:
        """Collect the changes and store them beside the wanted epoch's dataset.

        Raises:
            SnapshotMismatchError: headers or state changes of a block are gone.
            MissingTrieValueError, ValueMismatchError: a node or value is not in the State column.
            SourceError, IntegrityError, StoreError: passed on.
        """
        shard = self.context.shards[0]
        home = read_node_home(self.node_home)
        with held_folder("changes", scratch_folder(self.settings.dataset_url)) as folder:
            sort, spill = ExternalSort(folder), ValueSpill(folder)
            try:
                column = StateColumn(home, shard.shard_uid, self.read_limit_bytes_per_s)
                blocks = self._collect_rows(home, shard, sort, spill)
                self._collect_difference(column, shard, sort, blocks)
                sort.flush()
                return self._stored(sort, spill, column)
            finally:
                spill.close()

    def _collect_rows(self, home: NodeHome, shard: ShardContext, sort: ExternalSort, spill: ValueSpill) -> int:
        """Collect from StateChanges; return the number of blocks."""
        before = read_dataset(self.older).summary.shard.flat_head_target
        if self.layout is None:
            return 0
        if before is None:
            raise InvalidInputError(
                problem="the older dataset does not say at which block it stands", where=f"{self.older.url}/{self.older.folder}"
            )
        rows = BlockChanges(home, shard, self.layout)
        blocks = rows.blocks_since(before)
        for number, block_hash in enumerate(blocks):
            changes = rows.changes(block_hash)
            if not changes:
                rows.check_kept(blocks[number - 1] if number else before, block_hash)
            for key, value in changes:
                sort.add(key, number, _GONE if value is None else _encoded(value, spill))
        return len(blocks)

    def _collect_difference(self, column: StateColumn, shard: ShardContext, sort: ExternalSort, number: int) -> None:
        """Collect from the two tries what StateChanges does not record."""
        old_root, new_root = read_dataset(self.older).summary.shard.state_root, shard.state_root
        if old_root is None or new_root is None:
            raise InvalidInputError(problem=f"the state root of shard {shard.shard_uid} is not known at both ends of the way")
        kinds = _ALL_KINDS if self.layout is None else _ALL_KINDS - RECORDED_KINDS
        found = trie_difference(column, old_root, new_root, KindFilter(kinds))
        while step := list(itertools.islice(found, READ_ROWS_MAX)):
            short = [leaf for _, leaf in step if leaf is not None and leaf.value_length <= INLINED_VALUE_BYTES_MAX]
            values = dict(zip([leaf.key for leaf in short], column.read([leaf.value_hash for leaf in short]), strict=True))
            for key, leaf in step:
                sort.add(key, number, _GONE if leaf is None else _encoded_leaf(leaf, values.get(key), column))

    def _stored(self, sort: ExternalSort, spill: ValueSpill, column: StateColumn) -> ShardChanges:
        store, older = open_store(self.settings.dataset_url), read_dataset(self.older)
        shard = self.context.shards[0]
        destination = replace(self.settings.destination(store, shard_folder(self.context, shard.shard_uid)), file_format=FileFormat.IPC)
        metadata = schema_metadata(self.context, shard, None)
        noted = _Noted(FileSlots.of_records(older))
        batches = bounded(noted.batches(sort), self.settings.record_batch_bytes_max)
        files = tuple(write_record_files(batches, RECORD_SCHEMA.with_metadata(metadata), "changes/records", destination))
        times = Counter(value_hash for _, value_hash in noted.references)
        known = older.shared_among(sorted(times))
        own = [(key, value_hash) for key, value_hash in noted.references if times[value_hash] == 1 and value_hash not in known]
        shared = sorted(value_hash for value_hash, count in times.items() if count > 1 and value_hash not in known)
        found = bounded((_own_value_batch(key, value_hash, spill, column) for key, value_hash in own), OWN_VALUES_BATCH_BYTES_MAX)
        own_files = tuple(write_values_files(found, OWN_VALUE_SCHEMA.with_metadata(metadata), "changes/own_values", destination))
        found = bounded((_value_batch(value_hash, spill, column) for value_hash in shared), SHARED_VALUES_BATCH_BYTES_MAX)
        shared_files = tuple(write_values_files(found, VALUE_SCHEMA.with_metadata(metadata), "changes/shared_values", destination))
        own_slots, shared_slots = FileSlots.of_own_values(older), FileSlots.of_shared_values(older)
        summary = DatasetSummary(self.context, "changes", "", files, own_files, shared_files)
        return ShardChanges(
            dataset=store_summary(self.settings.dataset_url, summary, CHANGES_SUMMARY_NAME).reference,
            count=summary.records,
            size=summary.size,
            touched=frozenset(noted.touched),
            own_touched=frozenset(own_slots.index(key) for key, _ in own),
            shared_touched=frozenset(map(shared_slots.index, shared)),
        )


class _Noted:
    """Turns sorted entries into record batches, noting on the way what they touch and refer to."""

    def __init__(self, slots: FileSlots) -> None:
        self._slots = slots
        self.touched: set[int] = set()
        self.references: list[tuple[bytes, bytes]] = []
        """Key and hash of each changed record that refers to a value, ascending by key."""

    def batches(self, sort: ExternalSort) -> Iterator[pa.RecordBatch]:
        last = (list(group)[-1] for _, group in itertools.groupby(sort.entries(b"", None), key=lambda entry: entry[0]))
        while step := list(itertools.islice(last, CHANGES_BATCH_ROWS)):
            self.touched.update(self._slots.index(key) for key, _, _ in step)
            rows = [_decoded(payload) for _, _, payload in step]
            self.references += ((key, row[2]) for (key, _, _), row in zip(step, rows, strict=True) if row[2] is not None)
            values, lengths, hashes = zip(*rows, strict=True)
            keys = pa.array([key for key, _, _ in step], pa.binary())
            yield pa.RecordBatch.from_arrays(
                [keys, pa.array(values, pa.binary()), pa.array(lengths, pa.uint32()), pa.array(hashes, pa.binary(32))], schema=RECORD_SCHEMA
            )


def _encoded(value: bytes, spill: ValueSpill) -> bytes:
    if len(value) <= INLINED_VALUE_BYTES_MAX:
        return _INLINED + value
    return _REFERENCE + len(value).to_bytes(_LENGTH_BYTES, "little") + spill.put(value)


def _encoded_leaf(leaf: Leaf, value: bytes | None, column: StateColumn) -> bytes:
    if leaf.value_length > INLINED_VALUE_BYTES_MAX:
        return _REFERENCE + leaf.value_length.to_bytes(_LENGTH_BYTES, "little") + leaf.value_hash
    if value is None or len(value) != leaf.value_length:
        raise ValueMismatchError(
            problem=f"the value {CryptoHash(leaf.value_hash)} {column.explain(leaf.value_hash)}",
            where=f"trie key {leaf.key.hex()}, {column.where}",
        )
    return _INLINED + value


def _decoded(payload: bytes) -> tuple[bytes | None, int, bytes | None]:
    """Return value, length and hash of an entry's payload, as a record has them."""
    if payload == _GONE:
        return None, 0, None
    if payload[:1] == _INLINED:
        return payload[1:], len(payload) - 1, None
    return None, int.from_bytes(payload[1 : 1 + _LENGTH_BYTES], "little"), payload[1 + _LENGTH_BYTES :]


def _value_batch(value_hash: bytes, spill: ValueSpill, column: StateColumn) -> pa.RecordBatch:
    value = spill.get(value_hash)
    if value is None:
        value = column.read([value_hash])[0]
    if value is None:
        raise ValueMismatchError(problem=f"the value {CryptoHash(value_hash)} {column.explain(value_hash)}", where=column.where)
    return pa.RecordBatch.from_arrays([pa.array([value_hash], pa.binary(32)), pa.array([value], pa.binary())], schema=VALUE_SCHEMA)


def _own_value_batch(key: bytes, value_hash: bytes, spill: ValueSpill, column: StateColumn) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array([key], pa.binary()), *_value_batch(value_hash, spill, column).columns], schema=OWN_VALUE_SCHEMA
    )


@dataclass(frozen=True, slots=True)
class _SlotTask:
    """What the tasks of all kinds of slots are given, and how they write."""

    older: DatasetReference
    changes: DatasetReference
    context: EpochContext
    settings: ExportSettings
    index: int
    is_touched: bool
    """Whether something changed in the slot."""

    @property
    def _folder(self) -> str:
        return shard_folder(self.context, self.context.shards[0].shard_uid)

    def _destination(self) -> FileDestination:
        return self.settings.destination(open_store(self.settings.dataset_url), self._folder)

    def _described(self, schema: pa.Schema) -> pa.Schema:
        return schema.with_metadata(schema_metadata(self.context, self.context.shards[0], None))

    def _reused(self, files: Sequence[File], stem: str) -> tuple[File, ...]:
        """Give the slot's file of the older dataset its name in the wanted one; nothing where that has none."""
        if not files:
            return ()
        file = files[self.index]
        name = f"{stem}-0000{Path(file.name).suffix}"
        reuse_object(
            open_store(self.older.url),
            f"{self.older.folder}/{file.name}",
            open_store(self.settings.dataset_url),
            f"{self._folder}/{name}",
            size=file.size,
            sha256=file.sha256,
        )
        return (replace(file, name=name),)


@dataclass(frozen=True, slots=True)
class RollRecordsTask(_SlotTask):
    """Makes the files of one slot of an older dataset's records: rewritten where something changed, else reused."""

    def run(self) -> tuple[RecordsFile, ...]:
        """Write or reuse the slot's files.

        Raises:
            DatasetError, StoreError: passed on.
        """
        stem = f"flat_state/range-{self.index:06d}"
        older = read_dataset(self.older)
        files = older.summary.files
        if not self.is_touched:
            return self._reused(files, stem)
        records = older.read_file(self.index) if files else []
        changed = changes_within(read_dataset(self.changes), FileSlots.of_records(older).key_range(self.index))
        merged = merge_records([batch.replace_schema_metadata(None) for batch in records], changed)
        schema = self._described(RECORD_SCHEMA)
        batches = bounded(merged, self.settings.record_batch_bytes_max)
        return tuple(write_record_files(batches, schema, stem, self._destination()))


@dataclass(frozen=True, slots=True)
class RollOwnValuesTask(_SlotTask):
    """Makes the files of one slot of an older dataset's own values: rewritten where a changed record brings one.

    Then those of changed and gone keys are left out; in a file that is used again they stay.
    """

    def run(self) -> CopiedValues:
        """Write or reuse the slot's files.

        Raises:
            DatasetError, StoreError: passed on.
        """
        stem = f"values/values-{self.index:06d}"
        older = read_dataset(self.older)
        files = older.summary.values_files
        if not self.is_touched:
            return CopiedValues(own=self._reused(files, stem))
        changes = read_dataset(self.changes)
        slot = FileSlots.of_own_values(older).key_range(self.index)
        values = older.read_own_values_file(self.index) if files else []
        merged = merge_own_values(values, changed_keys_within(changes, slot), own_values_within(changes, slot))
        schema = self._described(OWN_VALUE_SCHEMA)
        batches = bounded(merged, OWN_VALUES_BATCH_BYTES_MAX)
        return CopiedValues(own=tuple(write_values_files(batches, schema, stem, self._destination())))


@dataclass(frozen=True, slots=True)
class RollSharedValuesTask(_SlotTask):
    """Makes the files of one slot of an older dataset's shared values. Values that nothing refers to any more stay."""

    def run(self) -> CopiedValues:
        """Write or reuse the slot's files.

        Raises:
            DatasetError, StoreError: passed on.
        """
        stem = f"shared_values/values-{self.index:06d}"
        older = read_dataset(self.older)
        files = older.summary.shared_values_files
        if not self.is_touched:
            return CopiedValues(shared=self._reused(files, stem))
        slot = FileSlots.of_shared_values(older).key_range(self.index)
        values = older.read_shared_values_file(self.index) if files else []
        merged = merge_shared_values(values, shared_values_within(read_dataset(self.changes), slot))
        schema = self._described(VALUE_SCHEMA)
        batches = bounded(merged, SHARED_VALUES_BATCH_BYTES_MAX)
        return CopiedValues(shared=tuple(write_values_files(batches, schema, stem, self._destination())))


def rolled_shard(
    older: ShardDataset,
    changes: ShardChanges,
    context: EpochContext,
    *,
    files: tuple[RecordsFile, ...],
    values: Sequence[CopiedValues],
    header: FoundStateHeader,
) -> DatasetSummary:
    """Return the summary of a shard that was rolled forward; of it, only the state header is proved yet."""
    own = tuple(file for copied in values for file in copied.own)
    shared = tuple(file for copied in values for file in copied.shared)
    content = [*(file.sha256 for file in files), *(file.sha256 for file in (*own, *shared))]
    return DatasetSummary(
        context=context,
        source=f"epoch {older.summary.context.epoch_height} rolled forward by {changes.count} changed keys",
        fingerprint=f"rolled-{hashlib.sha256(' '.join(content).encode()).hexdigest()[:32]}",
        files=files,
        values_files=own,
        shared_values_files=shared,
        state_header_origin=header.origin,
        state_header_reason=header.reason,
        verified_state_header_sha256=header.verified_sha256,
    )
