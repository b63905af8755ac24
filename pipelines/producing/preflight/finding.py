"""What a look before a run found: one finding a thing, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from schemas.errors import InvalidInputError, StatecastError


class PreflightVerdict(StrEnum):
    """How a thing is."""

    OK = "ok"
    WARN = "warn"
    """A run goes on; better if it were otherwise."""
    FAIL = "fail"
    """A run would end with an error, or do harm."""


@dataclass(frozen=True, slots=True)
class PreflightFinding:
    """What was found of one thing."""

    name: str
    verdict: PreflightVerdict
    found: str
    """As a sentence without a full stop."""
    remedy: str = ""
    """What to do about it; empty where nothing is to be done."""
    where: str = ""
    """The folder, URL, file or option that it is about."""

    def softened(self) -> PreflightFinding:
        """Return the same as a warning."""
        return replace(self, verdict=PreflightVerdict.WARN)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"name": self.name, "verdict": str(self.verdict), "found": self.found, "where": self.where, "remedy": self.remedy}


def failure(name: str, error: StatecastError, remedy: str = "") -> PreflightFinding:
    """Return the finding that an error is.

    Args:
        remedy: what to do where the error itself does not say.
    """
    return PreflightFinding(name, PreflightVerdict.FAIL, error.problem, error.remedy or remedy, error.where)


def require_no_failure(findings: Iterable[PreflightFinding]) -> None:
    """Refuse to begin where something must be mended.

    Raises:
        InvalidInputError: the first thing that must, and how many more.
    """
    failed = [finding for finding in findings if finding.verdict is PreflightVerdict.FAIL]
    if not failed:
        return
    first = failed[0]
    more = f" Also to be mended: {', '.join(other.name for other in failed[1:])}." if len(failed) > 1 else ""
    raise InvalidInputError(problem=first.found, where=first.where, remedy=first.remedy + more)
