"""Cuts the changes of a shard into objects and puts them where the target's epoch is published."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.dataset.delta.find_delta import DeltaWork
from pipelines.stores.compare_and_swap import swapped
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import holds_same_bytes
from pipelines.stores.store import ObjectInfo, Store
from schemas.published.delta_object import Row, cut_rows, encode_delta_object
from schemas.published.delta_statement import BaseRange, DeltaEnd, DeltaObject, DeltaStatement
from schemas.published.object_layout import EpochLayout


@dataclass(frozen=True, slots=True)
class WriteDeltaTask:
    """Writes the objects of one delta. One task a delta, whatever the number of workers: where an object ends follows from all before it."""

    chain_id: str
    base: DeltaEnd
    target: DeltaEnd
    ranges: tuple[BaseRange, ...]
    work: DeltaWork
    pieces: int
    store_url: str

    def run(self) -> DeltaStatement:
        """Put the objects, each read back; return what a statement says of them.

        Raises:
            ObjectExistsError: other producers were faster each time.
            StoreError: passed on.
        """
        store = open_store(self.store_url)
        layout = EpochLayout(self.chain_id, self.target.epoch_height, self.target.epoch_id)
        objects = []
        for index, batches in enumerate(cut_rows(self._rows())):
            data = encode_delta_object(batches, self._facts(index))
            name = layout.delta(self.base.epoch_id, self.target.shard_uid.shard_id, index)
            _put(store, name, data)
            rows = [row for batch in batches for row in batch]
            objects.append(
                DeltaObject(
                    first_key=rows[0][0],
                    last_key=rows[-1][0],
                    records=len(rows),
                    deleted=sum(value is None for _, value in rows),
                    size=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                )
            )
        return DeltaStatement(self.chain_id, self.base, self.target, self.ranges, tuple(objects))

    def _rows(self) -> Iterator[Row]:
        for index in range(self.pieces):
            yield from self.work.read_piece(index)

    def _facts(self, index: int) -> dict[str, str]:
        return {
            "chain_id": self.chain_id,
            "base_epoch_height": str(self.base.epoch_height),
            "base_epoch_id": str(self.base.epoch_id),
            "base_state_root": str(self.base.state_root),
            "epoch_height": str(self.target.epoch_height),
            "epoch_id": str(self.target.epoch_id),
            "shard_uid": str(self.target.shard_uid),
            "state_root": str(self.target.state_root),
            "index": str(index),
        }


def _put(store: Store, name: str, data: bytes) -> None:
    def needed(info: ObjectInfo | None) -> tuple[bytes | None, None]:
        return (None if info is not None and holds_same_bytes(store, name, data) else data), None

    swapped(store, name, needed, read_back=True)
