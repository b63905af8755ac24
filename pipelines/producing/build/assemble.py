"""Assemble: one state part's bytes out of its interior and the boundary nodes of its two ends."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import pyarrow as pa

from pipelines.kernel.trie_kernel import Kernel
from pipelines.producing.build.boundary_nodes import get_boundary_nodes
from pipelines.producing.build.work_folder import WorkFolder
from schemas.ids import PartId


@dataclass(frozen=True, slots=True)
class PartInputs:
    """Where one part's pieces are."""

    work: WorkFolder
    part_id: PartId
    has_records: bool
    begin_row: int | None
    """Which row of the boundary nodes belongs to its left boundary; None for part 0."""
    end_row: int | None
    """The same for its right boundary; None for the last part."""


def part_inputs(work: WorkFolder, part_id: PartId, built: tuple[int, ...]) -> PartInputs:
    """Say where a part's pieces are.

    Args:
        built: part_id of each part that has records, ascending; none for an empty shard, whose parts are empty too. A boundary is
            the first key of the next part that has records.
    """
    begin = bisect_left(built, part_id.idx)
    end = bisect_left(built, part_id.idx + 1)
    if not built:
        return PartInputs(work, part_id, has_records=False, begin_row=None, end_row=None)
    return PartInputs(
        work=work,
        part_id=part_id,
        has_records=end > begin,
        begin_row=begin if part_id.idx else None,
        end_row=end if part_id.idx + 1 < part_id.total else None,
    )


def assemble_part(kernel: Kernel, inputs: PartInputs) -> pa.Buffer:
    """Return the PartialState bytes of a part whose interior waits in the work folder.

    Raises:
        IntegrityError, StoreError: as they say.
    """
    interior = pa.py_buffer(inputs.work.store().get(inputs.work.interior(inputs.part_id))) if inputs.has_records else None
    return assemble_with(kernel, inputs, interior)


def assemble_with(kernel: Kernel, inputs: PartInputs, interior: pa.Buffer | None) -> pa.Buffer:
    """Return the PartialState bytes of a part with this interior.

    Raises:
        IntegrityError, StoreError: as they say.
    """
    nodes: list[bytes] = []
    for row in {row for row in (inputs.begin_row, inputs.end_row) if row is not None}:
        nodes += get_boundary_nodes(inputs.work, inputs.part_id.total, row)
    return kernel.assemble(interior, nodes)
