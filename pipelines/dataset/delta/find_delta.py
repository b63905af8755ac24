"""Finds what changed in a shard between two states, and leaves it in pieces: by comparing records, or two tries in a State column.

The pieces ascend by key. `pipelines.dataset.delta.write_delta` cuts them into objects, which are the same whichever way the changes
were found.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

import pyarrow as pa

from pipelines.dataset.dataset_files import naming_damage
from pipelines.dataset.delta.record_changes import find_changes, rows_of, within_ranges
from pipelines.dataset.delta.shard_records import ShardRecords, pieces_of
from pipelines.dataset.delta.stored_delta import StoredDelta
from pipelines.near.files.external_sort import ExternalSort
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.near.node.state_column import READ_ROWS_MAX, StateColumn, StateColumnPlace
from pipelines.near.trie.walk_difference import trie_difference
from pipelines.stores.held_folder import held_folder
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import read_object
from pipelines.stores.store import Store
from schemas.errors import ObjectMismatchError, ObjectNotFoundError, ValueMismatchError
from schemas.ids import CryptoHash
from schemas.json_document import FieldReader
from schemas.json_note import read_note
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX
from schemas.published.delta_object import DELTA_SCHEMA, Row
from schemas.published.delta_statement import WHOLE_BASE, BaseRange, DeltaEnd

PIECES_PER_TASK: Final = 8
"""Pieces of the older state that one task compares: the newer one's, which end elsewhere, are read once for all of them."""

PIECE_BYTES_TARGET: Final = 64 << 20
"""A piece of changes that are found in order is closed at so many bytes of keys and values: one is held in memory."""

NOTE_BYTES_MAX: Final = 4096

PIECE_BATCH_ROWS: Final = 4096
"""Rows of a record batch of a piece."""

_GONE: Final = b"\0"
_VALUE: Final = b"\1"
_REFERENCE: Final = b"\2"
_LENGTH_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class FoundChanges:
    """How many changes there are, in how many pieces."""

    rows: int
    pieces: int


def read_found_changes(document: dict[str, Any]) -> FoundChanges:
    """Read the note of pieces that are all there."""
    reader = FieldReader(document, "note of changes")
    return FoundChanges(reader.number("rows", 0, 2**48), reader.number("pieces", 0, 2**32))


def _up_to(rows: Iterator[Row], bytes_target: int) -> Iterator[Row]:
    """Yield rows until they have so many bytes."""
    size = 0
    for key, value in rows:
        size += len(key) + len(value or b"")
        yield key, value
        if size >= bytes_target:
            return


@dataclass(frozen=True, slots=True)
class DeltaWork:
    """Where the pieces of one delta are: a value by which a rerun finds them again."""

    url: str
    folder: str

    @classmethod
    def of(cls, url: str, base: DeltaEnd, target: DeltaEnd, ranges: Sequence[BaseRange], way: str) -> DeltaWork:
        """Return the folder of the changes between two states.

        Args:
            way: how the changes are found, and what says where the pieces end.
        """
        inputs = [base.to_json(), target.to_json(), [[one.begin.hex(), one.end and one.end.hex()] for one in ranges], way]
        return cls(url, f"delta-{hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]}")

    def store(self) -> Store:
        """Open the store that the folder is in."""
        return open_store(self.url, durable=False)

    def piece(self, index: int) -> str:
        """Return the name of a piece."""
        return f"{self.folder}/changes-{index:06d}.arrow"

    def put_piece(self, index: int, rows: Iterable[Row]) -> int:
        """Leave a piece; return its rows.

        Raises:
            StoreError: it can't be written.
        """
        sink = pa.BufferOutputStream()
        count = 0
        following = iter(rows)
        with pa.ipc.new_file(sink, DELTA_SCHEMA) as writer:
            while step := list(itertools.islice(following, PIECE_BATCH_ROWS)):
                keys, values = zip(*step, strict=True)
                writer.write_batch(pa.record_batch([pa.array(keys, pa.binary()), pa.array(values, pa.binary())], schema=DELTA_SCHEMA))
                count += len(step)
        self.store().put(self.piece(index), sink.getvalue())
        return count

    def put_pieces(self, rows: Iterable[Row]) -> FoundChanges:
        """Leave rows in as many pieces as it takes to hold one of them at a time, and a note that they are all there.

        Raises:
            StoreError: they can't be written.
        """
        following = iter(rows)
        count = pieces = 0
        while piece := list(_up_to(following, PIECE_BYTES_TARGET)):
            count += self.put_piece(pieces, piece)
            pieces += 1
        found = FoundChanges(count, pieces)
        self.store().put(self.note, json.dumps({"rows": count, "pieces": pieces}).encode())
        return found

    @property
    def note(self) -> str:
        """Return the name of the note that `put_pieces` leaves last."""
        return f"{self.folder}/pieces.json"

    def noted(self) -> FoundChanges | None:
        """Return what `put_pieces` of an earlier run has left; None where it was not finished."""
        try:
            return read_note(read_object(self.store(), self.note, NOTE_BYTES_MAX), read_found_changes)
        except (ObjectNotFoundError, ObjectMismatchError):
            return None

    def read_piece(self, index: int) -> Iterator[Row]:
        """Yield the rows of a piece.

        Raises:
            DatasetError: it is damaged.
            StoreError: it can't be read.
        """
        store = self.store()
        with naming_damage(f"{store.url}/{self.piece(index)}"), store.open(self.piece(index)) as source:
            reader = pa.ipc.open_file(source)
            for number in range(reader.num_record_batches):
                yield from zip(*(column.to_pylist() for column in reader.get_batch(number).columns), strict=True)

    def remove(self) -> None:
        """Delete everything in the folder."""
        self.store().delete_folder(self.folder)


