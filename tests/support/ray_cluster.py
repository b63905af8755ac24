"""A real Ray for the whole session: starting one takes longer than most tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipelines.execution.on_ray import RayExecutor

RAY_CPUS = 2


@pytest.fixture(scope="session")
def ray_of_two_cores() -> Iterator[RayExecutor]:
    """An executor on a Ray inside this process; one that runs already is taken and left running."""
    executor = RayExecutor(cpus=RAY_CPUS)
    yield executor
    executor.close()
