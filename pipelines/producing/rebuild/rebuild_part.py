"""Makes one shard's parts of records that are nowhere written out: the tasks of a rebuilding.

Where each part begins is the target's shard statement's to say, so nothing is planned. A part's interior and edge are left as the ordinary
build leaves them, the ordinary seal merges the edges, and what is assembled must have the statement's digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipelines.dataset.delta.shard_records import ShardRecords, last_key_before
from pipelines.kernel.choice import choose_kernel
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.producing.build.boundary_nodes import get_boundary_nodes
from pipelines.producing.build.plan_parts import PartInterval
from pipelines.producing.build.work_folder import WorkFolder
from pipelines.producing.publish.publish_part import put_replacing
from pipelines.restoring.part_object import PartObject
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import holds_same_bytes
from schemas.errors import (
    IntegrityError,
    ObjectMismatchError,
    SourceError,
    StatecastError,
    StoreError,
    TransientStoreError,
)
from schemas.ids import PartId
from schemas.json_document import FieldReader
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX
from schemas.nearcore.state_part import encode_state_part


@dataclass(frozen=True, slots=True)
class RebuiltInterval:
    """What became of one part's records."""

    interval: PartInterval
    records: int
    left_key: bytes | None = None
    """Last key before the interval; None at the left end of the shard, and of a part without records."""
    first_key: bytes = b""
    last_key: bytes = b""
    error: StatecastError | None = None
    """Why the records can't be had; then nothing was left."""


@dataclass(frozen=True, slots=True)
class RebuildPartsTask:
    """Builds the interiors of some adjacent parts."""

    records: ShardRecords
    work: WorkFolder
    kernel_name: str
    intervals: tuple[PartInterval, ...]

    def run(self) -> tuple[RebuiltInterval, ...]:
        """Leave interior and edge of each part, or take those that an earlier run left.

        Parts whose records can't be had say why: that ends no rebuilding.

        Raises:
            StoreError: the work folder can't be written.
            TransientStoreError: passed on, so that the task is tried again.
        """
        built: list[RebuiltInterval] = []
        for interval in self.intervals:
            earlier = _earlier(self.work, interval)
            if earlier is None:
                try:
                    earlier = self._built(interval, built[-1] if built else None)
                except TransientStoreError:
                    raise
                except (IntegrityError, SourceError, StoreError) as error:
                    earlier = RebuiltInterval(interval, 0, error=error)
            built.append(earlier)
        return tuple(built)

    def _built(self, interval: PartInterval, before: RebuiltInterval | None) -> RebuiltInterval:
        if interval.key_begin == interval.key_end:
            return RebuiltInterval(interval, 0)
        found = self.records.read(KeyRange(interval.key_begin, interval.key_end))
        if not found.records:
            return RebuiltInterval(interval, 0)
        is_known = before is not None and before.records > 0
        left_key = before.last_key if before is not None and is_known else last_key_before(self.records, interval.key_begin)
        given = BuiltOf(left_key, found.records, found.read_values(found.records))
        return leave_built(self.work, self.kernel_name, interval, given)


@dataclass(frozen=True, slots=True)
class BuiltOf:
    """What a part's interior is built of."""

    left_key: bytes | None
    records: Sequence[pa.RecordBatch]
    """At least one row."""
    values: Sequence[pa.RecordBatch]


def leave_built(work: WorkFolder, kernel_name: str, interval: PartInterval, given: BuiltOf) -> RebuiltInterval:
    """Build a part's interior and leave it with its edge.

    Raises:
        IntegrityError: the records are not those of such an interval.
        StoreError: the work folder can't be written.
    """
    left_key, records = given.left_key, given.records
    build = choose_kernel(kernel_name).build(records, given.values, left_key, interval.key_end)
    assert build.interior is not None, "it was asked for"
    store, part_id = work.store(), interval.part_id
    store.put(work.interior(part_id), build.interior)
    store.put(work.edge(part_id), build.edge)
    rebuilt = RebuiltInterval(
        interval,
        sum(batch.num_rows for batch in records),
        left_key,
        records[0]["key"][0].as_py(),
        records[-1]["key"][records[-1].num_rows - 1].as_py(),
    )
    note = {
        "records": rebuilt.records,
        "left_key": None if left_key is None else left_key.hex(),
        "first_key": rebuilt.first_key.hex(),
        "last_key": rebuilt.last_key.hex(),
        "interior_sha256": hashlib.sha256(build.interior).hexdigest(),
        "edge_sha256": hashlib.sha256(build.edge).hexdigest(),
    }
    store.put(work.build_summary(part_id), json.dumps(note).encode())
    return rebuilt


