"""Reads what an export left: dataset summaries, slices of records, and through `pipelines.dataset.referenced_values` values.

A summary has some 700 bytes a file and there are as many tasks as files, so tasks carry a `DatasetReference` alone, and each worker reads the
summary once (`read_dataset`). Nothing is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import pyarrow as pa

from pipelines.dataset.dataset_files import opened_batches
from pipelines.dataset.referenced_values import find_shared_values, read_referenced_values, read_whole_values_file
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import find_document, read_object
from schemas.dataset.dataset_summary import SUMMARY_BYTES_MAX, DatasetSummary, RecordsFile, shard_folder
from schemas.dataset.flat_state import OWN_VALUE_SCHEMA, RECORD_SCHEMA, VALUE_SCHEMA
from schemas.errors import DatasetError, EpochNotReadyError, ObjectMismatchError, ObjectNotFoundError, StoreNotListedError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.state_header import STATE_HEADER_BYTES_MAX
from schemas.published.object_layout import split_chain_url

DATASET_SCHEME: Final = "dataset://"
"""In front of a dataset's own URL, where a command takes other things too."""

SUMMARY_NAME: Final = "shard.json"
"""In a shard's folder: what it holds, written last."""

SUMMARIES_KEPT: Final = 4
"""Summaries that a process keeps: of the shard at work, of the older one and its changes in a roll forward, and one to spare."""


@dataclass(frozen=True, slots=True)
class RowSpan:
    """Rows [start, stop) of the file with this index."""

    file_index: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class DatasetReference:
    """Names one exported shard in a store: what a task carries, of one size whatever the dataset's."""

    url: str
    """The dataset's root."""
    folder: str
    """Where the shard's files are, relative to the root."""
    content_sha256: str
    """Of the summary, but for the two that are noted later (`DatasetSummary.content_sha256`): a dataset that was exported again is another."""
    verified_state_root: CryptoHash | None
    """As it was noted when the reference was made; another run may note it while tasks of this one read."""
    memory_usage: int | None
    """Likewise."""
    summary_name: str = SUMMARY_NAME
    """In the folder."""


