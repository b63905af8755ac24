"""Plan without a dataset: the structure of a source's key ranges, from one reading of keys and value lengths.

A dataset says of each file which key lies before and which after it. Of a source's key ranges nobody knows that, so a task works on the rows
after its range's first one, up to and with the first row after its range: its left neighbour is then a row that it reads anyway, and its
right neighbour the second row after its range. Of the rows it leaves their charges, some two bytes each, and a key every
`INDEXED_ROWS` rows. A boundary is later read from the source by that index, with a few hundred rows around it.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

import numpy as np
import pyarrow as pa

from pipelines.dataset.dataset_files import read_table
from pipelines.dataset.export.export_records import RECORD_BATCH_BYTES_MAX
from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.trie_kernel import Kernel
from pipelines.near.node.flat_state_source import FlatStateSource, KeyRange, ShapeSource
from pipelines.producing.build.plan_parts import Boundary, FileStructure, ShardStructure, thresholds_of_files
from pipelines.producing.build.work_folder import WorkFolder
from pipelines.stores.store import Store
from schemas.arrow_arrays import binary_array, number_array, numbers_of
from schemas.errors import DatasetError, RecordOrderError, SourceChangedError
from schemas.nearcore.epoch_context import ShardContext

INDEXED_ROWS: Final = 256
"""A row of so many has its key in the index."""

PIECE_BYTES_MAX: Final = 64 << 20
"""Bytes of keys and lengths whose structure is computed at once, about: a range may be longer than was meant."""

SOUGHT_BYTES_MAX: Final = 64 << 10
"""Bytes of a record batch where a few rows are sought; a node's database reads no further ahead then."""

_CHARGES_SCHEMA: Final = pa.schema([pa.field("charge", pa.uint64(), nullable=False)])
_INDEX_SCHEMA: Final = pa.schema([pa.field("row", pa.uint64(), nullable=False), pa.field("key", pa.binary(), nullable=False)])
_COMPRESSED: Final = pa.ipc.IpcWriteOptions(compression="zstd")


