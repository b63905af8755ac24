"""Assemble: one state part's bytes out of its interior and the boundary nodes of its two ends."""

from __future__ import annotations

import pyarrow as pa

from pipelines.kernel.trie_kernel import Kernel
from pipelines.producing.build.boundary_nodes import get_boundary_nodes
from pipelines.producing.build.plan_parts import PartPlan
from pipelines.producing.build.work_folder import WorkFolder


def assemble_part(kernel: Kernel, work: WorkFolder, plan: PartPlan) -> pa.Buffer:
    """Return the PartialState bytes of a part whose interior waits in the work folder.

    Raises:
        IntegrityError, StoreError: passed on.
    """
    interior = pa.py_buffer(work.read(work.interior(plan.part_id))) if plan.spans else None
    return assemble_with(kernel, work, plan, interior)


def assemble_with(kernel: Kernel, work: WorkFolder, plan: PartPlan, interior: pa.Buffer | None) -> pa.Buffer:
    """Return the PartialState bytes of a part with this interior; None for a part without records.

    Raises:
        IntegrityError, StoreError: passed on.
    """
    return kernel.assemble(interior, nodes_at_ends(work, plan))


def nodes_at_ends(work: WorkFolder, plan: PartPlan) -> list[bytes]:
    """Return the boundary nodes of a part's two ends.

    Raises:
        StoreError: passed on.
    """
    return [node for row in plan.boundary_rows for node in get_boundary_nodes(work, plan.part_id.total, row)]