@dataclass(frozen=True, slots=True)
class ShardDataset:
    """One exported shard in a store, with its summary; opens the store where it is used."""

    reference: DatasetReference
    summary: DatasetSummary

    @classmethod
    def of(cls, url: str, summary: DatasetSummary, summary_name: str = SUMMARY_NAME) -> ShardDataset:
        """Return the dataset of a summary that is in its place below a root."""
        folder = shard_folder(summary.context, summary.shard.shard_uid)
        noted = (summary.verified_state_root, summary.memory_usage)
        return cls(DatasetReference(url, folder, summary.content_sha256(), *noted, summary_name), summary)

    @property
    def url(self) -> str:
        """The dataset's root."""
        return self.reference.url

    @property
    def folder(self) -> str:
        """Where the shard's files are, relative to the root."""
        return self.reference.folder

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
        with opened_batches(open_store(self.url), f"{self.folder}/{file.name}", file.size, RECORD_SCHEMA) as batches:
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
        # A changed offset would lead out of the file's bytes, which ends the process.
        batch.validate(full=True)

    def read_values(self, records: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
        """Read the values that some of the shard's records refer to.

        Args:
            records: ascending by key; needs the columns ``key`` and ``value_hash``.
        Returns:
            Record batches of ``VALUE_SCHEMA``: each value once, own values in their records' order before shared ones by hash.
        Raises:
            ValueMismatchError: the dataset lacks a value.
            DatasetError: a file is missing or truncated.
        """
        return read_referenced_values(open_store(self.url), self.folder, self.summary, records)

    def read_own_values_file(self, file_index: int) -> list[pa.RecordBatch]:
        """Read all record batches of a file of own values, of ``OWN_VALUE_SCHEMA``.

        Raises:
            DatasetError: the file is missing, truncated or not what the summary says.
        """
        return read_whole_values_file(open_store(self.url), self.folder, self.summary.values_files[file_index], OWN_VALUE_SCHEMA)

    def read_shared_values_file(self, file_index: int) -> list[pa.RecordBatch]:
        """Read all record batches of a file of shared values, of ``VALUE_SCHEMA``.

        Raises:
            DatasetError: the file is missing, truncated or not what the summary says.
        """
        return read_whole_values_file(open_store(self.url), self.folder, self.summary.shared_values_files[file_index], VALUE_SCHEMA)

    def shared_among(self, value_hashes: Sequence[bytes]) -> set[bytes]:
        """Tell which values are shared ones of this dataset; reads the record batches that could hold them.

        Args:
            value_hashes: unique, ascending.
        Raises:
            DatasetError: a file is missing or truncated.
        """
        return find_shared_values(open_store(self.url), self.folder, self.summary, value_hashes)

    def neighbouring_keys(self, file_index: int) -> tuple[bytes | None, bytes | None]:
        """Return the last key before a file and the first key after it; None at the ends of the shard."""
        files = self.summary.files
        before = files[file_index - 1].last_key if file_index else None
        return before, files[file_index + 1].first_key if file_index + 1 < len(files) else None

    def state_header(self) -> bytes | None:
        """Return the state header that was exported with the shard; None where there was none.

        The summary says whether it was verified: without `verified_state_header_sha256` it was not, or not in full.

        Raises:
            DatasetError: the summary says that there is one, but it is missing or another.
        """
        if not self.summary.has_state_header:
            return None
        expected = self.summary.verified_state_header_sha256
        try:
            header = read_object(open_store(self.url), f"{self.folder}/state_header", STATE_HEADER_BYTES_MAX)
        except (ObjectNotFoundError, ObjectMismatchError) as error:
            problem = "is missing" if isinstance(error, ObjectNotFoundError) else f"is none: {error.problem}"
            raise DatasetError(
                problem=f"the state header {problem}", where=f"{self.url}/{self.folder}", remedy="Export the shard again."
            ) from error
        if expected is not None and hashlib.sha256(header).hexdigest() != expected:
            raise DatasetError(
                problem="the state header does not have the sha256 that the summary says",
                where=f"{self.url}/{self.folder}/state_header",
                remedy="It was changed after its export; export the shard again.",
            )
        return header

    def is_whole(self) -> bool:
        """Return whether all files are there in their sizes, and the state header as it was put; of the files nothing is read."""
        try:
            self.state_header()
        except DatasetError:
            return False
        sizes = {info.name: info.size for info in open_store(self.url).list(self.folder)}
        return all(sizes.get(f"{self.folder}/{file.name}") == file.size for file in self.summary.all_files)


@lru_cache(maxsize=SUMMARIES_KEPT)
def read_dataset(reference: DatasetReference) -> ShardDataset:
    """Return the dataset that a reference was made of; its summary is read once for all tasks that a process runs one after another.

    Raises:
        DatasetError: the summary is gone, can't be decoded, or is of another dataset than the reference.
        StoreError: it can't be read.
    """
    name = f"{reference.folder}/{reference.summary_name}"
    where = f"{reference.url}/{name}"
    try:
        data = open_store(reference.url).get(name, 0, SUMMARY_BYTES_MAX + 1)
    except ObjectNotFoundError as error:
        raise DatasetError(
            problem="the summary of the dataset that is read is gone", where=where, remedy="Another run removed the dataset; run again."
        ) from error
    summary = DatasetSummary.from_bytes(data, where)
    if summary.content_sha256() != reference.content_sha256:
        raise DatasetError(
            problem="the summary is of another dataset than the one that this run has begun to read",
            where=where,
            remedy="Another run exported the shard again; run again.",
        )
    noted = replace(summary, verified_state_root=reference.verified_state_root, memory_usage=reference.memory_usage)
    return ShardDataset(reference, noted)


def load_shard(url: str, context: EpochContext, shard_uid: ShardUId) -> ShardDataset | None:
    """Return an exported shard; None when its summary is not there.

    Raises:
        DatasetError: the summary can't be decoded.
    """
    store = open_store(url)
    name = f"{shard_folder(context, shard_uid)}/{SUMMARY_NAME}"
    data = find_document(store, name, SUMMARY_BYTES_MAX)
    return None if data is None else ShardDataset.of(url, DatasetSummary.from_bytes(data, f"{url}/{name}"))


def list_shards(url: str) -> list[ShardDataset]:
    """Return all exported shards below a URL, which may be the dataset's root or one epoch's or shard's folder.

    Raises:
        DatasetError: none is there, or a summary can't be decoded.
    """
    root, prefix = split_chain_url(url)
    store = open_store(root)
    try:
        names = sorted(info.name for info in store.list(prefix) if info.name.endswith(f"/{SUMMARY_NAME}"))
    except StoreNotListedError:
        names = [f"{prefix}/{SUMMARY_NAME}"] if prefix and store.info(f"{prefix}/{SUMMARY_NAME}") else []
        if not names:
            raise
    if not names:
        raise DatasetError(problem="no exported shard is there", where=url, remedy="statecast export --to dataset://… writes one.")
    return [ShardDataset.of(root, DatasetSummary.from_bytes(store.get(name, 0, SUMMARY_BYTES_MAX + 1), f"{root}/{name}")) for name in names]


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
    layout = next((layout for shard in taken if (layout := shard.summary.context.shard_layout) is not None), None)
    context = replace(first, shards=tuple(shard.summary.shard for shard in taken), shard_layout=layout)
    return context, taken
