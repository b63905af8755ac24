"""Plan: how much memory usage lies where, and so where the state parts begin. Nothing is hashed.

One task a dataset file computes the structure of its key range and leaves the records' charges; the driver seals the edges into
the shard's memory usage and hands each file the thresholds that fall into it; one task a file then names the boundary keys.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.dataset.arrow_dataset import DatasetReference, RowSpan, read_dataset
from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.trie_kernel import Kernel
from pipelines.producing.build.work_folder import WorkFolder
from schemas.arrow_arrays import numbers_of
from schemas.errors import InvalidInputError
from schemas.ids import PartId
from schemas.nearcore.state_part import boundary_threshold, num_parts_for
from schemas.published.object_layout import NUM_PARTS_MAX

_CHARGES_SCHEMA = pa.schema([pa.field("charge", pa.uint64(), nullable=False)])


@dataclass(frozen=True, slots=True)
class FileStructure:
    """Structure of one dataset file's key range."""

    edge: bytes
    charges_sum: int


def _read_structure(document: dict[str, Any]) -> FileStructure:
    return FileStructure(bytes.fromhex(document["edge"]), int(document["charges_sum"]))


@dataclass(frozen=True, slots=True)
class StructureTask:
    """Computes the structure of one dataset file."""

    dataset: DatasetReference
    work: WorkFolder
    kernel_name: str
    file_index: int

    def run(self) -> FileStructure:
        """Compute the structure and leave the charges, or return an earlier run's.

        Raises:
            DatasetError, IntegrityError, StoreError: passed on.
        """
        store = self.work.store()
        if (earlier := self.work.note(self.work.structure(self.file_index), _read_structure)) is not None:
            return earlier
        dataset = read_dataset(self.dataset)
        left_key, right_key = dataset.neighbouring_keys(self.file_index)
        records = dataset.read_file(self.file_index, ("key", "value_length"))
        structure = choose_kernel(self.kernel_name).structure(records, left_key, right_key)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, _CHARGES_SCHEMA) as writer:
            writer.write_batch(pa.record_batch([structure.charges], schema=_CHARGES_SCHEMA))
        store.put(self.work.charges(self.file_index), sink.getvalue())
        charges_sum = int(numbers_of(structure.charges).sum())
        store.put(self.work.structure(self.file_index), json.dumps({"edge": structure.edge.hex(), "charges_sum": charges_sum}).encode())
        return FileStructure(structure.edge, charges_sum)


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where one state part begins."""

    threshold_index: int
    """Which boundary: 1 <= threshold_index < num_parts."""
    file_index: int
    row: int
    key: bytes
    previous_key: bytes | None
    """The key before it; None at the left end of the shard."""


@dataclass(frozen=True, slots=True)
class LocateTask:
    """Names the boundary keys that lie in one dataset file."""

    dataset: DatasetReference
    work: WorkFolder
    file_index: int
    thresholds: tuple[tuple[int, int], ...]
    """(threshold index, threshold less the sum of all charges before this file)."""
    charges: tuple[tuple[bytes, int], ...]
    """(key, memory usage) of nodes that were closed by merging; added to this file's own."""

    def run(self) -> tuple[Boundary, ...]:
        """Find each threshold's key: the first whose running sum is greater.

        Raises:
            DatasetError, StoreError: passed on.
        """
        with self.work.store().open(self.work.charges(self.file_index)) as source:
            charges = numbers_of(pa.ipc.open_file(source).read_all().column(0).combine_chunks()).astype(np.int64)
        if self.charges:
            self._add_merged_charges(charges)
        sums = np.cumsum(charges)
        found = []
        for threshold_index, threshold in self.thresholds:
            row = int(np.searchsorted(sums, threshold, side="right"))
            found.append(Boundary(threshold_index, self.file_index, row, self._key(row), self._previous_key(row)))
        return tuple(found)

    def _add_merged_charges(self, charges: np.ndarray) -> None:
        keys = pa.chunked_array([batch.column(0) for batch in read_dataset(self.dataset).read_file(self.file_index, ("key",))])
        for key, memory_usage in self.charges:
            charges[_row_of(keys, key)] += memory_usage

    def _key(self, row: int) -> bytes:
        batch = read_dataset(self.dataset).read_span(RowSpan(self.file_index, row, row + 1), ("key",))[0]
        return bytes(batch.column(0)[0].as_py())

    def _previous_key(self, row: int) -> bytes | None:
        if row:
            return self._key(row - 1)
        return read_dataset(self.dataset).neighbouring_keys(self.file_index)[0]


def _row_of(keys: pa.ChunkedArray, key: bytes) -> int:
    """Return the row of a key by binary search."""
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle].as_py() < key:
            low = middle + 1
        else:
            high = middle
    assert keys[low].as_py() == key, "a merged charge belongs to a key of its file"
    return low


@dataclass(frozen=True, slots=True)
class PartInterval:
    """Which keys one state part holds."""

    part_id: PartId
    key_begin: bytes
    """First key of the interval; empty for part 0."""
    key_end: bytes | None
    """First key after it; None at the right end. Equal to ``key_begin`` for a part without keys."""


