"""Reads the referenced values of a dataset: own values, which lie in the order of their records, and shared values, which lie by hash.

Records that lie together find their own values together, in a few record batches; only what is not there is looked for among the shared
values. Values are not hashed here: the kernel does that.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from pipelines.dataset.dataset_files import opened_batches, read_adjacent_batches
from pipelines.stores.store import Store
from schemas.dataset.dataset_summary import DatasetSummary, ValuesFile
from schemas.dataset.flat_state import OWN_VALUE_SCHEMA, VALUE_SCHEMA
from schemas.errors import DatasetError, ValueMismatchError

VALUES_READS_AT_ONCE = 16
"""How many reads of values from a remote store a part waits for at once."""

VALUES_READ_BYTES_MAX = 8 << 20
"""Most bytes of adjacent record batches that are read with one request, but for a single larger one."""

VALUES_GAP_BYTES_MAX = 1 << 20
"""Record batches between two wanted ones that are read along, up to so many bytes, since a request takes as long as some MiB."""

PARQUET_BATCHES_AT_ONCE = 8
"""Row groups of a Parquet file that one task reads; each task opens the file once."""

_Wanted = tuple[int, frozenset[bytes]]
"""A record batch of a file, and the hashes that are looked for in it."""


@dataclass(frozen=True, slots=True)
class _ValuesFolder:
    """Files of values of one kind, in order."""

    store: Store
    folder: str
    files: tuple[ValuesFile, ...]
    schema: pa.Schema

    def find(self, places: Iterable[tuple[bytes, bytes]]) -> list[pa.RecordBatch]:
        """Return those values that are there, in the files' order, as ``VALUE_SCHEMA``.

        Args:
            places: (key or hash by which the files ascend, hash), each hash once, in any order.
        """
        by_file = list(self._by_file(places))
        if self.store.local_root() is not None:
            # Mapped files: reading a piece of one is no request.
            return [batch for file, wanted in by_file for batch in self._opened(file, wanted)]
        reads = [read for file, wanted in by_file for read in self._reads(file, wanted)]
        if len(reads) < 2:
            return [batch for read in reads for batch in read()]
        # One after the other, a part would wait for its requests far longer than it computes.
        with ThreadPoolExecutor(min(VALUES_READS_AT_ONCE, len(reads))) as readers:
            return [batch for batches in readers.map(lambda read: read(), reads) for batch in batches]

    def _by_file(self, places: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[ValuesFile, list[_Wanted]]]:
        starts = [start for file in self.files for start in file.batch_starts]
        hashes: dict[int, set[bytes]] = {}
        for place, value_hash in places:
            hashes.setdefault(bisect_right(starts, place) - 1, set()).add(value_hash)
        batches = sorted(hashes)
        first = 0
        for file in self.files:
            end = first + len(file.batch_starts)
            inside = batches[bisect_left(batches, first) : bisect_left(batches, end)]
            if inside:
                yield file, [(batch - first, frozenset(hashes[batch])) for batch in inside]
            first = end

    def _reads(self, file: ValuesFile, wanted: Sequence[_Wanted]) -> list[Callable[[], list[pa.RecordBatch]]]:
        """Split the reading of a remote file."""
        if file.batch_offsets:
            return [partial(self._adjacent, file, run) for run in _runs(file, wanted)]
        step = PARQUET_BATCHES_AT_ONCE
        return [partial(self._opened, file, wanted[begin : begin + step]) for begin in range(0, len(wanted), step)]

    def _opened(self, file: ValuesFile, wanted: Sequence[_Wanted]) -> list[pa.RecordBatch]:
        with opened_batches(self.store, f"{self.folder}/{file.name}", file.size, self.schema) as batches:
            return self._chosen(file, ((batches.read(index), hashes) for index, hashes in wanted))

    def _adjacent(self, file: ValuesFile, wanted: Sequence[_Wanted]) -> list[pa.RecordBatch]:
        first, last = wanted[0][0], wanted[-1][0]
        batches = read_adjacent_batches(self.store, f"{self.folder}/{file.name}", file.batch_offsets[first : last + 2], self.schema)
        return self._chosen(file, ((batches[index - first], hashes) for index, hashes in wanted))

    def _chosen(self, file: ValuesFile, batches: Iterable[tuple[pa.RecordBatch, frozenset[bytes]]]) -> list[pa.RecordBatch]:
        chosen = []
        for read, hashes in batches:
            batch = _checked(read, self.schema, f"{self.store.url}/{self.folder}/{file.name}").select(VALUE_SCHEMA.names)
            rows = [row for row, value_hash in enumerate(batch.column("value_hash").to_pylist()) if value_hash in hashes]
            if rows:
                chosen.append(batch.take(pa.array(rows, pa.int64())).replace_schema_metadata(None))
        return chosen


def _runs(file: ValuesFile, wanted: Sequence[_Wanted]) -> Iterator[list[_Wanted]]:
    """Group record batches that are read with one request."""
    run: list[_Wanted] = []
    for index, hashes in wanted:
        if run:
            gap = file.batch_offsets[index] - file.batch_offsets[run[-1][0] + 1]
            size = file.batch_offsets[index + 1] - file.batch_offsets[run[0][0]]
            if gap > VALUES_GAP_BYTES_MAX or size > VALUES_READ_BYTES_MAX:
                yield run
                run = []
        run.append((index, hashes))
    yield run


def read_referenced_values(store: Store, folder: str, summary: DatasetSummary, records: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Read the values that records refer to; see `ShardDataset.read_values`.

    Args:
        folder: the shard's, in the store.
    """
    keys = _references(records)
    own = _ValuesFolder(store, folder, summary.values_files, OWN_VALUE_SCHEMA)
    found = own.find((key, value_hash) for value_hash, key in keys.items())
    missing = keys.keys() - _hashes(found)
    if missing:
        more = _shared(store, folder, summary).find((value_hash, value_hash) for value_hash in missing)
        found += more
        missing -= _hashes(more)
    if missing:
        raise ValueMismatchError(
            problem=f"the referenced value {min(missing).hex()} is not in the dataset",
            where=f"{store.url}/{folder}",
            remedy="Export the shard again.",
        )
    return found