@dataclass(frozen=True, slots=True)
class CompareRecordsTask:
    """Compares some pieces of an older state with the newer one."""

    older: ShardRecords
    newer: ShardRecords
    ranges: tuple[BaseRange, ...]
    """What is taken of the older state."""
    work: DeltaWork
    first: int
    """Of the pieces, the first."""
    pieces: tuple[KeyRange, ...]

    def run(self) -> int:
        """Leave a piece of changes for each; return how many changes were found now.

        Raises:
            SourceError, StoreError, IntegrityError: passed on.
        """
        store = self.work.store()
        count = 0
        for index, key_range in enumerate(self.pieces, self.first):
            if store.info(self.work.piece(index)) is None:
                count += self.work.put_piece(index, self._changes(key_range))
        return count

    def _changes(self, key_range: KeyRange) -> Iterator[Row]:
        content = self.older.content_of(key_range) if self.ranges == WHOLE_BASE else None
        if content is not None and content == self.newer.content_of(key_range):
            return iter(())
        older, newer = self.older.read(key_range), self.newer.read(key_range)
        taken = older.records if self.ranges == WHOLE_BASE else within_ranges(older.records, self.ranges)
        return rows_of(find_changes(taken, newer.records), newer.read_values)


def compare_tasks(older: ShardRecords, newer: ShardRecords, ranges: tuple[BaseRange, ...], work: DeltaWork) -> list[CompareRecordsTask]:
    """Split a comparison into tasks."""
    pieces = pieces_of(older)
    return [
        CompareRecordsTask(older, newer, ranges, work, first, tuple(pieces[first : first + PIECES_PER_TASK]))
        for first in range(0, len(pieces), PIECES_PER_TASK)
    ]


@dataclass(frozen=True, slots=True)
class CompareTriesTask:
    """Compares two tries of a State column: costs what differs."""

    place: StateColumnPlace
    base_root: CryptoHash
    target_root: CryptoHash
    ranges: tuple[BaseRange, ...]
    """What is taken of the base."""
    work: DeltaWork

    def run(self) -> FoundChanges:
        """Leave the changes in pieces, or take those of an earlier run.

        Raises:
            MissingTrieValueError, ValueMismatchError: a node or value is not in the State column.
            SourceError, IntegrityError, StoreError: passed on.
        """
        earlier = self.work.noted()
        if earlier is not None:
            return earlier
        column = self.place.open()
        with held_folder("changes") as folder:
            sort = ExternalSort(folder)
            found = trie_difference(column, self.base_root, self.target_root, lambda _: True)
            while step := list(itertools.islice(found, READ_ROWS_MAX)):
                short = [leaf for _, leaf in step if leaf is not None and leaf.value_length <= INLINED_VALUE_BYTES_MAX]
                values = dict(zip([leaf.key for leaf in short], column.read([leaf.value_hash for leaf in short]), strict=True))
                for key, leaf in step:
                    if leaf is None:
                        payload = _GONE
                    elif key in values and leaf.value_length:
                        payload = _VALUE + _checked(values[key], leaf.value_hash, leaf.value_length, key, column)
                    elif not leaf.value_length:
                        payload = _VALUE
                    else:
                        payload = _REFERENCE + leaf.value_length.to_bytes(_LENGTH_BYTES, "little") + leaf.value_hash
                    sort.add(key, 0, payload)
            sort.flush()
            return self.work.put_pieces(self._rows(sort, column))

    def _rows(self, sort: ExternalSort, column: StateColumn) -> Iterator[Row]:
        for key, _, payload in sort.entries(b"", None):
            if payload == _GONE:
                # What lies outside of the ranges is not taken of the base, so nothing has to say that it is gone.
                if self._is_taken(key):
                    yield key, None
            elif payload[:1] == _VALUE:
                yield key, payload[1:]
            else:
                length = int.from_bytes(payload[1 : 1 + _LENGTH_BYTES], "little")
                value_hash = payload[1 + _LENGTH_BYTES :]
                yield key, _checked(column.read([value_hash])[0], value_hash, length, key, column)

    def _is_taken(self, key: bytes) -> bool:
        return any(one.begin <= key and (one.end is None or key < one.end) for one in self.ranges)


@dataclass(frozen=True, slots=True)
class ComposeDeltasTask:
    """Makes one delta of several that follow each other: the last word on each key.

    A record that changed and changed back is a row all the same, for nothing here knows what it was at first.
    """

    steps: tuple[StoredDelta, ...]
    """From the base to the target."""
    work: DeltaWork

    def run(self) -> FoundChanges:
        """Leave the changes in pieces, or take those of an earlier run.

        Raises:
            ObjectNotFoundError, ObjectMismatchError: an object of a delta is missing or wrong; it is named.
            StoreError: passed on.
        """
        earlier = self.work.noted()
        return self.work.put_pieces(self._rows()) if earlier is None else earlier

    def _rows(self) -> Iterator[Row]:
        numbered = (((key, number, value) for key, value in step.rows()) for number, step in enumerate(self.steps))
        for key, group in itertools.groupby(heapq.merge(*numbered, key=itemgetter(0, 1)), key=itemgetter(0)):
            *_, (_, _, value) = group
            yield key, value


def _checked(value: bytes | None, value_hash: bytes, length: int, key: bytes, column: StateColumn) -> bytes:
    if value is None or len(value) != length:
        raise ValueMismatchError(
            problem=f"the value {CryptoHash(value_hash)} {column.explain(value_hash)}", where=f"trie key {key.hex()}, {column.where}"
        )
    return value
