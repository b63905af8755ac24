"""Leaving out the wait for the disk, where no test cuts the power and thousands of objects are written."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="package")
def no_sync() -> Iterator[None]:
    """Make fsync do nothing in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
