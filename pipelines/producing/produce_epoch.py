"""Drives a whole production: export, build, publish, shard by shard, the manifest last."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.dataset_header import VerifyStateHeader, verified_dataset_header
from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_order import export_steps
from pipelines.dataset.export.export_records import ExportSettings, discard_export
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, KeepGoing, StageRunner, go_on
from pipelines.kernel.trie_kernel import Kernel
from pipelines.near.node.flat_state_source import FlatStateSource, StateHeaderVerifier
from pipelines.producing.build.work_folder import work_folder_for
from pipelines.producing.build_shard import PlannedShard, build_planned, plan_shard
from pipelines.producing.early_parts import has_boundary_nodes, produce_early
from pipelines.producing.publish.epoch_publisher import EpochPublisher, PublishedEpoch
from pipelines.producing.publish.publish_part import PublishedPart, PublishPartTask
from pipelines.producing.publish.shard_publisher import ProducedShard, PublishedShard
from pipelines.producing.shared_folders import require_shared
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext

PUBLISH_TASK_MEMORY_BYTES = 600 << 20
"""Most memory of a process that publishes parts, one at a time: a part's pieces, both forms, and what is read back."""


@dataclass(frozen=True, slots=True)
class ProductionSettings:
    """How an epoch is made. In which form and to where it is published, its `EpochPublisher` says."""

    export: ExportSettings
    work_url: str
    num_parts: int | None = None
    """None for as many as nearcore makes."""
    validate: bool = True
    """Validate a part before it is put, where its shard's root has come out; before that it is validated always."""
    publish_early: bool = True
    """Publish each part as soon as it alone is validated, where the source has the trie nodes that this takes."""
    keep_work: bool = False
    """Leave interiors and edges in the work folder after the epoch is published."""
    keep_dataset: bool = True
    """Keep the exported dataset; False deletes it at the end."""

    @classmethod
    def in_folder(
        cls, work_url: str, dataset_url: str | None = None, *, num_parts: int | None = None, keep_work: bool = False, durable: bool = False
    ) -> ProductionSettings:
        """Return the settings of a production that works in a folder of its own.

        Args:
            dataset_url: where the exported dataset goes and stays; None for the work folder, which it leaves in the end.
            keep_work: leave what is in the work folder.
            durable: make sure of the dataset's files also where it does not stay: another epoch is made of it.
        """
        return cls(
            export=ExportSettings(dataset_url or f"{work_url}/dataset", durable=durable or dataset_url is not None),
            work_url=f"{work_url}/build",
            num_parts=num_parts,
            keep_work=keep_work,
            keep_dataset=keep_work or dataset_url is not None,
        )


@dataclass(frozen=True, slots=True)
class EpochResult:
    """The result of a production."""

    context: EpochContext
    source: str
    epoch_url: str
    kernel_name: str
    executor: str
    shards: tuple[PublishedShard, ...]
    """In the context's order."""
    shard_seconds: Mapping[ShardUId, float]
    """From a shard's plan until its statement and torrent were stored."""
    published: PublishedEpoch
    seconds: float
    exported_s: float
    """From the start until no record was left to read from the source."""

    @property
    def records(self) -> int:
        """Records of all shards."""
        return sum(shard.records for shard in self.shards)

    @property
    def part_count(self) -> int:
        """Parts of all shards."""
        return sum(shard.listing.num_parts for shard in self.shards)

    @property
    def stored_size(self) -> int:
        """Bytes of all parts' objects."""
        return sum(shard.stored_size for shard in self.shards)

    @property
    def manifest_revision(self) -> int:
        """Revision that was written, or found to be right already."""
        return self.published.revision

    @property
    def signed_by(self) -> str | None:
        """Public key of the signature; None where unsigned."""
        return self.published.signed_by


