"""Exported datasets for tests: made once a session, and only read."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from tests.support.commands import statecast
from tests.support.nodes import localnet_home


@lru_cache
def exported_localnet(file_format: str = "ipc") -> Path:
    """Return the dataset of the real node's newest epoch, all state roots recomputed."""
    return _export("--node-home", localnet_home(), "--format", file_format)


@lru_cache
def exported_genesis(path: Path) -> Path:
    """Return the dataset of a genesis file."""
    return _export("--from", f"genesis://{path}")


def _export(*options: object) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="exported-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    outcome = statecast("export", *options, "--to", f"dataset://{folder}", "--in-process")
    assert outcome.code == 0, outcome.stderr
    return folder


@lru_cache
def tables_of_two_epochs() -> Path:
    """Return tables of the real node's newest epoch, 6, and of the same chain's genesis, 0, in one place; only read."""
    folder = Path(tempfile.mkdtemp(prefix="tables-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for dataset in (exported_localnet(), exported_genesis(localnet_home() / "genesis.json")):
        outcome = statecast("tables", f"dataset://{dataset}", "--to", folder, "--in-process")
        assert outcome.code == 0, outcome.stderr
    return folder
