"""Reads what an export left: dataset summaries, slices of records, and referenced values.

Files are opened for random access through a store and read by record batch, so a local dataset is memory-mapped and a remote
one is read in ranges. Nothing is written.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.stores.file_store import FileStore
from pipelines.stores.open_store import open_store
from pipelines.stores.protocol import Store
from schemas.dataset import DatasetShard, RecordsFile, ValuesFile, shard_folder
from schemas.epoch_context import EpochContext
from schemas.errors import DatasetError, EpochNotReadyError, ObjectNotFoundError, ValueMismatchError
from schemas.flat_state import RECORD_SCHEMA, VALUE_SCHEMA
from schemas.ids import ShardUId

VALUES_FILES_READ_AT_ONCE = 16
"""Files of referenced values that are read from a remote store at once."""

SUMMARY_NAME: Final = "shard.json"
"""In a shard's folder: what it holds, written last."""


@dataclass(frozen=True, slots=True)
class RowSpan:
    """Rows [start, stop) of the file with this index."""

    file_index: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class ShardDataset:
    """One exported shard in a store; picklable, opens the store where it is used."""

    url: str
    """The dataset's root."""
    summary: DatasetShard

    @property
    def folder(self) -> str:
        """Where the shard's files are, relative to the root."""
        return shard_folder(self.summary.context, self.summary.shard.shard_uid)

    def read_file(self, file_index: int, columns: Sequence[str] | None = None) -> list[pa.RecordBatch]:
        """Read all record batches of a file.

        Raises:
            DatasetError: the file is missing, truncated or not what the summary says.
        """
        file = self.summary.files[file_index]
        return self.read_span(RowSpan(file_index, 0, file.records), columns)

    def read_span(self, span: RowSpan, columns: Sequence[str] | None = None) -> list[pa.RecordBatch]:
        """Read the record batches that hold a span's rows, cut to it.

        Raises:
            DatasetError: the file is missing, truncated or not what the summary says.
        """
        file = self.summary.files[span.file_index]
        taken = []
        with _opened(open_store(self.url), f"{self.folder}/{file.name}", file.size) as batches:
            row = 0
            for index, rows in enumerate(file.batch_rows):
                start, stop = max(span.start - row, 0), min(span.stop - row, rows)
                if start < stop:
                    batch = batches.read(index)
                    self._check_batch(file, index, batch)
                    taken.append(
                        batch.slice(start, stop - start) if columns is None else batch.slice(start, stop - start).select(list(columns))
                    )
                row += rows
        return taken

    def _check_batch(self, file: RecordsFile, index: int, batch: pa.RecordBatch) -> None:
        if batch.num_rows != file.batch_rows[index] or not batch.schema.equals(RECORD_SCHEMA, check_metadata=False):
            raise DatasetError(
                problem=f"record batch {index} does not have the rows and columns that the summary says",
                where=f"{self.url}/{self.folder}/{file.name}",
                remedy="The file was changed after its export; export the shard again.",
            )

    def read_values(self, value_hashes: Sequence[bytes]) -> list[pa.RecordBatch]:
        """Read referenced values.

        Args:
            value_hashes: unique, ascending.
        Returns:
            Record batches of ``VALUE_SCHEMA``, one row a hash, in that order.
        Raises:
            ValueMismatchError: the dataset lacks a value.
            DatasetError: a file is missing or truncated.
        """
        store = open_store(self.url)
        by_file = list(self._by_file(value_hashes))
        if isinstance(store, FileStore) or len(by_file) < 2:
            return [batch for file, hashes in by_file for batch in self._values_of(store, file, hashes)]
        # Values are sorted by hash, so those of one part lie in every file: one after the other, a part would wait for its requests
        # far longer than it computes.
        with ThreadPoolExecutor(min(VALUES_FILES_READ_AT_ONCE, len(by_file))) as readers:
            found = readers.map(lambda one: self._values_of(store, *one), by_file)
            return [batch for batches in found for batch in batches]

    def _values_of(self, store: Store, file: ValuesFile, value_hashes: Sequence[bytes]) -> list[pa.RecordBatch]:
        """Read some values of one file."""
        found: list[pa.RecordBatch] = []
        where = f"{self.folder}/{file.name}"
        with _opened(store, where, file.size) as batches:
            for batch_index, wanted in _by_batch(file, value_hashes):
                batch = batches.read(batch_index)
                rows = {value_hash: row for row, value_hash in enumerate(batch.column("value_hash").to_pylist())}
                missing = [value_hash for value_hash in wanted if value_hash not in rows]
                if missing:
                    raise _missing_value(missing[0], f"{self.url}/{where}")
                found.append(batch.take(pa.array([rows[value_hash] for value_hash in wanted], pa.int64())).replace_schema_metadata(None))
        return found

    def read_values_file(self, file_index: int) -> list[pa.RecordBatch]:
        """Read all record batches of a file of referenced values.

        Raises:
            DatasetError: the file is missing, truncated or not what the summary says.
        """
        file = self.summary.values_files[file_index]
        with _opened(open_store(self.url), f"{self.folder}/{file.name}", file.size) as batches:
            return [batches.read(index).replace_schema_metadata(None) for index in range(len(file.batch_first_hashes))]

    def neighbouring_keys(self, file_index: int) -> tuple[bytes | None, bytes | None]:
        """Return the last key before a file and the first key after it; None at the ends of the shard."""
        files = self.summary.files
        before = files[file_index - 1].last_key if file_index else None
        return before, files[file_index + 1].first_key if file_index + 1 < len(files) else None

    def state_header(self) -> bytes | None:
        """Return the state header that was exported with the shard; None where there was none.

        Whether it may be believed says the summary: without `verified_state_header_sha256` nobody has verified all of it.

        Raises:
            DatasetError: the summary says that there is one, but it is missing or another.
        """
        if not self.summary.has_state_header:
            return None
        expected = self.summary.verified_state_header_sha256
        try:
            header = open_store(self.url).get(f"{self.folder}/state_header")
        except ObjectNotFoundError as error:
            raise DatasetError(
                problem="the state header is missing", where=f"{self.url}/{self.folder}", remedy="Export the shard again."
            ) from error
        if expected is not None and hashlib.sha256(header).hexdigest() != expected:
            raise DatasetError(
                problem="the state header does not have the sha256 that the summary says",
                where=f"{self.url}/{self.folder}/state_header",
                remedy="It was changed after its export; export the shard again.",
            )
        return header

    def _by_file(self, value_hashes: Sequence[bytes]) -> Iterator[tuple[ValuesFile, list[bytes]]]:
        files = self.summary.values_files
        starts = [file.batch_first_hashes[0] for file in files]
        groups: dict[int, list[bytes]] = {}
        for value_hash in value_hashes:
            index = bisect_right(starts, value_hash) - 1
            if index < 0:
                raise _missing_value(value_hash, f"{self.url}/{self.folder}")
            groups.setdefault(index, []).append(value_hash)
        for index, hashes in groups.items():
            yield files[index], hashes