@dataclass(frozen=True, slots=True)
class PartPlan:
    """What one state part consists of."""

    part_id: PartId
    key_begin: bytes
    """First key of the interval; empty for part 0."""
    key_end: bytes | None
    """First key after it; None at the right end."""
    left_key: bytes | None
    """Last key before the interval."""
    spans: tuple[RowSpan, ...]
    """Its records, by their rows in dataset files or scanned ranges; none for a part between two equal boundaries."""
    boundary_rows: tuple[int, ...]
    """Which rows of the shard's boundary nodes belong to its two ends; the shard's own ends have none. Two equal boundaries are one row."""

    @property
    def records(self) -> int:
        """Rows in the interval."""
        return sum(span.stop - span.start for span in self.spans)

    @property
    def interval(self) -> PartInterval:
        """Its keys."""
        return PartInterval(self.part_id, self.key_begin, self.key_end)


@dataclass(frozen=True, slots=True)
class ShardStructure:
    """A whole shard's memory usage and where it lies."""

    memory_usage: int
    file_bases: tuple[int, ...]
    """Sum of all charges before each file, and the total at the end."""
    file_charges: tuple[tuple[tuple[bytes, int], ...], ...]


def seal_structure(kernel: Kernel, structures: Sequence[FileStructure]) -> ShardStructure:
    """Merge the files' structures.

    Args:
        structures: in the files' order; none for an empty shard.
    """
    if not structures:
        return ShardStructure(0, (0,), ())
    sealed = kernel.seal([structure.edge for structure in structures])
    bases = [0]
    for structure, charges in zip(structures, sealed.charges, strict=True):
        bases.append(bases[-1] + structure.charges_sum + sum(memory_usage for _, memory_usage in charges))
    assert bases[-1] == sealed.memory_usage, "all charges add up to the root's memory usage"
    return ShardStructure(sealed.memory_usage, tuple(bases), sealed.charges)


def decide_num_parts(memory_usage: int, wanted: int | None) -> int:
    """Return num_parts as nearcore computes it (0 for an empty shard), or as asked.

    Raises:
        InvalidInputError: more than ``NUM_PARTS_MAX``, or less than one.
    """
    num_parts = num_parts_for(memory_usage) if wanted is None else wanted
    if not min(1, memory_usage) <= num_parts <= NUM_PARTS_MAX:
        raise InvalidInputError(problem=f"num_parts must be from 1 to {NUM_PARTS_MAX}, not {num_parts}")
    if memory_usage and num_parts > memory_usage:
        # Then thresholds run past the last key, and nearcore's proof of such a part would be the whole trie.
        raise InvalidInputError(problem=f"num_parts {num_parts} is greater than the shard's memory usage {memory_usage}")
    return num_parts


def thresholds_of_files(
    structure: ShardStructure, num_parts: int
) -> Iterator[tuple[int, tuple[tuple[int, int], ...], tuple[tuple[bytes, int], ...]]]:
    """Yield each file that thresholds fall into, ascending; an empty shard has none.

    Yields:
        The file's index, its thresholds as `LocateTask` has them, and its charges by merging.
    """
    if not structure.memory_usage:
        return
    wanted: dict[int, list[tuple[int, int]]] = {}
    for index in range(1, num_parts):
        threshold = boundary_threshold(index, num_parts, structure.memory_usage)
        # The key whose running sum first exceeds the threshold lies in the last file whose base does not.
        file_index = bisect_right(structure.file_bases, threshold) - 1
        wanted.setdefault(file_index, []).append((index, threshold - structure.file_bases[file_index]))
    for file_index, thresholds in sorted(wanted.items()):
        yield file_index, tuple(thresholds), structure.file_charges[file_index]


def plan_parts(file_records: Sequence[int], num_parts: int, boundaries: Sequence[Boundary]) -> tuple[PartPlan, ...]:
    """Cut the shard at its boundaries.

    Args:
        file_records: of each dataset file, or scanned range, how many records it has; none is empty.
        boundaries: all that were located, any order.
    """
    if not file_records:
        return tuple(PartPlan(PartId(idx, num_parts), b"", None, None, (), ()) for idx in range(num_parts))
    by_index = {boundary.threshold_index: boundary for boundary in boundaries}
    assert len(by_index) == max(num_parts - 1, 0), "every boundary was located"
    plans = []
    # A boundary is the first key of the next part that has records, and its row is that part's place among those.
    row = 0
    for idx in range(num_parts):
        begin, end = by_index.get(idx), by_index.get(idx + 1)
        spans = _spans(file_records, begin, end)
        next_row = row + bool(spans)
        plans.append(
            PartPlan(
                part_id=PartId(idx, num_parts),
                key_begin=begin.key if begin else b"",
                key_end=end.key if end else None,
                left_key=begin.previous_key if begin else None,
                spans=spans,
                boundary_rows=tuple(sorted({*((row,) if begin else ()), *((next_row,) if end else ())})),
            )
        )
        row = next_row
    return tuple(plans)


def _spans(file_records: Sequence[int], begin: Boundary | None, end: Boundary | None) -> tuple[RowSpan, ...]:
    first_file, first_row = (begin.file_index, begin.row) if begin else (0, 0)
    last_file, last_row = (end.file_index, end.row) if end else (len(file_records) - 1, file_records[-1])
    spans = []
    for file_index in range(first_file, last_file + 1):
        start = first_row if file_index == first_file else 0
        stop = last_row if file_index == last_file else file_records[file_index]
        if start < stop:
            spans.append(RowSpan(file_index, start, stop))
    return tuple(spans)
