"""The look that commands take before a long run: what must be mended ends them, what might be better is logged."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import structlog
import typer

from jobs.options import RunOptions
from pipelines.near.node.node_home import NodeHome, read_node_home
from pipelines.producing.epoch_input import EpochInput
from pipelines.producing.preflight.finding import PreflightFinding, PreflightVerdict, require_no_failure
from pipelines.producing.preflight.look import RunPlace, look_at_room, look_before_export, look_before_run
from schemas.errors import SourceError

NoPreflight = Annotated[
    bool,
    typer.Option(
        "--no-preflight", help="Begin without a look at space, memory, open files and destination.", rich_help_panel="How it runs"
    ),
]


def require_fit(place: RunPlace, found: EpochInput | None, node_home: Path | None) -> None:
    """Take the look before a run, and log what might be better.

    Raises:
        InvalidInputError: something must be mended first.
        DatasetError: tables can't go where they are to.
        StoreError: the destination, or the place of the tables, can't be written or read.
    """
    _require(look_before_run(place, found, _home(node_home)))


def require_room(place: RunPlace, found: EpochInput, node_home: Path) -> None:
    """Look at this machine alone before one epoch of many is made, and log what might be better.

    Raises:
        InvalidInputError: something must be mended first.
    """
    _require(look_at_room(place, found, _home(node_home)))


def require_room_for_dataset(url: str, workers: int | None, found: EpochInput, node_home: Path | None) -> None:
    """Take the look before an export, and log what might be better.

    Args:
        url: of the store where the dataset goes.
        workers: processes that work at once on this machine; None where others do.
    Raises:
        InvalidInputError: something must be mended first.
        StoreError: the store can't be written or read.
    """
    _require(look_before_export(url, workers, found, _home(node_home)))


def _require(findings: Sequence[PreflightFinding]) -> None:
    for finding in findings:
        if finding.verdict is PreflightVerdict.WARN:
            structlog.get_logger().warning(_sentence(finding))
    require_no_failure(findings)


def workers_here(run: RunOptions, node_home: Path | None) -> int | None:
    """Return how many processes work at once on this machine; None where a cluster's do."""
    return None if run.on_cluster else run.processes_at_once(beside_node=node_home is not None)


def _home(node_home: Path | None) -> NodeHome | None:
    if node_home is not None:
        # What is wrong with it the run itself says.
        with suppress(SourceError):
            return read_node_home(node_home.expanduser())
    return None


def _sentence(finding: PreflightFinding) -> str:
    where = f" [{finding.where}]" if finding.where else ""
    return f"{finding.found}{where}. {finding.remedy}" if finding.remedy else finding.found + where
