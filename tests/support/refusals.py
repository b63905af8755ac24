"""What every refused run has in common."""

from __future__ import annotations

from pathlib import Path

from schemas.errors import EXIT_CODES
from tests.support.commands import Outcome, objects_in


def assert_refused(outcome: Outcome, kind: str, exit_code: int, to: Path, *words: str) -> None:
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
    assert not [name for name in objects_in(to) if "manifest" in name or name.endswith("latest.json")]
