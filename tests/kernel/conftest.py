"""The kernels that every test of this folder runs over."""

from __future__ import annotations

import pytest

from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.trie_kernel import Kernel
from schemas.errors import InvalidInputError


def _native() -> Kernel:
    try:
        return choose_kernel("native")
    except InvalidInputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", params=["reference", "native"])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """Return each kernel in turn; the native one is skipped where it is not installed."""
    return choose_kernel("reference") if request.param == "reference" else _native()


@pytest.fixture(scope="session")
def native_kernel() -> Kernel:
    """Return the native kernel, or skip."""
    return _native()