@dataclass(frozen=True, slots=True)
class EpochProduction:
    """A production: everything that its driver needs."""

    runner: StageRunner
    kernel: Kernel
    context: EpochContext
    source: FlatStateSource | None
    datasets: tuple[ShardDataset, ...]
    """Exported before; empty where a source is given."""
    publisher: EpochPublisher
    settings: ProductionSettings
    described: str
    """What is read, in one line for people."""
    epoch_shard_ids: tuple[int, ...]
    """All shards that the epoch is known to have, produced here or not."""
    header_source: StateHeaderVerifier | None = None
    """Verifies state headers that no summary vouches for; None for the source itself, if it can."""
    before_manifest: KeepGoing = go_on
    """The runner's `keep_going` asked a last time, now of the store: when all that the manifest lists is published. What it raises keeps
    the manifest from being written."""

    def run(self) -> EpochResult:
        """Produce and publish all shards of the context.

        Raises:
            StatecastError: passed on from the stages; what is done stays, and a rerun does the rest.
        """
        began = time.monotonic()
        exporting = {"--dataset": self.settings.export.dataset_url} if self.source is not None else {}
        require_shared(self.runner.executor, {"--work": self.settings.work_url, "--to": self.publisher.store_url, **exporting})
        datasets: list[ShardDataset] = []
        published: dict[ShardUId, PublishedShard] = {}
        shard_seconds: dict[ShardUId, float] = {}
        exported_s = 0.0
        for exported in self._exported():
            datasets += exported
            if len(datasets) == len(self.context.shards):
                exported_s = time.monotonic() - began
                self._note_exported(exported_s)
            # The largest shard first: its parts are what a new node waits for longest.
            for dataset in sorted(exported, key=lambda one: -one.summary.records):
                shard_began = time.monotonic()
                shard_uid = dataset.summary.shard.shard_uid
                published[shard_uid] = self._produce_shard(dataset)
                shard_seconds[shard_uid] = time.monotonic() - shard_began
        self.before_manifest()
        epoch = self.publisher.finish(self.context, list(published.values()), self.epoch_shard_ids)
        for dataset in datasets:
            if not self.settings.keep_work:
                work_folder_for(self.settings.work_url, dataset).remove()
            if not self.settings.keep_dataset and self.source is not None:
                discard_export(dataset)
        return EpochResult(
            context=self.context,
            source=self.described,
            epoch_url=self.publisher.epoch_url(self.context),
            kernel_name=self.kernel.name,
            executor=self.runner.executor.description,
            shards=tuple(published[shard.shard_uid] for shard in self.context.shards),
            shard_seconds=shard_seconds,
            published=epoch,
            seconds=time.monotonic() - began,
            exported_s=exported_s,
        )

    def _exported(self) -> Iterator[Sequence[ShardDataset]]:
        """Yield the shards' datasets, exported as they are asked for."""
        if self.source is None:
            yield self.datasets
            return
        for context in export_steps(self.source, self.context) if self.settings.publish_early else (self.context,):
            yield export_epoch(self.runner, self.source, context, self.settings.export)

    def _note_exported(self, exported_s: float) -> None:
        if self.source is not None and self.source.on_node_disk:
            self.runner.progress.note(f"every record and value is exported after {exported_s:.1f} s: the snapshot is no longer needed")

    def _produce_shard(self, dataset: ShardDataset) -> PublishedShard:
        work = work_folder_for(self.settings.work_url, dataset)
        verify_header = self._header_verifier(dataset)
        header = verified_dataset_header(dataset, verify_header)
        planned = plan_shard(self.runner, self.kernel, dataset, work, self.settings.num_parts)
        source = self.source
        if self.settings.publish_early and source is not None and has_boundary_nodes(self.runner, planned, source):
            state_root = dataset.summary.shard.state_root
            assert state_root is not None, "boundary nodes come from a trusted root"
            tasks = self._publish_tasks(planned, state_root)
            built, parts = produce_early(self.runner, self.kernel, planned, source, tasks)
        else:
            built = build_planned(self.runner, self.kernel, planned, source)
            tasks = self._publish_tasks(planned, built.state_root)
            parts = self.runner.run("publish", planned.name, tasks, TaskNeeds(PUBLISH_TASK_MEMORY_BYTES), _published)
        return self.publisher.put_shard(self.context, ProducedShard(built, tuple(parts), header, verify_header))

    def _header_verifier(self, dataset: ShardDataset) -> VerifyStateHeader | None:
        source = self.header_source or self.source
        if not isinstance(source, StateHeaderVerifier):
            return None
        return partial(source.verify_state_header, dataset.summary.shard, self.context.sync_hash)

    def _publish_tasks(self, planned: PlannedShard, state_root: CryptoHash) -> list[PublishPartTask]:
        """Return a task a part, once it is sure that no manifest lists the shard in another form."""
        publisher, shard = self.publisher, planned.dataset.summary.shard
        publisher.refuse_other_shard(self.context, shard.shard_uid, state_root, len(planned.plans))
        return [
            PublishPartTask(
                work=planned.work,
                plan=plan,
                state_root=state_root,
                store_url=publisher.store_url,
                object_name=publisher.layout(self.context).state_part(shard.shard_id, plan.part_id),
                encoding=publisher.encoding,
                zstd_level=publisher.zstd_level,
                kernel_name=self.kernel.name,
                piece_length=planned.piece_length,
                validate=self.settings.validate,
                upload_limit_bytes_per_s=publisher.upload_limit_bytes_per_s,
            )
            for plan in planned.plans
        ]


def _published(part: PublishedPart) -> Amount:
    return Amount(records=part.plan.records, size=part.digests.stored_size, parts=1)