@dataclass(frozen=True, slots=True)
class ScannedRange:
    """The structure of the rows that one key range's task works on."""

    records: int
    """0 where there are none; then there is no structure."""
    left_key: bytes | None
    """The row before them; None at the left end of the shard."""
    first_key: bytes
    """Empty where there are no rows."""
    structure: FileStructure
    charges_sha256: str = ""
    index_sha256: str = ""
    """Digests of what was left in the work folder, so that a rerun knows it whole; empty where there are no rows."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "records": self.records,
            "left_key": None if self.left_key is None else self.left_key.hex(),
            "first_key": self.first_key.hex(),
            "edge": self.structure.edge.hex(),
            "charges_sum": self.structure.charges_sum,
            "charges_sha256": self.charges_sha256,
            "index_sha256": self.index_sha256,
        }


def _read_scanned(document: dict[str, Any]) -> ScannedRange:
    left_key = document["left_key"]
    return ScannedRange(
        records=int(document["records"]),
        left_key=None if left_key is None else bytes.fromhex(left_key),
        first_key=bytes.fromhex(document["first_key"]),
        structure=FileStructure(bytes.fromhex(document["edge"]), int(document["charges_sum"])),
        charges_sha256=str(document["charges_sha256"]),
        index_sha256=str(document["index_sha256"]),
    )


@dataclass(frozen=True, slots=True)
class ScannedPlace:
    """One key range of a shard, and where its task leaves what it finds."""

    source: FlatStateSource
    shard: ShardContext
    work: WorkFolder
    key_range: KeyRange

    @property
    def name(self) -> str:
        """Of what is left: by the range's ends, for another run may split the shard otherwise."""
        begin, end = self.key_range.begin, self.key_range.end
        return hashlib.sha256(f"{begin.hex()} {'' if end is None else end.hex()}".encode()).hexdigest()[:16]

    def rows(self, begin: bytes, end: bytes | None, batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield keys and value lengths from a key on, without empty batches."""
        read = self.source.shapes if isinstance(self.source, ShapeSource) else self.source.records
        for batch in read(self.shard, KeyRange(begin, end), batch_bytes_max):
            if batch.num_rows:
                yield batch.select(["key", "value_length"])

    def rows_from(self, begin: bytes, count: int) -> pa.RecordBatch | None:
        """Return the first rows that are not below a key, at most so many; None where there is none."""
        taken: list[pa.RecordBatch] = []
        for batch in self.rows(begin, None, SOUGHT_BYTES_MAX):
            taken.append(batch.slice(0, count - sum(one.num_rows for one in taken)))
            if sum(one.num_rows for one in taken) == count:
                break
        return pa.concat_batches(taken) if taken else None


@dataclass(frozen=True, slots=True)
class ScanRangeTask:
    """Computes the structure of one key range."""

    place: ScannedPlace
    kernel_name: str

    def run(self) -> ScannedRange:
        """Compute the structure and leave charges and index, or return an earlier run's.

        Raises:
            RecordOrderError: the source's keys do not ascend, or lie outside the range.
            SourceError, IntegrityError, StoreError: passed on.
        """
        store, work, name = self.place.work.store(), self.place.work, self.place.name
        earlier = self._earlier()
        if earlier is not None:
            return earlier
        scan = _Scan(choose_kernel(self.kernel_name), self.place)
        scan.run()
        scanned = scan.found()
        if scanned.records:
            charges = pa.table([pa.chunked_array(scan.charges)], schema=_CHARGES_SCHEMA)
            rows = np.fromiter(sorted(scan.index), np.uint64, len(scan.index))
            keys = binary_array([key for _, key in sorted(scan.index.items())])
            index = pa.table([number_array(rows), keys], schema=_INDEX_SCHEMA)
            scanned = replace(
                scanned,
                charges_sha256=_put(store, work.scanned_charges(name), charges),
                index_sha256=_put(store, work.scanned_index(name), index),
            )
        store.put(work.scanned_range(name), json.dumps(scanned.to_json()).encode())
        return scanned

    def _earlier(self) -> ScannedRange | None:
        """Return what an earlier run has found, where all that it left is whole."""
        work, name = self.place.work, self.place.name
        earlier = work.note(work.scanned_range(name), _read_scanned)
        if earlier is None or not earlier.records:
            return earlier
        left = (work.scanned_charges(name), earlier.charges_sha256), (work.scanned_index(name), earlier.index_sha256)
        return earlier if all(work.has(*one) for one in left) else None


def _put(store: Store, name: str, table: pa.Table) -> str:
    """Leave a table; return its SHA-256."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=_COMPRESSED) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    store.put(name, data)
    return hashlib.sha256(data).hexdigest()


class _Scan:
    """One reading of a key range, a piece at a time."""

    def __init__(self, kernel: Kernel, place: ScannedPlace) -> None:
        self._kernel, self._place = kernel, place
        self._pending: list[pa.RecordBatch] = []
        self._edge = b""
        self._left_key: bytes | None = None
        """Of the piece that is pending."""
        self.left_key: bytes | None = None
        self.records = 0
        self.charges: list[pa.UInt64Array] = []
        self.index: dict[int, bytes] = {}
        """Rows to their keys: every so many, and those that a merge can charge."""

    def run(self) -> None:
        """Read the rows that the range's task works on; see the module."""
        key_range = self._place.key_range
        batches = self._place.rows(key_range.begin, key_range.end, RECORD_BATCH_BYTES_MAX)
        if key_range.begin:
            first = next(batches, None)
            if first is None:
                # The row after the range belongs to the range before.
                return
            self._left_key = self.left_key = _key(first, 0)
            if self._left_key < key_range.begin:
                raise RecordOrderError(
                    problem=f"the source gave key {self._left_key.hex()} before its range", where=str(self._place.shard.shard_uid)
                )
            batches = chain([first.slice(1)] if first.num_rows > 1 else [], batches)
        for batch in batches:
            if sum(one.nbytes for one in self._pending) >= PIECE_BYTES_MAX:
                self._finish_piece(_key(batch, 0))
            self._pending.append(batch)
        following = None if key_range.end is None else self._place.rows_from(key_range.end, 2)
        if following is not None:
            self._pending.append(following.slice(0, 1))
        if self._pending:
            self._finish_piece(_key(following, 1) if following is not None and following.num_rows > 1 else None)

    def found(self) -> ScannedRange:
        charges_sum = sum(int(numbers_of(charges).sum()) for charges in self.charges)
        return ScannedRange(self.records, self.left_key, self.index.get(0, b""), FileStructure(self._edge, charges_sum))

    def _finish_piece(self, right_key: bytes | None) -> None:
        structure = self._kernel.structure(self._pending, self._left_key, right_key)
        self._edge = self._kernel.merge(self._edge, structure.edge) if self.records else structure.edge
        self.charges.append(structure.charges)
        self._index(_Keys(self._pending))
        self._left_key = _key(self._pending[-1], self._pending[-1].num_rows - 1)
        self.records += len(structure.charges)
        self._pending = []

    def _index(self, keys: _Keys) -> None:
        for row in range(-self.records % INDEXED_ROWS, len(keys), INDEXED_ROWS):
            self.index[self.records + row] = keys[row]
        self.index[self.records] = keys[0]
        # A merge closes nodes that straddle this piece's right end, and charges each to the first key under it.
        last_key = keys[len(keys) - 1]
        for nibbles in range(2 * len(last_key), -1, -1):
            prefix = last_key[: nibbles // 2] + (bytes([last_key[nibbles // 2] & 0xF0]) if nibbles % 2 else b"")
            row = bisect_left(keys, prefix)
            self.index[self.records + row] = keys[row]
            if row == 0:
                break


class _Keys(Sequence[bytes]):
    """The keys of some record batches, by their row."""

    def __init__(self, batches: Sequence[pa.RecordBatch]) -> None:
        self._batches = batches
        self._begins = [0, *np.cumsum([batch.num_rows for batch in batches]).tolist()]

    def __len__(self) -> int:
        return int(self._begins[-1])

    def __getitem__(self, row: Any) -> Any:
        batch = bisect_right(self._begins, row) - 1
        return _key(self._batches[batch], row - self._begins[batch])


def _key(batch: pa.RecordBatch, row: int) -> bytes:
    return bytes(batch.column(0)[row].as_py())


@dataclass(frozen=True, slots=True)
class LocateInRangeTask:
    """Names the boundary keys that lie in one scanned range."""

    place: ScannedPlace
    range_index: int
    """Among the ranges that have rows."""
    scanned: ScannedRange
    thresholds: tuple[tuple[int, int], ...]
    """(threshold index, threshold less the sum of all charges before this range)."""
    charges: tuple[tuple[bytes, int], ...]
    """(key, memory usage) of nodes that were closed by merging; added to this range's own."""

    def run(self) -> tuple[Boundary, ...]:
        """Find each threshold's key: the first whose running sum is greater.

        Raises:
            SourceChangedError: the source has other rows there than before.
            DatasetError: what the scan left is damaged.
            SourceError, IntegrityError, StoreError: passed on.
        """
        store, work, name = self.place.work.store(), self.place.work, self.place.name
        try:
            charges = read_table(store, work.scanned_charges(name), _CHARGES_SCHEMA).column(0).combine_chunks()
            index = read_table(store, work.scanned_index(name), _INDEX_SCHEMA)
        except DatasetError as error:
            raise error.at(error.where, "Run again: what is damaged there is then made again.") from None
        rows, keys, own = index.column(0).to_pylist(), index.column(1).to_pylist(), numbers_of(charges).astype(np.int64)
        for key, memory_usage in self.charges:
            at = bisect_left(keys, key)
            assert keys[at] == key, "whatever a merge can charge is in the index"
            own[rows[at]] += memory_usage
        sums = np.cumsum(own)
        found = []
        for threshold_index, threshold in self.thresholds:
            row = int(np.searchsorted(sums, threshold, side="right"))
            previous_key, key = self._keys_at(row, rows, keys)
            found.append(Boundary(threshold_index, self.range_index, row, key, previous_key))
        return tuple(found)

    def _keys_at(self, row: int, rows: Sequence[int], keys: Sequence[bytes]) -> tuple[bytes | None, bytes]:
        """Return the keys of the row before a row, and of the row."""
        if row == 0:
            return self.scanned.left_key, self.scanned.first_key
        at = bisect_right(rows, row - 1) - 1
        wanted = row - rows[at] + 1
        found = self.place.rows_from(keys[at], wanted)
        if found is None or found.num_rows < wanted or _key(found, 0) != keys[at]:
            raise SourceChangedError(
                problem=f"the rows after key {keys[at].hex()} are not those that were there before",
                where=f"shard {self.place.shard.shard_uid} of {self.place.source.describe()}",
                remedy="Run again: the source is then read again. If it stays so, the database is damaged.",
            )
        return _key(found, wanted - 2), _key(found, wanted - 1)


def scan_tasks(
    source: FlatStateSource, shard: ShardContext, work: WorkFolder, kernel_name: str, range_bytes_target: int
) -> tuple[ScanRangeTask, ...]:
    """Split the reading of a shard's structure into tasks, ascending by key.

    Raises:
        SourceError: passed on.
    """
    ranges = source.key_ranges(shard, range_bytes_target)
    return tuple(ScanRangeTask(ScannedPlace(source, shard, work, key_range), kernel_name) for key_range in ranges)


def locate_tasks(
    tasks: Sequence[ScanRangeTask], scanned: Sequence[ScannedRange], structure: ShardStructure, num_parts: int
) -> tuple[LocateInRangeTask, ...]:
    """Hand each range the thresholds that fall into it.

    Args:
        tasks: those that found rows, in order; ``scanned`` is what they found.
        structure: of all of them.
    """
    return tuple(
        LocateInRangeTask(tasks[index].place, index, replace(scanned[index], structure=FileStructure(b"", 0)), thresholds, charges)
        for index, thresholds, charges in thresholds_of_files(structure, num_parts)
    )
