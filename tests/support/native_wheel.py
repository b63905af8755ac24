"""Tests that need the Rust wheel, which is built where cargo is: skipped without it, and they say why."""

from __future__ import annotations

from typing import Final

import pytest

from pipelines.kernel.native import is_available, load_module


def can_verify() -> bool:
    """Return whether the wheel is installed and knows state headers."""
    return is_available() and hasattr(load_module(), "verify_state_header")


needs_native_kernel = pytest.mark.skipif(
    not is_available(), reason="the native kernel's wheel is not installed: `make` builds it where cargo is"
)
"""For tests that name the native kernel."""

needs_headers = pytest.mark.skipif(
    not can_verify(), reason="state headers are verified by the native wheel, which is not installed, so none is computed or published"
)
"""For tests of state headers, and of what is published with them: without the wheel manifests list them as missing, and nothing ties
state roots to blocks."""

KERNELS: Final = (pytest.param("native", marks=needs_native_kernel), "reference")
"""Names to parametrize a test over."""
