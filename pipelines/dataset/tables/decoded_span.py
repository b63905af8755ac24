"""A span of a dataset's records, chosen and decoded: what one task of a scan reads. Small to pickle, whatever the dataset's size."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.dataset.arrow_dataset import DatasetReference, RowSpan, ShardDataset, read_dataset
from pipelines.dataset.tables.decoded_records import decode_batch
from pipelines.dataset.tables.key_intervals import KeyInterval, rows_within
from schemas.dataset.dataset_summary import RecordsFile
from schemas.dataset.decoded_record import DECODED_SCHEMA, columns_of
from schemas.dataset.flat_state import RECORD_SCHEMA
from schemas.errors import InvalidInputError
from schemas.nearcore.trie_key import KINDS_BY_FIRST_BYTE, TrieKeyKind


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records and columns a scan is for."""

    columns: tuple[str, ...] | None
    """Names of ``DECODED_SCHEMA``; None for those that the kinds with a record's first byte have."""
    kinds: frozenset[TrieKeyKind] | None = None
    """None for all."""
    strict: bool = False
    """Raise on a key or value that does not decode."""
    keys: tuple[KeyInterval, ...] | None = None
    """Ascending; None for all."""


@dataclass(frozen=True, slots=True)
class DecodedSpan:
    """Rows of one file."""

    dataset: DatasetReference
    file: RecordsFile
    """The file that is read."""
    span: RowSpan
    selection: Selection

    @property
    def size(self) -> int:
        """Stored bytes of the span, about."""
        return self.file.size * (self.span.stop - self.span.start) // max(1, self.file.records)

    def read(self) -> Iterator[pa.RecordBatch]:
        """Yield the chosen records, decoded, in key order.

        Raises:
            DatasetError: the file is missing or changed.
            MalformedValueError: in strict mode.
        """
        choice = self.selection
        dataset = read_dataset(self.dataset)
        shard_uid = str(dataset.summary.shard.shard_uid)

        def look_up(records: pa.RecordBatch) -> dict[bytes, bytes]:
            found = dataset.read_values([records])
            columns = ((batch["value_hash"].to_pylist(), batch["value"].to_pylist()) for batch in found)
            return {value_hash: value for pair in columns for value_hash, value in zip(*pair, strict=True)}

        for batch in dataset.read_span(self.span):
            for rows in (batch,) if choice.keys is None else rows_within(batch, choice.keys):
                yield from decode_batch(rows, shard_uid, choice.columns, choice.kinds, strict=choice.strict, look_up=look_up)


def decoded_spans(dataset: ShardDataset, selection: Selection, pieces_per_file: int = 1) -> Iterator[DecodedSpan]:
    """Yield the spans of a shard that can hold chosen records, in key order.

    Args:
        pieces_per_file: how many spans a file is cut into, as far as it has record batches.
    """
    for index, file in enumerate(dataset.summary.files):
        if not _may_hold(file, selection):
            continue
        for start, stop in _pieces(file.batch_rows, pieces_per_file):
            yield DecodedSpan(dataset.reference, file, RowSpan(index, start, stop), selection)


def _may_hold(file: RecordsFile, selection: Selection) -> bool:
    """Tell by a file's first and last key whether it can hold chosen records."""
    kinds, keys = selection.kinds, selection.keys
    if keys is not None and not any(interval.overlaps(file.first_key, file.last_key) for interval in keys):
        return False
    if kinds is None:
        return True
    first, last = (key[0] if key else -1 for key in (file.first_key, file.last_key))
    known = KINDS_BY_FIRST_BYTE
    wanted = {byte for byte in range(-1, 256) if set(known.get(byte, (TrieKeyKind.UNKNOWN,))) & set(kinds)}
    return any(first <= byte <= last for byte in wanted)


def _pieces(batch_rows: Sequence[int], count: int) -> Iterator[tuple[int, int]]:
    """Cut a file's rows between record batches into ``count`` pieces of about as many batches each."""
    count = min(count, len(batch_rows))
    start, row = 0, 0
    for piece in range(count):
        stop = (piece + 1) * len(batch_rows) // count
        rows = sum(batch_rows[start:stop])
        yield row, row + rows
        start, row = stop, row + rows


def select(
    kinds: Collection[str] | None = None, columns: Sequence[str] | None = None, decode: bool = True, strict: bool = False
) -> Selection:
    """Check a selection that a user gave.

    Args:
        kinds: names of kinds; None for all.
        columns: names of ``DECODED_SCHEMA``; None for all that the kinds have, or the raw ones where ``decode`` is False.
    Raises:
        InvalidInputError: an unknown name.
    """
    unknown = sorted({*(kinds or ())} - {str(kind) for kind in TrieKeyKind})
    if unknown:
        raise InvalidInputError(problem=f"no kind of record is called {unknown[0]}", remedy=f"There are {', '.join(TrieKeyKind)}.")
    chosen = None if kinds is None else frozenset(TrieKeyKind(kind) for kind in kinds)
    if columns is None and not decode:
        columns = ("shard_uid", *RECORD_SCHEMA.names)
    elif columns is None:
        columns = columns_of(chosen or TrieKeyKind)
    unknown = [name for name in columns if name not in DECODED_SCHEMA.names]
    if unknown or not columns:
        problem = f"no column is called {unknown[0]}" if unknown else "no column is asked for"
        raise InvalidInputError(problem=problem, remedy=f"There are {', '.join(DECODED_SCHEMA.names)}.")
    return Selection(tuple(columns), chosen, strict)
