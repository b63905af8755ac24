"""Notices before a run that its machines do not share a folder which it needs on all of them.

On one machine any folder will do. On several, a local folder in place of a shared one is found out only when a task misses what
another has left there, or not at all: parts that each machine keeps to itself look published. So a small file is written here
and looked for everywhere; of a dataset that is only read, a file that it has. Machines that join later are not asked.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from pipelines.dataset.arrow_dataset import SUMMARY_NAME, ShardDataset
from pipelines.execution.executor import Executor, Task
from pipelines.stores.object_names import TEMPORARY_FOLDER
from pipelines.stores.open_store import open_store
from pipelines.stores.read_only import check_destination
from schemas.errors import InvalidInputError, StoreDeniedError

R = TypeVar("R")

PROBE_TRIES_MAX = 3
"""How often a machine looks for the file, a second apart: network file systems may show it late."""


@runtime_checkable
class SpansMachines(Protocol):
    """An executor whose tasks run on other machines than the driver."""

    def on_each_machine(self, task: Task[R]) -> list[tuple[str, R]]:
        """Run a task once on each machine but the driver's that runs tasks now; return the machines' names with the results."""
        ...


@dataclass(frozen=True, slots=True)
class SeesFileTask:
    """Looks for a file."""

    path: str
    interval_s: float = 1.0

    def run(self) -> bool:
        """Return whether the file is there."""
        for attempt in range(PROBE_TRIES_MAX):
            if attempt:
                time.sleep(self.interval_s)
            if os.path.exists(self.path):
                return True
        return False


def require_shared(executor: Executor, urls: Mapping[str, str]) -> None:
    """Make sure that places can be written, and that all machines see what the driver writes into local folders.

    Args:
        urls: places by the option that names each; buckets are shared.
    Raises:
        InvalidInputError: a place is only read.
        InvalidInputError: machines do not see a folder; names the folder, the machines and the option.
        StoreDeniedError: a folder can't be written here.
    """
    for option, url in urls.items():
        check_destination(url, option)
    if not isinstance(executor, SpansMachines):
        return
    for option, url in urls.items():
        root = open_store(url).local_root()
        if root is None:
            continue
        with _probe_file(root, option) as probe:
            _require_seen(executor, probe, root, option, "can't see what this machine writes there")


def require_readable(executor: Executor, option: str, datasets: Iterable[ShardDataset]) -> None:
    """Make sure that all machines see datasets that are only read. Nothing is written: one file of each shard is looked for.

    Args:
        option: what names them. Only datasets in local folders are looked at.
    Raises:
        InvalidInputError: machines do not see a dataset; names its folder, the machines and the option.
    """
    if not isinstance(executor, SpansMachines):
        return
    for dataset in datasets:
        root = open_store(dataset.url).local_root()
        if root is not None:
            summary = root / dataset.folder / SUMMARY_NAME
            _require_seen(executor, summary, root, option, f"can't see {summary.relative_to(root)}, which is there on this machine")


def _require_seen(executor: SpansMachines, file: Path, root: Path, option: str, problem: str) -> None:
    blind = sorted(name for name, seen in executor.on_each_machine(SeesFileTask(str(file))) if not seen)
    if blind:
        shown = ", ".join(blind[:3]) + (f" and {len(blind) - 3} more" if len(blind) > 3 else "")
        raise InvalidInputError(
            problem=f"the folder {root} is not shared: {shown} {problem}",
            where=option,
            remedy=f"Name a bucket, or a folder that all machines mount at the same path, with {option}.",
        )


@contextlib.contextmanager
def _probe_file(root: Path, option: str) -> Iterator[Path]:
    folder = root / TEMPORARY_FOLDER
    probe = folder / f"shared-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
    except OSError as error:
        raise StoreDeniedError(problem=f"the folder can't be written: {error.strerror or error}", where=f"{option} {root}") from None
    try:
        yield probe
    finally:
        probe.unlink(missing_ok=True)