def _by_batch(file: ValuesFile, hashes: Sequence[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    groups: dict[int, list[bytes]] = {}
    for value_hash in hashes:
        groups.setdefault(bisect_right(file.batch_first_hashes, value_hash) - 1, []).append(value_hash)
    yield from groups.items()


def _missing_value(value_hash: bytes, where: str) -> ValueMismatchError:
    return ValueMismatchError(
        problem=f"the referenced value {value_hash.hex()} is not in the dataset", where=where, remedy="Export the shard again."
    )


class _IpcBatches:
    def __init__(self, source: pa.NativeFile) -> None:
        self._reader = pa.ipc.open_file(source)

    def read(self, index: int) -> pa.RecordBatch:
        return self._reader.get_batch(index)


class _ParquetBatches:
    def __init__(self, source: pa.NativeFile) -> None:
        self._file = pq.ParquetFile(source)

    def read(self, index: int) -> pa.RecordBatch:
        table = self._file.read_row_group(index)
        schema = RECORD_SCHEMA if "key" in table.column_names else VALUE_SCHEMA
        return pa.Table.from_batches(table.to_batches()).cast(schema).combine_chunks().to_batches()[0]


@contextmanager
def _opened(store: Store, name: str, size: int) -> Iterator[_IpcBatches | _ParquetBatches]:
    """Open a dataset file; maps what pyarrow raises on a cut or changed file."""
    where = f"{store.url}/{name}"
    try:
        with store.open(name) as source:
            if source.size() != size:
                raise DatasetError(
                    problem=f"the file has {source.size()} bytes, its summary says {size}",
                    where=where,
                    remedy="It was cut off or changed; export the shard again.",
                )
            yield _ParquetBatches(source) if name.endswith(".parquet") else _IpcBatches(source)
    except ObjectNotFoundError as error:
        raise DatasetError(problem="a file of the dataset is missing", where=where, remedy="Export the shard again.") from error
    except (pa.ArrowInvalid, pa.ArrowIOError, pa.ArrowTypeError, IndexError) as error:
        raise DatasetError(
            problem=f"the file can't be read as Arrow: {error}", where=where, remedy="It was cut off or changed; export the shard again."
        ) from error


def load_shard(url: str, context: EpochContext, shard_uid: ShardUId) -> ShardDataset | None:
    """Return an exported shard; None when its summary is not there.

    Raises:
        DatasetError: the summary can't be decoded.
    """
    store = open_store(url)
    name = f"{shard_folder(context, shard_uid)}/{SUMMARY_NAME}"
    try:
        data = store.get(name)
    except ObjectNotFoundError:
        return None
    return ShardDataset(url, DatasetShard.from_bytes(data, f"{url}/{name}"))


def list_shards(url: str) -> list[ShardDataset]:
    """Return all exported shards below a URL, which may be the dataset's root or one epoch's or shard's folder.

    Raises:
        DatasetError: none is there, or a summary can't be decoded.
    """
    root, prefix = _split_dataset_url(url)
    store = open_store(root)
    names = sorted(info.name for info in store.list(prefix) if info.name.endswith(f"/{SUMMARY_NAME}"))
    if not names:
        raise DatasetError(problem="no exported shard is there", where=url, remedy="statecast export --to dataset://… writes one.")
    return [ShardDataset(root, DatasetShard.from_bytes(store.get(name), f"{root}/{name}")) for name in names]


def _split_dataset_url(url: str) -> tuple[str, str]:
    """Cut ``…/chain_id=C/…`` into the dataset's root and the folder below it."""
    head, marker, tail = url.partition("/chain_id=")
    return (head, f"chain_id={tail}".rstrip("/")) if marker else (url.rstrip("/") or "/", "")


def select_epoch(shards: Sequence[ShardDataset], selector: str) -> tuple[EpochContext, list[ShardDataset]]:
    """Pick one epoch's shards out of a dataset.

    Args:
        selector: ``latest`` (the greatest epoch height), a height, or an epoch id in base58.
    Raises:
        EpochNotReadyError: no such epoch in the dataset.
        DatasetError: two chains in one dataset.
    """
    chains = sorted({shard.summary.context.chain_id for shard in shards})
    if len(chains) > 1:
        raise DatasetError(
            problem=f"the dataset holds several chains: {', '.join(chains)}", where=shards[0].url, remedy="Name one: …/chain_id=C."
        )
    height_max = max(shard.summary.context.epoch_height for shard in shards)
    taken = [
        shard
        for shard in shards
        if (selector == "latest" and shard.summary.context.epoch_height == height_max)
        or selector in (str(shard.summary.context.epoch_height), str(shard.summary.context.epoch_id))
    ]
    epoch_ids = {shard.summary.context.epoch_id for shard in taken}
    if len(epoch_ids) != 1:
        known = ", ".join(sorted({f"{shard.summary.context.epoch_height} ({shard.summary.context.epoch_id})" for shard in shards}))
        problem = f"epoch {selector} is not in the dataset" if not taken else f"epoch height {selector} names several epochs"
        raise EpochNotReadyError(problem=problem, where=shards[0].url, remedy=f"It holds {known}.")
    taken.sort(key=lambda shard: shard.summary.shard.shard_id)
    first = taken[0].summary.context
    context = EpochContext(
        chain_id=first.chain_id,
        epoch_height=first.epoch_height,
        epoch_id=first.epoch_id,
        sync_hash=first.sync_hash,
        protocol_version=first.protocol_version,
        shards=tuple(shard.summary.shard for shard in taken),
        block_headers=first.block_headers,
        shard_layout=next((layout for shard in taken if (layout := shard.summary.context.shard_layout) is not None), None),
    )
    return context, taken
