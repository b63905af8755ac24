"""What commands that seed have in common: a seeder that ends when asked to, a plan, and what rebuilds parts out of older epochs and deltas."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from jobs.options import open_embedded_executor
from pipelines.execution.machine_limits import machine_cores
from pipelines.execution.progress import NotedProgress
from pipelines.execution.stage_runner import StageRunner, silent_runner
from pipelines.execution.stop_signals import stopping
from pipelines.fetching.part_rebuilding import PartRebuilder
from pipelines.kernel.choice import choose_kernel
from pipelines.mirroring.destination_rebuilder import DestinationRebuilder
from pipelines.seeding.data_folder import DataFolder
from pipelines.seeding.epoch_feed import EpochFeed, EpochToSeed
from pipelines.seeding.rebuilt_parts import PartBringing
from pipelines.seeding.seed_plan import ShardToSeed, plan_epoch
from pipelines.seeding.seeder import Seeder, SeedSettings
from pipelines.seeding.status import SeedEvent
from pipelines.stores.store import Store
from pipelines.trust.freshness import AcceptedManifests
from pipelines.trust.policy import TrustPolicy
from schemas.errors import EpochNotReadyError, TransientStoreError


def open_seeder(
    stack: ExitStack,
    store: Store,
    folder: DataFolder,
    settings: SeedSettings,
    on_event: Callable[[SeedEvent], None],
    stopped: threading.Event,
    *,
    rebuild: bool = True,
    ends_well: bool = True,
) -> Seeder:
    """Return a seeder that ends by a signal.

    Args:
        stack: closes what runs the work, and ends the look for signals.
        settings: without a rebuilder.
        stopped: set by a signal; ends what is under way.
        rebuild: rebuild parts out of older epochs in the folder and deltas, where that is fewer bytes.
        ends_well: as of `pipelines.execution.stop_signals.stopping`.
    """
    if rebuild:
        executor = open_embedded_executor(machine_cores())
        stack.callback(executor.close)

        def keep_going() -> None:
            if stopped.is_set():
                raise TransientStoreError(problem="stopped", where=str(folder.root))

        runner = StageRunner(executor, NotedProgress(lambda text: on_event(SeedEvent("note", text, {}))), keep_going)
        settings = replace(settings, rebuilder=_rebuilder(folder, runner, settings.trust, settings.download_bytes_per_s))
    seeder = Seeder(store, folder, settings, on_event)

    def stop(_name: str) -> None:
        stopped.set()
        seeder.stop()

    stack.enter_context(stopping(stop, ends_well=ends_well))
    return seeder


def newest_epochs(store: Store, chain_id: str, policy: TrustPolicy, epochs: int) -> Sequence[EpochToSeed]:
    """Return the newest epochs of a chain, newest first; at least one.

    Raises:
        EpochNotReadyError, ManifestError: no epoch is there that is believed.
    """
    look = EpochFeed(store, chain_id, epochs, policy, AcceptedManifests(chain_id)).look()
    if not look.epochs:
        for _, refusal in look.refused:
            raise refusal
        raise EpochNotReadyError(problem=f"no epoch of {chain_id} is published there", where=store.url)
    return look.epochs


def plan_epochs(
    store: Store,
    folder: DataFolder,
    policy: TrustPolicy,
    epochs: Sequence[EpochToSeed],
    shard_ids: Sequence[int],
    on_problem: Callable[[str], None],
    local: Path | None = None,
    *,
    rebuild: bool = True,
) -> list[ShardToSeed]:
    """Return what would be brought of some epochs, in their order; nothing is rebuilt."""
    rebuilder = _rebuilder(folder, silent_runner(), policy) if rebuild and folder.root.is_dir() else None
    bringing = PartBringing(store, folder, rebuilder, on_problem)
    return [one for epoch in epochs for one in plan_epoch(bringing, epoch, shard_ids, local)]


def _rebuilder(folder: DataFolder, runner: StageRunner, policy: TrustPolicy, bytes_per_s: float | None = None) -> PartRebuilder:
    return DestinationRebuilder(str(folder.root), runner, choose_kernel("auto"), policy, bytes_per_s)
