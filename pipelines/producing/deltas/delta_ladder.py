"""A producer's ladder: the deltas that each of its epochs is to have, made when the epoch is published.

Whatever goes wrong with a delta is told and ends no production: readers of an epoch without deltas take whole parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.dataset.arrow_dataset import ShardDataset, list_shards
from pipelines.execution.stage_runner import StageRunner
from pipelines.producing.deltas.ladder import ladder_bases
from pipelines.producing.deltas.make_deltas import DeltaInputs, DeltaProduction
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.stores.open_store import open_store
from schemas.errors import DatasetError, StatecastError, StoreNotListedError
from schemas.nearcore.epoch_context import EpochContext
from schemas.published.manifest_delta import ManifestDelta
from schemas.published.object_layout import EpochLayout

LADDER_MAX: Final = 10_000
"""Most epochs between two rungs."""


@dataclass(frozen=True, slots=True)
class DeltaLadder:
    """How the deltas of each epoch are made."""

    every: int
    """Besides the epoch before, the last one whose height is a multiple of this is a base."""
    work_url: str
    kernel_name: str
    node_home: str | None = None
    """A node that may have the tries of both epochs."""
    dataset_url: str | None = None
    """Where datasets of earlier epochs may still be."""
    read_limit_bytes_per_s: int | None = None

    def make(
        self, runner: StageRunner, publisher: EpochPublisher, context: EpochContext, datasets: Sequence[ShardDataset] = ()
    ) -> tuple[ManifestDelta, ...]:
        """Make what is missing of a published epoch's deltas; return those that were made.

        Args:
            datasets: of the epoch, where they are still there.
        """
        try:
            layout = publisher.layout(context)
            bases = ladder_bases(open_store(publisher.store_url), layout, self.every)
            older = tuple(dataset for base in bases for dataset in self._datasets_of(base))
            inputs = DeltaInputs((*datasets, *older), self.node_home, self.read_limit_bytes_per_s, compose=True)
            return DeltaProduction(runner, publisher, inputs, self.kernel_name, self.work_url).run(layout, bases)
        except StatecastError as error:
            runner.progress.note(f"epoch {context.epoch_height} is published, but not all of its deltas are: {error}")
            return ()

    def _datasets_of(self, layout: EpochLayout) -> list[ShardDataset]:
        if self.dataset_url is None:
            return []
        try:
            return list_shards(f"{self.dataset_url}/{layout.folder}")
        except (DatasetError, StoreNotListedError):
            return []