def _earlier(work: WorkFolder, interval: PartInterval) -> RebuiltInterval | None:
    """Return what an earlier run left of a part, where it is whole."""
    part_id = interval.part_id
    if (note := work.note(work.build_summary(part_id), read_rebuilt)) is None:
        return None
    rebuilt, interior_sha256, edge_sha256 = note
    is_whole = work.has(work.interior(part_id), interior_sha256) and work.has(work.edge(part_id), edge_sha256)
    return replace(rebuilt, interval=interval) if is_whole else None


def read_rebuilt(document: dict[str, Any]) -> tuple[RebuiltInterval, str, str]:
    """Read the note of a part that was rebuilt, of an interval that the caller knows, and the digests of interior and edge."""
    reader = FieldReader(document, "note of a rebuilt part")
    rebuilt = RebuiltInterval(
        PartInterval(PartId(0, 1), b"", None),
        reader.number("records", 1, 2**48),
        None if reader.is_null("left_key") else reader.hex_bytes("left_key", KEY_BYTES_MAX),
        reader.hex_bytes("first_key", KEY_BYTES_MAX),
        reader.hex_bytes("last_key", KEY_BYTES_MAX),
    )
    return rebuilt, reader.sha256("interior_sha256"), reader.sha256("edge_sha256")


@dataclass(frozen=True, slots=True)
class RebuiltPart:
    """A part that was made again and decodes to the statement's digest."""

    part_id: PartId
    object_name: str
    size: int
    sha256: str
    """Of the object that this machine's encoder makes."""
    is_reencoded: bool
    """The object has other bytes than the published one, though it decodes to the same part: another zstd compressed it."""


@dataclass(frozen=True, slots=True)
class FinishPartTask:
    """Assembles one part, compares it with the target's statement and puts its object."""

    work: WorkFolder
    kernel_name: str
    part: PartObject
    """Where it goes, and what it must be."""
    has_records: bool
    boundary_rows: tuple[int, ...]
    zstd_level: int
    put_reencoded: bool
    """Put an object whose bytes are not the published ones too."""

    def run(self) -> RebuiltPart:
        """Make and put the part.

        Raises:
            ObjectMismatchError: it is not the statement's part. Nothing was put.
            IntegrityError, StoreError: passed on.
        """
        work, part = self.work, self.part
        nodes = [node for row in self.boundary_rows for node in get_boundary_nodes(work, part.part_id.total, row)]
        interior = pa.py_buffer(work.read(work.interior(part.part_id))) if self.has_records else None
        partial_state = choose_kernel(self.kernel_name).assemble(interior, nodes)
        if hashlib.sha256(partial_state).hexdigest() != part.decoded_sha256:
            raise ObjectMismatchError(
                problem="the rebuilt part is not the one of the shard's statement, though the state root is",
                where=part.name,
                remedy="The statement or what an earlier run left is wrong: fetch the part whole.",
            )
        data = encode_state_part(partial_state, part.encoding, self.zstd_level)
        sha256 = hashlib.sha256(data).hexdigest()
        store = open_store(part.store_url)
        if (sha256 == part.stored_sha256 or self.put_reencoded) and not holds_same_bytes(store, part.name, data):
            put_replacing(store, part.name, data)
        return RebuiltPart(part.part_id, part.name, len(data), sha256, is_reencoded=sha256 != part.stored_sha256)
