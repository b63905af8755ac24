"""What a planned shard's records come from, and what becomes of that once they have proved right or wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.export.export_records import discard_export
from pipelines.dataset.verify_dataset import RootExplanation, check_state_root, dataset_name, settle_root
from pipelines.near.node.flat_state_source import FlatStateSource
from pipelines.producing.build.part_records import DatasetRecords, PartRecords, SourceRecords
from pipelines.producing.build.work_folder import WorkFolder
from schemas.errors import StateRootMismatchError
from schemas.ids import CryptoHash
from schemas.nearcore.epoch_context import ShardContext


class ShardOrigin(Protocol):
    """Where a shard's records come from."""

    @property
    def shard(self) -> ShardContext:
        """The shard, with the trusted state root where there is one."""
        ...

    @property
    def records(self) -> PartRecords:
        """What reads its parts' records."""
        ...

    def settle(self, state_root: CryptoHash, memory_usage: int, explanation: RootExplanation | None) -> None:
        """Compare the state root that the records hash to with the trusted one.

        Args:
            explanation: names the differing keys; None where this run has not read the source.
        Raises:
            StateRootMismatchError: they differ. What this run has made of the source by then is removed, so that a rerun reads it again.
        """
        ...

    def discard(self) -> None:
        """Remove what this run has made of the source: its records contradict the trusted state root, or are not what they were."""
        ...


@dataclass(frozen=True, slots=True)
class DatasetOrigin:
    """An exported dataset."""

    dataset: ShardDataset

    @property
    def shard(self) -> ShardContext:
        """See `ShardOrigin.shard`."""
        return self.dataset.summary.shard

    @property
    def records(self) -> PartRecords:
        """See `ShardOrigin.records`."""
        return DatasetRecords(self.dataset.reference)

    def settle(self, state_root: CryptoHash, memory_usage: int, explanation: RootExplanation | None) -> None:
        """See `ShardOrigin.settle`; a root that is right is noted in the dataset."""
        if explanation is None:
            check_state_root(self.shard.state_root, state_root, dataset_name(self.dataset))
        else:
            settle_root(self.dataset, state_root, memory_usage, explanation)

    def discard(self) -> None:
        """See `ShardOrigin.discard`."""
        discard_export(self.dataset)


@dataclass(frozen=True, slots=True)
class DirectOrigin:
    """The source itself: no dataset is written."""

    source: FlatStateSource
    shard: ShardContext
    work: WorkFolder
    """All that stages leave each other of the shard."""

    @property
    def records(self) -> PartRecords:
        """See `ShardOrigin.records`."""
        return SourceRecords(self.source, self.shard)

    def settle(self, state_root: CryptoHash, memory_usage: int, explanation: RootExplanation | None) -> None:
        """See `ShardOrigin.settle`."""
        what = f"shard {self.shard.shard_uid} of {self.source.describe()}"
        try:
            check_state_root(self.shard.state_root, state_root, what)
        except StateRootMismatchError as error:
            where = what + ("" if explanation is None else explanation.difference(self.shard))
            self.discard()
            raise error.at(where) from None

    def discard(self) -> None:
        """See `ShardOrigin.discard`."""
        self.work.remove()
