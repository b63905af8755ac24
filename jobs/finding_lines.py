"""Findings of a check or a scrub, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from jobs.terminal import coloured
from pipelines.keeping.findings import Finding

FINDINGS_SHOWN_MAX: Final = 50
"""Most findings printed for people; ``--json`` has all."""


def finding_line(finding: Finding, *more: str | tuple[str, str]) -> Text:
    """Return a finding in one line, with more text behind it, coloured where that is said."""
    return coloured((finding.kind, "yellow" if finding.harmless else "red"), f" {finding.object_name}: {finding.problem}", *more)


def print_lines(console: Console, lines: Sequence[Text]) -> None:
    """Print the first lines, and how many more there are."""
    for line in lines[:FINDINGS_SHOWN_MAX]:
        console.print(line, highlight=False, soft_wrap=True)
    if len(lines) > FINDINGS_SHOWN_MAX:
        console.print(f"… and {len(lines) - FINDINGS_SHOWN_MAX} more; --json lists all")


def place_of(finding: Finding, root: str) -> str:
    """Return where an object lies, for errors: below the store's URL, or where decoded tables are."""
    return finding.object_name if "://" in finding.object_name else f"{root}/{finding.object_name}"


def not_as_published(findings: Sequence[Finding]) -> str:
    """Return in one sentence how many objects are wrong, and the first of them."""
    first, one = findings[0], len(findings) == 1
    objects = "an object is" if one else f"{len(findings)} objects are"
    return f"{objects} not as published{'' if one else ', the first'}: {first.kind}, {first.problem}"
