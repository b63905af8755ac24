"""A real node that a test may change."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.nodes import copied, localnet_home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy of the real node's home."""
    return copied(localnet_home(), tmp_path)
