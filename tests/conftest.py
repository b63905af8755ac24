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

# The servers that tests ask are on this machine: no proxy that the environment names lies before them.
for name in [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]:
    del os.environ[name]

# Ray's sockets lie below the folder for temporary files, and no path of a socket has more than 107 bytes; Ray's own part of it has 62.
if len(tempfile.gettempdir()) > 40 and os.access("/tmp", os.W_OK):
    os.environ.setdefault("RAY_TMPDIR", "/tmp")

# The same examples every time, on every machine; new ones are looked for by HYPOTHESIS_PROFILE=nightly.
settings.register_profile("default", max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", parent=settings.get_profile("default"), max_examples=500, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

SHARED_FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
"""More data of the real chain, beside the project where it is there; see tests/fixtures for what the project brings itself."""


@pytest.fixture(autouse=True)
def log_settings_end_with_their_test() -> Iterator[None]:
    """A command that ran in this process leaves no log that goes to its test's closed streams."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def shared_fixtures() -> Path:
    """Return the folder of data that a clone lacks, or skip where there is none."""
    if not SHARED_FIXTURES.is_dir():
        pytest.skip("needs data of the real chain that is not part of this repository: see tests/fixtures/README.md")
    return SHARED_FIXTURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the skipped tests at the end of a run, and name them by the reason why.

    Whatever was skipped was not shown to hold here, and a run that only says how many leaves open which.
    """
    names_by_reason: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        names_by_reason.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)
    if not names_by_reason:
        return
    terminalreporter.section(f"{sum(map(len, names_by_reason.values()))} skipped")
    for reason, names in sorted(names_by_reason.items()):
        terminalreporter.line(f"{len(names)}: {reason}")
        for name in sorted(names):
            terminalreporter.line(f"    {name}")
