"""Which machines of a cluster may run a task, and what to say when none may. Pure arithmetic, no Ray.

A cluster never refuses a task that fits none of its machines: it keeps the task waiting for a machine that may never come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipelines.execution.executor import TaskNeeds
from schemas.errors import InvalidInputError, PartialResultError, StatecastError

NODE_DISK_RESOURCE = "node_disk"
"""Custom Ray resource of the machines that see the NEAR node's disk; `ray start --resources '{"node_disk": 1000}'`."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine that belongs to a cluster now: what it has in all, used or not."""

    name: str
    cpus: float
    memory_bytes: float
    node_disk: float
    node_id: str = ""
    """What Ray calls it."""

    def lacks(self, needs: TaskNeeds) -> bool:
        """Whether a task with these needs can never run here."""
        return self.cpus < 1 or (needs.node_disk and not self.node_disk) or self.memory_bytes < needs.memory_bytes


def fitting(machines: Iterable[Machine], needs: TaskNeeds) -> list[Machine]:
    """Return the machines that a task can run on."""
    return [machine for machine in machines if not machine.lacks(needs)]


def misfit(machines: Sequence[Machine], needs: TaskNeeds, waited_s: float) -> StatecastError:
    """Say why a task can run on none of the machines.

    Args:
        machines: none of them fits.
        waited_s: how long a machine that fits was waited for.
    Returns:
        PartialResultError where machines are missing: the same command goes on once they are back.
        InvalidInputError where the machines are there and too small: the same command would wait again.
    """
    waited = f"after {waited_s:.0f} s of waiting"
    remedy = "What is done is kept: run the same command again once such a machine is there; --ray-patience waits longer for one."
    able = [machine for machine in machines if machine.cpus >= 1]
    if not able:
        return PartialResultError(problem=f"no machine has a core for tasks {waited}", where="Ray cluster", remedy=remedy)
    if needs.node_disk:
        able = [machine for machine in able if machine.node_disk]
        if not able:
            return PartialResultError(
                problem=f"no machine has the resource {NODE_DISK_RESOURCE} {waited}: none sees the NEAR node's disk",
                where="Ray cluster",
                remedy=f"Start Ray beside that disk with --resources '{{\"{NODE_DISK_RESOURCE}\": 1000}}'. {remedy}",
            )
    largest = max(able, key=lambda machine: machine.memory_bytes)
    return InvalidInputError(
        problem=f"a task needs {needs.memory_bytes:,} bytes of memory, and the largest of {len(able)} machines that may run it has "
        f"{largest.memory_bytes:,.0f} {waited}",
        where=f"Ray cluster, machine {largest.name}",
        remedy="Add a machine with more memory, or start Ray there with a larger --memory, if the machine has it.",
    )
