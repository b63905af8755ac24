"""What every refused run has in common."""

from __future__ import annotations

from pathlib import Path

from pipelines.stores.open_store import open_store
from schemas.errors import EXIT_CODES
from tests.support.commands import Outcome


def assert_refused(outcome: Outcome, kind: str, exit_code: int, to: Path | str, *words: str) -> None:
    """The error is of this kind, said in one line without a traceback, and nothing published looks good."""
    assert exit_code in EXIT_CODES
    assert outcome.code == exit_code, outcome.stderr
    document = outcome.document
    assert (document["message_type"], document["error"]["kind"], document["error"]["exit_code"]) == ("error", kind, exit_code)
    assert "Traceback" not in outcome.stderr
    assert outcome.error_line.startswith("error: ")
    assert document["error"]["message"] in outcome.error_line
    for word in words:
        assert word in outcome.error_line
    assert not [info.name for info in open_store(str(to)).list() if "manifest" in info.name or info.name.endswith("latest.json")]
