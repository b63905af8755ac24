"""What tests of the manifests share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rayjobs import RayJobs


@pytest.fixture
def rayjobs() -> Iterator[RayJobs]:
    """Return a namespace with the template alone."""
    server = RayJobs()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """Return a service account's folder."""
    (tmp_path / "namespace").write_text("statecast\n")
    (tmp_path / "token").write_text("the-token\n")
    (tmp_path / "ca.crt").write_text("")
    return tmp_path
