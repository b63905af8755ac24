"""Settings that all tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Before anything imports ray: see pipelines/execution/on_ray.py.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# Ray's sockets lie below the folder for temporary files, and no path of a socket has more than 107 bytes; Ray's own part of it has 62.
if len(tempfile.gettempdir()) > 40 and os.access("/tmp", os.W_OK):
    os.environ.setdefault("RAY_TMPDIR", "/tmp")

# The same examples every time, on every machine; new ones are looked for by HYPOTHESIS_PROFILE=nightly.
settings.register_profile("default", max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", parent=settings.get_profile("default"), max_examples=500, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

SHARED_FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
"""More of nearcore's data, beside the project where it is there; see tests/fixtures for what the project brings itself."""


@pytest.fixture(autouse=True)
def log_settings_end_with_their_test() -> Iterator[None]:
    """A command that ran in this process leaves no log that goes to its test's closed streams."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def shared_fixtures() -> Path:
    """Return the folder of the large fixtures, or skip where there is none."""
    if not SHARED_FIXTURES.is_dir():
        pytest.skip("the large fixtures are not beside this checkout")
    return SHARED_FIXTURES