def find_shared_values(store: Store, folder: str, summary: DatasetSummary, value_hashes: Sequence[bytes]) -> set[bytes]:
    """Tell which values are shared ones; see `ShardDataset.shared_among`."""
    return _hashes(_shared(store, folder, summary).find((value_hash, value_hash) for value_hash in value_hashes))


def read_whole_values_file(store: Store, folder: str, file: ValuesFile, schema: pa.Schema) -> list[pa.RecordBatch]:
    """Read all record batches of a file of values.

    Raises:
        DatasetError: the file is missing, truncated or not what the summary says.
    """
    name = f"{folder}/{file.name}"
    with opened_batches(store, name, file.size, schema) as batches:
        read = (_checked(batches.read(index), schema, f"{store.url}/{name}") for index in range(len(file.batch_starts)))
        return [batch.replace_schema_metadata(None) for batch in read]


def _shared(store: Store, folder: str, summary: DatasetSummary) -> _ValuesFolder:
    return _ValuesFolder(store, folder, summary.shared_values_files, VALUE_SCHEMA)


def _references(records: Sequence[pa.RecordBatch]) -> dict[bytes, bytes]:
    """Return each hash that records refer to, with the key of the first that does."""
    keys: dict[bytes, bytes] = {}
    for batch in records:
        hashes = batch.column("value_hash")
        if hashes.null_count != batch.num_rows:
            referring = batch.filter(hashes.is_valid())
            for key, value_hash in zip(referring.column("key").to_pylist(), referring.column("value_hash").to_pylist(), strict=True):
                keys.setdefault(value_hash, key)
    return keys


def _hashes(values: Sequence[pa.RecordBatch]) -> set[bytes]:
    return {value_hash for batch in values for value_hash in batch.column("value_hash").to_pylist()}


def _checked(batch: pa.RecordBatch, schema: pa.Schema, where: str) -> pa.RecordBatch:
    """Return a record batch of values, after a look at its columns and lengths."""
    if not batch.schema.equals(schema, check_metadata=False):
        raise _changed("a record batch of values does not have the columns that it should", where)
    try:
        # A changed offset would lead out of the file's bytes. There are few: these values are long.
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise _changed(str(error), where) from error
    return batch


def _changed(problem: str, where: str) -> DatasetError:
    return DatasetError(problem=problem, where=where, remedy="The file was changed after its export; export the shard again.")
