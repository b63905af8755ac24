"""Drives a whole production: export, build, publish, shard by shard, the manifest last; or all that without an export."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.dataset_header import VerifyStateHeader, verified_dataset_header
from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_order import export_steps
from pipelines.dataset.export.export_records import ExportSettings, discard_export
from pipelines.dataset.tables.tables_place import TablesPlace
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import KeepGoing, StageRunner, go_on
from pipelines.kernel.trie_kernel import Kernel
from pipelines.near.node.flat_state_source import FlatStateSource, FoundStateHeader, StateHeaderVerifier
from pipelines.producing.build.shard_origin import DirectOrigin
from pipelines.producing.build.work_folder import direct_work_folder, work_folder_for
from pipelines.producing.build_shard import PlannedShard, build_planned, plan_shard
from pipelines.producing.deltas.delta_ladder import DeltaLadder
from pipelines.producing.direct_shard import build_edges, plan_direct, publish_again, verified_source_header
from pipelines.producing.early_parts import has_boundary_nodes, produce_early
from pipelines.producing.network_parts import NetworkParts, NetworkProduction
from pipelines.producing.publish.epoch_publisher import EpochPublisher, PublishedEpoch
from pipelines.producing.publish.publish_part import PublishPartTask
from pipelines.producing.publish.shard_publisher import ProducedShard, PublishedShard
from pipelines.producing.publish_tables import EpochTables
from pipelines.producing.shared_folders import require_shared
from pipelines.stores.open_store import open_store
from schemas.dataset.dataset_summary import shard_folder
from schemas.errors import InvalidInputError, SourceChangedError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext

PUBLISH_TASK_MEMORY_BYTES = 500 << 20
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
    write_dataset: bool = True
    """Export the records first; False reads each part's records from the source, and writes no dataset (``docs/decisions/0013``)."""
    keep_work: bool = False
    """Leave interiors and edges in the work folder after the epoch is published."""
    keep_dataset: bool = True
    """Keep the exported dataset; False deletes it at the end."""

    @classmethod
    def in_folder(
        cls,
        work_url: str,
        dataset_url: str | None = None,
        *,
        num_parts: int | None = None,
        write_dataset: bool = True,
        keep_work: bool = False,
        durable: bool = False,
    ) -> ProductionSettings:
        """Return the settings of a production that works in a folder of its own.

        Args:
            dataset_url: where the exported dataset goes and stays; None for the work folder, which it leaves in the end.
            write_dataset: export the records first, as `ProductionSettings.write_dataset`.
            keep_work: leave what is in the work folder.
            durable: make sure of the dataset's files also where it does not stay: another epoch is made of it.
        """
        return cls(
            export=ExportSettings(dataset_url or f"{work_url}/dataset", durable=durable or dataset_url is not None),
            work_url=f"{work_url}/build",
            num_parts=num_parts,
            write_dataset=write_dataset,
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
    """Exported before; empty where a source or peers are given."""
    publisher: EpochPublisher
    settings: ProductionSettings
    described: str
    """What is read, in one line for people."""
    epoch_shard_ids: tuple[int, ...]
    """All shards that the epoch is known to have, produced here or not."""
    header_source: StateHeaderVerifier | None = None
    """Verifies state headers that no summary vouches for; None for the source itself, if it can."""
    network: NetworkParts | None = None
    """Peers that have the parts themselves: nothing is exported and built then, and the runner's tasks run in this process."""
    ladder: DeltaLadder | None = None
    """Makes the epoch's deltas once it is published; None for none."""
    before_manifest: KeepGoing = go_on
    """The runner's `keep_going` asked a last time, now of the store: when all that the manifest lists is published. What it raises keeps
    the manifest from being written."""

    def run(self) -> EpochResult:
        """Produce and publish all shards of the context.

        Raises:
            StatecastError: passed on from the stages; what is done stays, and a rerun does the rest.
        """
        began = time.monotonic()
        exporting = {} if self.source is None or self.is_direct else {"--dataset": self.settings.export.dataset_url}
        working = {"--work": self.settings.work_url} if self.network is None else {}
        require_shared(self.runner.executor, {**working, "--to": self.publisher.store_url, **exporting})
        made, tables = _Made(), self._tables()
        if self.network is not None:
            self._take_from(self.network, made, began)
        elif self.is_direct:
            self._produce_directly(made, began)
        else:
            self._produce_datasets(made, began, tables)
        stated = None if tables is None else tables.finish()
        self.before_manifest()
        epoch = self.publisher.finish(self.context, list(made.published.values()), self.epoch_shard_ids, stated)
        if self.ladder is not None:
            self.ladder.make(self.runner, self.publisher, self.context, made.datasets)
        for remove in made.leftovers:
            remove()
        return EpochResult(
            context=self.context,
            source=self.described,
            epoch_url=self.publisher.epoch_url(self.context),
            kernel_name=self.kernel.name,
            executor=self.runner.executor.description,
            shards=tuple(made.published[shard.shard_uid] for shard in self.context.shards),
            shard_seconds=made.seconds,
            published=epoch,
            seconds=time.monotonic() - began,
            exported_s=made.exported_s,
        )

    @property
    def is_direct(self) -> bool:
        """Whether each part is read from the source, and no dataset is written."""
        return self.source is not None and not self.settings.write_dataset

    def _take_from(self, network: NetworkParts, made: _Made, began: float) -> None:
        taking = NetworkProduction(self.runner, self.kernel, network, self.publisher, self.context, num_parts=self.settings.num_parts)

        def take(shard: ShardContext) -> PublishedShard:
            return self.publisher.put_shard(self.context, taking.take(shard))

        for shard in self.context.shards:
            made.produce(shard, partial(take, shard))
        made.exported_s = time.monotonic() - began

    def _tables(self) -> EpochTables | None:
        """Take the place of the tables, where there are to be any: what is there may be no place for them."""
        publisher, context = self.publisher, self.context
        if publisher.tables_url is None:
            return None
        if self.is_direct or self.network is not None:
            raise InvalidInputError(problem="tables are made of a dataset, and none is written", remedy="Leave --dataset none out.")
        require_shared(self.runner.executor, {"--tables": publisher.tables_url})
        place = TablesPlace.take(publisher.tables_url, context.chain_id)
        place.refuse_other_epoch(context)
        return EpochTables(self.runner, self.kernel, context, publisher, place)

    def _produce_datasets(self, made: _Made, began: float, tables: EpochTables | None) -> None:
        exported_shards = 0
        for exported in self._exported():
            exported_shards += len(exported)
            if exported_shards == len(self.context.shards):
                made.exported_s = time.monotonic() - began
                self._note_read("exported", made.exported_s)
            # The largest shard first: its parts are what a new node waits for longest.
            for dataset in sorted(exported, key=lambda one: -one.summary.records):
                made.produce(dataset.summary.shard, partial(self._produce_shard, dataset))
                made.datasets.append(dataset)
                if tables is not None:
                    tables.make(dataset, made.published[dataset.summary.shard.shard_uid])
                made.leftovers += self._leftovers(dataset)

    def _leftovers(self, dataset: ShardDataset) -> Iterator[Callable[[], None]]:
        if not self.settings.keep_work:
            yield work_folder_for(self.settings.work_url, dataset).remove
        if not self.settings.keep_dataset and self.source is not None:
            yield partial(discard_export, dataset)

    def _produce_directly(self, made: _Made, began: float) -> None:
        source = self.source
        assert source is not None, "the direct way reads a source"
        self.runner.progress.note("no dataset is written: each part is read from the source, which is needed until the last one is out")
        origins = [self._direct_origin(source, shard) for shard in self.context.shards]
        # The largest shard first, as far as that is known before the shards are read.
        for origin in sorted(origins, key=lambda one: -(source.root_memory_usage(one.shard) or 0)):
            made.produce(origin.shard, partial(self._produce_shard_directly, origin))
            if not self.settings.keep_work:
                made.leftovers.append(origin.work.remove)
            if not self.settings.keep_dataset:
                # Of an earlier run that was to write a dataset and did not come to its end.
                folder = shard_folder(self.context, origin.shard.shard_uid)
                made.leftovers.append(partial(open_store(self.settings.export.dataset_url).delete_folder, folder))
        made.exported_s = time.monotonic() - began
        self._note_read("read", made.exported_s)

    def _direct_origin(self, source: FlatStateSource, shard: ShardContext) -> DirectOrigin:
        """Return a shard's origin; one that can't be read shows before anything of another is published."""
        fingerprint = source.fingerprint(shard)
        return DirectOrigin(source, shard, direct_work_folder(self.settings.work_url, self.context, shard.shard_uid, fingerprint))

    def _exported(self) -> Iterator[Sequence[ShardDataset]]:
        """Yield the shards' datasets, exported as they are asked for."""
        if self.source is None:
            yield self.datasets
            return
        for context in export_steps(self.source, self.context) if self.settings.publish_early else (self.context,):
            yield export_epoch(self.runner, self.source, context, self.settings.export)

    def _note_read(self, how: str, exported_s: float) -> None:
        if self.source is not None and self.source.on_node_disk:
            self.runner.progress.note(f"every record and value is {how} after {exported_s:.1f} s: the snapshot is no longer needed")

    def _produce_shard(self, dataset: ShardDataset) -> PublishedShard:
        work = work_folder_for(self.settings.work_url, dataset)
        verify_header = self._header_verifier(dataset.summary.shard)
        header = verified_dataset_header(dataset, verify_header)
        planned = plan_shard(self.runner, self.kernel, dataset, work, self.settings.num_parts)
        return self._publish(planned, header, verify_header)

    def _produce_shard_directly(self, origin: DirectOrigin) -> PublishedShard:
        verify_header = self._header_verifier(origin.shard)
        header = verified_source_header(origin.source, self.context, origin.shard, verify_header)
        try:
            planned = plan_direct(self.runner, self.kernel, origin, self.settings.num_parts, self.settings.export.range_bytes_target)
            return self._publish(planned, header, verify_header)
        except SourceChangedError:
            # What was planned by is not what is there now: a rerun starts over.
            origin.discard()
            raise

    def _publish(self, planned: PlannedShard, header: FoundStateHeader, verify_header: VerifyStateHeader | None) -> PublishedShard:
        source = self.source
        if self.settings.publish_early and source is not None and has_boundary_nodes(self.runner, planned, source):
            state_root = planned.shard.state_root
            assert state_root is not None, "boundary nodes come from a trusted root"
            tasks = self._publish_tasks(planned, state_root)
            built, parts = produce_early(self.runner, self.kernel, planned, source, tasks)
        elif source is not None and self.is_direct:
            built = build_edges(self.runner, self.kernel, planned, source)
            parts = publish_again(self.runner, self.kernel, planned, self._publish_tasks(planned, built.state_root))
        else:
            built = build_planned(self.runner, self.kernel, planned, source)
            tasks = self._publish_tasks(planned, built.state_root)
            parts = self.runner.run("publish", planned.name, tasks, TaskNeeds(PUBLISH_TASK_MEMORY_BYTES), lambda part: part.amount)
        return self.publisher.put_shard(self.context, ProducedShard(built.state, tuple(parts), header, verify_header))

    def _header_verifier(self, shard: ShardContext) -> VerifyStateHeader | None:
        source = self.header_source or self.source
        if not isinstance(source, StateHeaderVerifier):
            return None
        return partial(source.verify_state_header, shard, self.context.sync_hash)

    def _publish_tasks(self, planned: PlannedShard, state_root: CryptoHash) -> list[PublishPartTask]:
        """Return a task a part, once it is sure that no manifest lists the shard in another form."""
        publisher, shard = self.publisher, planned.shard
        publisher.refuse_other_shard(self.context, shard.shard_uid, state_root, len(planned.plans))
        return [
            PublishPartTask(
                work=planned.work,
                plan=plan,
                place=publisher.part_place(self.context, shard.shard_id, plan.part_id),
                state_root=state_root,
                encoding=publisher.encoding,
                zstd_level=publisher.zstd_level,
                kernel_name=self.kernel.name,
                piece_length=planned.piece_length,
                validate=self.settings.validate,
            )
            for plan in planned.plans
        ]


@dataclass(slots=True)
class _Made:
    """What a production has made so far."""

    published: dict[ShardUId, PublishedShard] = field(default_factory=dict)
    seconds: dict[ShardUId, float] = field(default_factory=dict)
    exported_s: float = 0.0
    datasets: list[ShardDataset] = field(default_factory=list)
    leftovers: list[Callable[[], None]] = field(default_factory=list)
    """Remove what is of no use once the manifest is there."""

    def produce(self, shard: ShardContext, work: Callable[[], PublishedShard]) -> None:
        """Produce a shard and keep the time."""
        began = time.monotonic()
        self.published[shard.shard_uid] = work()
        self.seconds[shard.shard_uid] = time.monotonic() - began
