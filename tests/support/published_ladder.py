"""The real node's epochs 4, 5 and 6, published with deltas: made once a session."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

from tests.support.commands import statecast
from tests.support.nodes import localnet_home
from tests.support.published import session_folder, signing_key

LADDER_HEIGHTS = (4, 5, 6)
LADDER_SHARDS = 4


@lru_cache
def published_ladder() -> Path:
    """Return the folder, with deltas to the epoch before and to every second one. It must not be changed."""
    folder = session_folder() / "ladder"
    work = tempfile.mkdtemp(dir=session_folder())
    outcome = statecast(
        *("backfill", "--node-home", localnet_home(), "--epochs", "4..6", "--to", folder, "--signing-key", signing_key()),
        *("--work", f"file://{work}", "--deltas", 2, "--in-process", "--json"),
    )
    assert outcome.code == 0, outcome.stderr
    return folder
