"""Build: hashes what lies inside one state part's key interval, and seals all parts' edges into the state root.

Each part is built on its own from its records and its two neighbouring keys. Its interior either waits in the work folder until the seal
knows the state root and the nodes on the parts' boundaries that the proofs need, or goes into the part at once where those nodes
came from a State column.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.trie_kernel import Build
from pipelines.producing.build.assemble import nodes_at_ends
from pipelines.producing.build.boundary_nodes import BOUNDARIES_PER_FILE, put_boundary_nodes
from pipelines.producing.build.part_records import PartRecords
from pipelines.producing.build.plan_parts import PartPlan
from pipelines.producing.build.work_folder import WorkFolder
from schemas.arrow_arrays import numbers_of
from schemas.ids import CryptoHash, PartId
from schemas.json_document import FieldReader


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """The result of building one part."""

    records: int
    value_bytes: int
    hashed_bytes: int
    interior_sha256: str
    """Empty where no interior was left."""
    edge_sha256: str
    """Digests of what was left in the work folder, so that a rerun knows it whole."""
    kinds: tuple[tuple[int, int, int], ...]
    """(first byte of the key, records, bytes of keys and values), ascending; -1 for the empty key."""


@dataclass(frozen=True, slots=True)
class BuildPartTask:
    """Builds the interior of one part that has records."""

    records: PartRecords
    work: WorkFolder
    kernel_name: str
    plan: PartPlan

    def run(self) -> BuildSummary:
        """Leave the part's interior and edge, or return an earlier run's summary.

        Raises:
            SourceError, IntegrityError, StoreError: passed on.
        """
        earlier = self._earlier()
        if earlier is not None and self.work.has(self.work.interior(self.plan.part_id), earlier.interior_sha256):
            return earlier
        build, records = self._build(keep_interior=True)
        assert build.interior is not None, "the interior was asked for"
        self.work.store().put(self.work.interior(self.plan.part_id), build.interior)
        return self._leave(build, records, hashlib.sha256(build.interior).hexdigest())

    def part(self) -> tuple[BuildSummary, pa.Buffer]:
        """Leave the part's edge; return the PartialState bytes of the part, whose boundary nodes are in the work folder.

        Raises:
            SourceError, IntegrityError, StoreError: passed on.
        """
        build, records = self._build(keep_interior=True, boundary_nodes=nodes_at_ends(self.work, self.plan))
        assert build.interior is not None, "the interior was asked for"
        return self._leave(build, records, ""), build.interior

    def edge(self) -> BuildSummary:
        """Leave the part's edge alone, or return an earlier run's summary.

        Raises:
            SourceError, IntegrityError, StoreError: passed on.
        """
        earlier = self._earlier()
        return self._leave(*self._build(keep_interior=False), "") if earlier is None else earlier

    def _earlier(self) -> BuildSummary | None:
        """Return an earlier run's summary when its edge is whole."""
        earlier = self.work.note(self.work.build_summary(self.plan.part_id), _read_summary)
        return earlier if earlier is not None and self.work.has(self.work.edge(self.plan.part_id), earlier.edge_sha256) else None

    def _build(self, *, keep_interior: bool, boundary_nodes: Sequence[bytes] = ()) -> tuple[Build, list[pa.RecordBatch]]:
        records = self.records.read(self.plan)
        values = self.records.read_values(records) if keep_interior else ()
        kernel = choose_kernel(self.kernel_name)
        left_key, right_key = self.plan.left_key, self.plan.key_end
        build = kernel.build(records, values, left_key, right_key, keep_interior=keep_interior, boundary_nodes=boundary_nodes)
        return build, records

    def _leave(self, build: Build, records: Sequence[pa.RecordBatch], interior_sha256: str) -> BuildSummary:
        store, part_id = self.work.store(), self.plan.part_id
        store.put(self.work.edge(part_id), build.edge)
        summary = BuildSummary(
            records=self.plan.records,
            value_bytes=sum(pc.sum(pc.cast(batch.column(2), pa.uint64())).as_py() for batch in records),
            hashed_bytes=build.hashed_bytes,
            interior_sha256=interior_sha256,
            edge_sha256=hashlib.sha256(build.edge).hexdigest(),
            kinds=count_kinds(records),
        )
        store.put(self.work.build_summary(part_id), json.dumps(asdict(summary)).encode())
        return summary


def _read_summary(document: dict[str, Any]) -> BuildSummary:
    reader = FieldReader(document, "summary of a part")
    return BuildSummary(
        **{name: reader.number(name, 0, 2**63) for name in ("records", "value_bytes", "hashed_bytes")},
        interior_sha256=reader.text("interior_sha256", 64),
        edge_sha256=reader.text("edge_sha256", 64),
        kinds=tuple((int(kind), int(count), int(size)) for kind, count, size in document["kinds"]),
    )


def count_kinds(records: Sequence[pa.RecordBatch]) -> tuple[tuple[int, int, int], ...]:
    """Count records and bytes by the first byte of the key, a record batch at a time."""
    counts, sizes = np.zeros(257, np.int64), np.zeros(257, np.int64)
    for batch in records:
        keys = batch.column(0)
        # A sliced column shares its buffers: offsets count from the buffer's begin, the data is not sliced.
        offsets = np.frombuffer(keys.buffers()[1], np.int32)[keys.offset : keys.offset + len(keys) + 1]
        data = np.frombuffer(keys.buffers()[2] or b"\0", np.uint8)
        lengths = np.diff(offsets)
        kinds = np.where(lengths > 0, data[np.minimum(offsets[:-1], len(data) - 1)], 256)
        counts += np.bincount(kinds, minlength=257)
        sizes += np.bincount(kinds, weights=lengths + numbers_of(batch.column(2)), minlength=257).astype(np.int64)
    return tuple((-1 if kind == 256 else kind, int(counts[kind]), int(sizes[kind])) for kind in (256, *range(256)) if counts[kind])


@dataclass(frozen=True, slots=True)
class BuildEdgeTask:
    """Hashes one part that has records, for its edge alone: nothing else of it is left, and it is built again when it is published."""

    build: BuildPartTask

    def run(self) -> BuildSummary:
        """Leave the part's edge, or return an earlier run's summary.

        Raises:
            SourceError, IntegrityError, StoreError: passed on.
        """
        return self.build.edge()


@dataclass(frozen=True, slots=True)
class SealSummary:
    """The result of sealing a shard."""

    state_root: CryptoHash
    memory_usage: int
    root_node: bytes


@dataclass(frozen=True, slots=True)
class SealTask:
    """Merges the edges of all parts of a shard; leaves the boundary nodes where they are still wanted."""

    work: WorkFolder
    kernel_name: str
    num_parts: int
    built: tuple[int, ...]
    """part_id of each part that has records, ascending; at least one."""
    leave_boundary_nodes: bool = True
    """False where a State column gave them."""

    def run(self) -> SealSummary:
        """Seal the shard.

        Raises:
            IntegrityError, StoreError: passed on.
        """
        edges = [self.work.read(self.work.edge(PartId(idx, self.num_parts))) for idx in self.built]
        sealed = choose_kernel(self.kernel_name).seal(edges)
        if self.leave_boundary_nodes:
            for group, begin in enumerate(range(0, len(edges), BOUNDARIES_PER_FILE)):
                put_boundary_nodes(self.work, self.num_parts, group, sealed.boundary_nodes[begin : begin + BOUNDARIES_PER_FILE])
        return SealSummary(sealed.state_root, sealed.memory_usage, sealed.root_node)
