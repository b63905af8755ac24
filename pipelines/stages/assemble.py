"""Assemble: one state part's bytes out of its interior and the boundary nodes of its two ends."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import pyarrow as pa

from pipelines.kernel.protocol import Kernel
from pipelines.stages.work_folder import WorkFolder
from schemas.ids import PartId


@dataclass(frozen=True, slots=True)
class PartInputs:
    """Where one part's pieces are."""

    work: WorkFolder
    part_id: PartId
    has_records: bool
    begin_row: int | None
    """Which record batch of the boundary nodes belongs to its left boundary; None for part 0."""
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
    """Return the part's PartialState bytes.

    Raises:
        IntegrityError, StoreError: as they say.
    """
    store = inputs.work.store()
    interior = pa.py_buffer(store.get(inputs.work.interior(inputs.part_id))) if inputs.has_records else None
    nodes: list[bytes] = []
    rows = [row for row in (inputs.begin_row, inputs.end_row) if row is not None]
    if rows:
        with store.open(inputs.work.boundary_nodes(inputs.part_id.total)) as source:
            reader = pa.ipc.open_file(source)
            for row in sorted(set(rows)):
                nodes.extend(reader.get_batch(row).column(0).to_pylist())
    return kernel.assemble(interior, nodes)
