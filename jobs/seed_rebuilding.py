"""What rebuilds parts for those who seed: out of older epochs in their data folder and deltas."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from jobs.options import open_embedded_executor
from pipelines.execution.machine_limits import machine_cores
from pipelines.execution.progress import NotedProgress
from pipelines.execution.stage_runner import StageRunner, silent_runner
from pipelines.fetching.part_rebuilding import PartRebuilder
from pipelines.kernel.choice import choose_kernel
from pipelines.mirroring.destination_rebuilder import DestinationRebuilder
from pipelines.trust.policy import TrustPolicy
from schemas.errors import TransientStoreError


def open_rebuilder(
    stack: ExitStack,
    folder: Path,
    policy: TrustPolicy,
    stopped: threading.Event,
    on_note: Callable[[str], None],
    bytes_per_s: float | None = None,
) -> PartRebuilder:
    """Return what rebuilds parts out of a data folder's older epochs.

    Args:
        stack: closes what runs the work.
        policy: of the seeder.
        stopped: ends what is under way.
        bytes_per_s: most bytes of deltas a second; None for no limit.
    """
    executor = open_embedded_executor(machine_cores())
    stack.callback(executor.close)

    def keep_going() -> None:
        if stopped.is_set():
            raise TransientStoreError(problem="stopped", where=str(folder))

    runner = StageRunner(executor, NotedProgress(on_note), keep_going)
    return DestinationRebuilder(str(folder.absolute()), runner, choose_kernel("auto"), policy, bytes_per_s)


def planning_rebuilder(folder: Path, policy: TrustPolicy) -> PartRebuilder:
    """Return what finds the ways and rebuilds nothing."""
    runner = silent_runner()
    return DestinationRebuilder(str(folder.absolute()), runner, choose_kernel("auto"), policy)
