"""Which machines a task can run on, and what is said when there is none."""

from __future__ import annotations

import pytest

from pipelines.execution.executor import TaskNeeds
from pipelines.execution.placement import Machine, fitting, misfit
from schemas.errors import InvalidInputError, PartialResultError

GIB = 1 << 30

HEAD = Machine("head", cpus=0, memory_bytes=64 * GIB, node_disk=0)
SMALL = Machine("small", cpus=2, memory_bytes=4 * GIB, node_disk=0)
LARGE = Machine("large", cpus=8, memory_bytes=32 * GIB, node_disk=0)
DISK = Machine("disk", cpus=4, memory_bytes=8 * GIB, node_disk=1000)


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        (TaskNeeds(GIB), [SMALL, LARGE, DISK]),
        (TaskNeeds(0), [SMALL, LARGE, DISK]),
        (TaskNeeds(4 * GIB), [SMALL, LARGE, DISK]),
        (TaskNeeds(4 * GIB + 1), [LARGE, DISK]),
        (TaskNeeds(GIB, node_disk=True), [DISK]),
        (TaskNeeds(9 * GIB, node_disk=True), []),
    ],
)
def test_a_machine_fits_with_a_core_the_memory_and_the_disk(needs: TaskNeeds, expected: list[Machine]) -> None:
    """All three; a head without cores never fits."""
    assert fitting([HEAD, SMALL, LARGE, DISK], needs) == expected


@pytest.mark.parametrize("machines", [[], [HEAD]])
def test_no_cores(machines: list[Machine]) -> None:
    """All machines are gone, or only the head is left: a rerun goes on."""
    error = misfit(machines, TaskNeeds(GIB, node_disk=True), 600)
    assert isinstance(error, PartialResultError)
    assert "no machine has a core for tasks after 600 s" in error.problem


def test_no_disk() -> None:
    """The resource is named, and how a machine gets it."""
    error = misfit([HEAD, SMALL, LARGE], TaskNeeds(GIB, node_disk=True), 5)
    assert isinstance(error, PartialResultError)
    assert "no machine has the resource node_disk" in error.problem
    assert """--resources '{"node_disk": 1000}'""" in error.remedy


def test_no_machine_with_so_much_memory() -> None:
    """What is asked and what the largest one has, in bytes: a rerun would not help."""
    error = misfit([HEAD, SMALL, LARGE, DISK], TaskNeeds(33 * GIB), 5)
    assert isinstance(error, InvalidInputError)
    assert f"{33 * GIB:,} bytes" in error.problem
    assert f"the largest of 3 machines that may run it has {32 * GIB:,}" in error.problem
    assert "large" in error.where


def test_the_disk_s_machine_is_too_small() -> None:
    """Then the others don't count, however large."""
    error = misfit([LARGE, DISK], TaskNeeds(9 * GIB, node_disk=True), 5)
    assert isinstance(error, InvalidInputError)
    assert f"the largest of 1 machines that may run it has {8 * GIB:,}" in error.problem
