"""Boundary nodes: what lies on the paths to the parts' first keys, with the siblings to the left; and the files that they wait in.

There are two ways to them, with the same bytes: from a State column, by hash from the trusted state root, before any record is hashed
(`BoundaryNodesTask`), or from the merged edges of all parts, after every record was hashed (`pipelines.producing.build.build_part.SealTask`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.near.node.state_column import StateColumnPlace
from pipelines.near.trie.walk_to_boundaries import walk_to_boundaries
from pipelines.producing.build.work_folder import WorkFolder
from schemas.arrow_arrays import binary_array
from schemas.ids import CryptoHash

BOUNDARIES_PER_FILE = 64
"""Boundaries whose nodes share a file, and that one task reads: some hundred kilobytes."""

_NODE_SCHEMA = pa.schema([pa.field("node", pa.binary(), nullable=False)])


def put_boundary_nodes(work: WorkFolder, num_parts: int, group: int, boundaries: Sequence[Sequence[bytes]]) -> None:
    """Leave the nodes of up to ``BOUNDARIES_PER_FILE`` boundaries: a record batch each, ascending by bytes.

    Args:
        group: which file; boundary n of the parts that have records lies in file ``n // BOUNDARIES_PER_FILE``.
    Raises:
        StoreError: passed on.
    """
    assert len(boundaries) <= BOUNDARIES_PER_FILE, "a file has room for them"
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, _NODE_SCHEMA) as writer:
        for nodes in boundaries:
            writer.write_batch(pa.record_batch([binary_array(sorted(nodes))], schema=_NODE_SCHEMA))
    work.store().put(work.boundary_nodes(num_parts, group), sink.getvalue())


def get_boundary_nodes(work: WorkFolder, num_parts: int, row: int) -> list[bytes]:
    """Return the nodes of one boundary.

    Args:
        row: which of the parts that have records it is the left boundary of.
    Raises:
        StoreError: passed on.
    """
    with work.store().open(work.boundary_nodes(num_parts, row // BOUNDARIES_PER_FILE)) as source:
        nodes: list[bytes] = pa.ipc.open_file(source).get_batch(row % BOUNDARIES_PER_FILE).column(0).to_pylist()
    return nodes


@dataclass(frozen=True, slots=True)
class BoundaryNodesSummary:
    """The result of reading some boundaries."""

    memory_usage: int
    """Of the whole shard, as the trusted root's node says."""
    boundaries: int
    rows: int
    """Nodes that were read, each once a task."""


@dataclass(frozen=True, slots=True)
class BoundaryNodesTask:
    """Reads some boundaries' nodes from a State column and leaves them in the work folder."""

    place: StateColumnPlace
    work: WorkFolder
    state_root: CryptoHash
    num_parts: int
    group: int
    keys: tuple[bytes, ...]
    """First keys of parts, ascending; at least one and at most ``BOUNDARIES_PER_FILE``."""

    def run(self) -> BoundaryNodesSummary:
        """Read and leave the nodes.

        Raises:
            MissingTrieValueError: the node lacks a row, or it does not hash; or a key is not in the trusted trie.
            MalformedNodeError, PartLimitError: a row is no trie node.
            SourceError, StoreError: passed on.
        """
        walked = walk_to_boundaries(self.place.open(), self.state_root, self.keys)
        put_boundary_nodes(self.work, self.num_parts, self.group, walked.boundary_nodes)
        return BoundaryNodesSummary(walked.memory_usage, len(self.keys), walked.rows)


def boundary_nodes_tasks(
    place: StateColumnPlace, work: WorkFolder, state_root: CryptoHash, num_parts: int, keys: Sequence[bytes]
) -> tuple[BoundaryNodesTask, ...]:
    """Split the boundaries of a shard into tasks.

    Args:
        keys: the first key of each part that has records, ascending.
    """
    return tuple(
        BoundaryNodesTask(place, work, state_root, num_parts, group, tuple(keys[begin : begin + BOUNDARIES_PER_FILE]))
        for group, begin in enumerate(range(0, len(keys), BOUNDARIES_PER_FILE))
    )
