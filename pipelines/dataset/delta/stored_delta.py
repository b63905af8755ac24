"""Reads the objects of a delta by key ranges, each compared with the delta's statement before it is looked into."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from pipelines.dataset.delta.record_changes import RecordChanges, changes_of
from pipelines.dataset.roll_forward.merge_changes import cut_to_range
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import read_object
from schemas.errors import ObjectMismatchError, ObjectNotFoundError
from schemas.published.delta_object import Row, decode_delta_object
from schemas.published.delta_statement import DeltaObject, DeltaStatement
from schemas.published.object_layout import EpochLayout

_REMEDY = "Get the delta again, or take whole parts."


@dataclass(frozen=True, slots=True)
class StoredDelta:
    """A delta whose objects lie in a store."""

    store_url: str
    statement: DeltaStatement

    @property
    def layout(self) -> EpochLayout:
        """The target's, in whose folder the objects are."""
        return self.statement.layout

    @property
    def where(self) -> str:
        """The delta's statement, for errors."""
        statement = self.statement
        return f"{self.store_url}/{self.layout.delta_statement(statement.base.epoch_id, statement.shard_id)}"

    def object_name(self, index: int) -> str:
        """Return an object's name in the store."""
        return f"{self.layout.folder}/{self.statement.object_name(index)}"

    def rows(self) -> Iterator[Row]:
        """Yield all rows, an object at a time.

        Raises:
            As `changes`.
        """
        for index, listed in enumerate(self.statement.objects):
            for batch in _read_object(self.store_url, self.object_name(index), listed):
                yield from zip(batch["key"].to_pylist(), batch["value"].to_pylist(), strict=True)

    def changes(self, key_range: KeyRange, bytes_max: int | None = None) -> RecordChanges:
        """Read the changes of a key range.

        Args:
            bytes_max: most bytes that they may have.
        Raises:
            ObjectNotFoundError, ObjectMismatchError: an object is missing, cut or another than the statement says, or there are more
                changes; it is named.
            StoreError: it can't be read.
        """
        found: list[pa.RecordBatch] = []
        size = 0
        for index, listed in enumerate(self.statement.objects):
            if listed.last_key >= key_range.begin and (key_range.end is None or listed.first_key < key_range.end):
                cut = [cut_to_range(batch, "key", key_range) for batch in _read_object(self.store_url, self.object_name(index), listed)]
                size += sum(batch.nbytes for batch in cut)
                if bytes_max is not None and size > bytes_max:
                    raise ObjectMismatchError(
                        problem=f"more than {bytes_max} bytes have changed within one part: no part has so much",
                        where=f"{self.store_url}/{self.object_name(index)}",
                        remedy=_REMEDY,
                    )
                found += cut
        return changes_of([batch for batch in found if batch.num_rows])


def read_delta_object(store_url: str, name: str, listed: DeltaObject) -> tuple[pa.RecordBatch, ...]:
    """Read an object of a delta.

    Raises:
        ObjectNotFoundError, ObjectMismatchError: it is missing, cut or another than the statement says.
        StoreError: it can't be read.
    """
    where = f"{store_url}/{name}"
    try:
        data = read_object(open_store(store_url), name, listed.size)
    except ObjectNotFoundError as error:
        raise ObjectNotFoundError(problem="an object of a delta is missing", where=where, remedy=_REMEDY) from error
    if len(data) != listed.size or hashlib.sha256(data).hexdigest() != listed.sha256:
        raise ObjectMismatchError(problem="it does not have the sha256 that the delta's statement says", where=where, remedy=_REMEDY)
    batches = tuple(decode_delta_object(data, where))
    rows = sum(batch.num_rows for batch in batches)
    deleted = sum(batch["value"].null_count for batch in batches)
    ends = (batches[0]["key"][0].as_py(), batches[-1]["key"][-1].as_py()) if batches else None
    if (rows, deleted, ends) != (listed.records, listed.deleted, (listed.first_key, listed.last_key)):
        raise ObjectMismatchError(problem="it has other keys than the delta's statement says", where=where, remedy=_REMEDY)
    return batches


_read_object = lru_cache(maxsize=4)(read_delta_object)
"""Adjacent key ranges, which a process works on one after another, mostly lie in the same object."""
