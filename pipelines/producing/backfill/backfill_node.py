"""Drives a backfill: many epochs of one node, each published as a production publishes it, several at a time.

The epochs are cut into as many adjacent runs as are worked on at once. Within a run each epoch's records come from the one before, rolled
forward, where that is possible; else from the node's flat state or by a walk over its State column. An epoch that fails leaves the others
alone. Everything that is done stays: the same command goes on where an earlier one ended.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from pipelines.bucket.epoch_claim import remove_dead_claim
from pipelines.bucket.published_epoch import read_manifest
from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_records import discard_export, find_readable_shard
from pipelines.dataset.roll_forward.roll_forward_shard import roll_forward_shard
from pipelines.execution.executor import Executor
from pipelines.execution.progress import Progress, StageProgress
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.trie_kernel import Kernel
from pipelines.near.node.node_home import read_node_home
from pipelines.near.node.node_store import NodeSource
from pipelines.near.trie.changed_records import find_known_layout
from pipelines.near.trie.trie_walk_source import StateWalk, StateWalkSource, choose_node_source
from pipelines.producing.backfill.backfill_epochs import WantedEpoch
from pipelines.producing.backfill.backfill_status import BackfillStatus, RecordsWay, Step, StepState
from pipelines.producing.build.work_folder import work_folder_for
from pipelines.producing.claimed_production import ClaimedRun, ClaimTerms, claimed
from pipelines.producing.deltas.delta_ladder import DeltaLadder
from pipelines.producing.produce_epoch import EpochProduction, EpochResult, ProductionSettings
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.producing.shared_folders import require_readable, require_shared
from pipelines.stores.open_store import open_store
from schemas.errors import IntegrityError, SnapshotMismatchError, SourceError, StatecastError, StateRootMismatchError
from schemas.ids import ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.published.object_layout import EpochLayout

PARALLEL_MAX = 64
"""Most epochs that are worked on at once."""

Datasets = dict[ShardUId, ShardDataset]


@dataclass(frozen=True, slots=True)
class NodeInput:
    """The node that a backfill reads."""

    node_home: str
    state_walk: StateWalk = StateWalk.AUTO
    read_limit_bytes_per_s: int | None = None
    roll_forward: bool = True

    def source(self, context: EpochContext) -> NodeSource:
        """Return what reads an epoch from the node.

        Raises:
            SourceError: a database can't be read.
        """
        return choose_node_source(NodeSource(self.node_home, context, self.read_limit_bytes_per_s), self.state_walk)


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill: everything that its driver needs."""

    node: NodeInput
    epochs: tuple[WantedEpoch, ...]
    """Ascending by height."""
    older: tuple[ShardDataset, ...]
    """Datasets of one older epoch to begin from; may be empty. They are only read."""
    executor: Executor
    progress: Progress
    kernel: Kernel
    publisher_for: Callable[[EpochContext], EpochPublisher]
    settings: ProductionSettings
    parallel: int
    status: BackfillStatus
    ladder: DeltaLadder | None = None
    """Makes each epoch's deltas; None for none. Where lanes are worked on side by side, those that lead over their ends come last."""
    thin: Callable[[StageRunner, EpochLayout], None] | None = None
    """Lets the parts of an epoch go that deltas lead to, once the epoch after it in its lane is there with its own: so that not all of them are there at
    any time. None to leave them."""

    def lanes(self) -> list[tuple[WantedEpoch, ...]]:
        """Return the adjacent runs of epochs that are worked on side by side."""
        count = min(self.parallel, PARALLEL_MAX, len(self.epochs))
        cuts = [len(self.epochs) * number // count for number in range(count + 1)]
        return [self.epochs[begin:end] for begin, end in itertools.pairwise(cuts)]

    def run(self) -> list[Step]:
        """Do all epochs; return each shard's result.

        Raises:
            InvalidInputError: machines don't share a local folder that they need.
            KeyboardInterrupt: raised again once every lane has its next result.
        """
        # Each production looks at what it needs; a dataset is written before, and an older one read.
        exporting = {"--dataset": self.settings.export.dataset_url} if self.settings.write_dataset else {}
        require_shared(self.executor, {"--work": self.settings.work_url, **exporting})
        require_readable(self.executor, "--from", self.older)
        self.status.recall()
        for epoch in self.epochs:
            if epoch.failure is not None:
                self._note_failure(epoch, epoch.failure)
        lanes = self.lanes()
        if len(lanes) == 1:
            _Lane(self, lanes[0], _LaneProgress(self.progress, threading.Lock()), threading.Event()).run()
        else:
            self._run_side_by_side(lanes)
            self._make_deltas()
        heights = {epoch.epoch_height for epoch in self.epochs}
        return [step for step in self.status.listed() if step.epoch_height in heights]

    def _run_side_by_side(self, lanes: Sequence[tuple[WantedEpoch, ...]]) -> None:
        lock, stop = threading.Lock(), threading.Event()
        with ThreadPoolExecutor(len(lanes), thread_name_prefix="backfill") as pool:
            running = [pool.submit(_Lane(self, lane, _LaneProgress(self.progress, lock), stop).run) for lane in lanes]
            try:
                for lane in running:
                    lane.result()
            except BaseException:
                stop.set()
                raise

    def _make_deltas(self) -> None:
        """Make the deltas of which an epoch of another lane is the base: it may have been published later."""
        for epoch in self.epochs if self.ladder is not None else ():
            context = epoch.context
            if context is not None and self.ladder is not None:
                publisher = self.publisher_for(context)
                if read_manifest(open_store(publisher.store_url), publisher.layout(context)) is not None:
                    self.ladder.make(StageRunner(self.executor, self.progress), publisher, context)

    def _note_failure(self, epoch: WantedEpoch, error: StatecastError) -> None:
        shards = ["-"] if epoch.context is None else [str(shard.shard_uid) for shard in epoch.context.shards]
        message = " ".join(str(error).split())
        self.status.note(epoch.epoch_height, shards, state=StepState.FAILED, error={**error.to_json(), "message": message})


class _LaneStopped(Exception):
    """A lane ends early: another one failed unexpectedly, or the run was interrupted."""


@dataclass(slots=True)
class _LaneProgress:
    """One lane's progress in the display that all lanes share, one at a time, each epoch by its height."""

    shown: Progress
    lock: threading.Lock
    epoch_height: int = 0

    def stage(self, progress: StageProgress) -> None:
        """Pass a step on."""
        with self.lock:
            self.shown.stage(replace(progress, shard=f"{self.epoch_height} {progress.shard}".rstrip()))

    def note(self, message: str) -> None:
        """Pass a line on."""
        with self.lock:
            self.shown.note(f"epoch {self.epoch_height}: {message}")


@dataclass(slots=True)
class _Lane:
    """Adjacent epochs, one after another."""

    backfill: Backfill
    epochs: tuple[WantedEpoch, ...]
    progress: _LaneProgress
    stop: threading.Event
    """Set when the lanes are to end."""
    _made: list[ShardDataset] = field(default_factory=list)
    """Datasets of this lane that are still there."""
    _whole: list[EpochContext] = field(default_factory=list)
    """Published in this lane, whose parts may have to go."""

    def run(self) -> None:
        base: Datasets = {dataset.summary.shard.shard_uid: dataset for dataset in self._older()}
        for epoch in self.epochs:
            if epoch.context is None:
                continue
            self.progress.epoch_height = epoch.epoch_height
            try:
                made = self._epoch(epoch, epoch.context, base)
            except StatecastError as error:
                self.progress.note(f"failed: {' '.join(str(error).split())}")
                self.backfill._note_failure(epoch, error)
                # What is exported of it stays for the next run.
                self._made = [dataset for dataset in self._made if dataset.summary.context.epoch_id != epoch.context.epoch_id]
                continue
            self._whole.append(epoch.context)
            if made:
                base = made
                self._discard_all_but(base)
            self._thin()
        self._discard_all_but({})

    def _thin(self) -> None:
        """Let the parts of what was published before the last epoch go; of the last one the next epoch's deltas may be made."""
        backfill = self.backfill
        *waiting, last = self._whole
        self._whole = [last]
        for context in waiting if backfill.thin is not None else ():
            assert backfill.thin is not None
            runner = StageRunner(backfill.executor, self.progress, self._keep_going)
            try:
                backfill.thin(runner, backfill.publisher_for(context).layout(context))
            except StatecastError as error:
                self.progress.note(f"the parts of epoch {context.epoch_height} stay for now: {' '.join(str(error).split())}")

    def _older(self) -> tuple[ShardDataset, ...]:
        first = self.epochs[0].epoch_height
        return tuple(dataset for dataset in self.backfill.older if dataset.summary.context.epoch_height < first)

    def _epoch(self, epoch: WantedEpoch, context: EpochContext, base: Datasets) -> Datasets:
        """Publish an epoch; return its datasets, as far as they are there."""
        backfill = self.backfill
        shards = [str(shard.shard_uid) for shard in context.shards]
        publisher = backfill.publisher_for(context)
        if publisher.find_published(context, backfill.settings.num_parts) is not None:
            backfill.status.note(epoch.epoch_height, shards, state=StepState.PUBLISHED, error=None)
            remove_dead_claim(open_store(publisher.store_url), publisher.layout(context))
            if backfill.ladder is not None:
                backfill.ladder.make(StageRunner(backfill.executor, self.progress, self._keep_going), publisher, context)
            found = [dataset for shard in context.shards if (dataset := self._exported(context, shard)) is not None]
            for dataset in found:
                # Left by a run that was killed between its manifest and its cleaning up.
                self._remove_work(dataset)
            self._made += found
            return {dataset.summary.shard.shard_uid: dataset for dataset in found}
        with claimed(publisher.store_url, context, ClaimTerms(), self.progress, self._keep_going) as run:
            return self._claimed_epoch(epoch, context, publisher, base, run)

    def _keep_going(self) -> None:
        """End this lane where the run is being stopped.

        Raises:
            _LaneStopped: it is.
        """
        if self.stop.is_set():
            raise _LaneStopped

    def _claimed_epoch(
        self, epoch: WantedEpoch, context: EpochContext, publisher: EpochPublisher, base: Datasets, run: ClaimedRun
    ) -> Datasets:
        """Publish an epoch whose claim is held; return its datasets."""
        backfill = self.backfill
        shards = [str(shard.shard_uid) for shard in context.shards]
        if not backfill.settings.write_dataset:
            self._direct_epoch(run, epoch, context, publisher)
            return {}
        datasets = {shard.shard_uid: self._dataset(run, context, shard, base) for shard in context.shards}
        try:
            result = self._produce(run, epoch, context, publisher, datasets)
        except StateRootMismatchError as error:
            # What an earlier step left may be damaged, and StateChanges are believed without proof: again from the node itself.
            ways = [backfill.status.steps[epoch.epoch_height, shard].way for shard in shards]
            if not any(way in (RecordsWay.DATASET, RecordsWay.ROLL_FORWARD) for way in ways):
                raise
            self.progress.note(f"{error.problem} [{error.where}]; reading the epoch from the node again")
            for dataset in datasets.values():
                # Intermediate results are named by the dataset's digests, and its files may hold other bytes.
                self._remove_work(dataset)
                self._discard(dataset)
            datasets = {shard.shard_uid: self._from_node(run, context, shard) for shard in context.shards}
            result = self._produce(run, epoch, context, publisher, datasets)
        self._note_published(epoch, result)
        return datasets

    def _direct_epoch(self, run: ClaimedRun, epoch: WantedEpoch, context: EpochContext, publisher: EpochPublisher) -> None:
        """Publish an epoch whose parts are read from the node one by one."""
        source = self.backfill.node.source(context)
        walked = source.walked if isinstance(source, StateWalkSource) else ()
        result = self._produce(run, epoch, context, publisher, {}, source=source)
        for shard in result.shards:
            way = RecordsWay.STATE_WALK if shard.listing.shard_uid in walked else RecordsWay.FLAT_STATE
            self.backfill.status.note(epoch.epoch_height, [str(shard.listing.shard_uid)], way=way, records=shard.records, error=None)
        self._note_published(epoch, result)

    def _note_published(self, epoch: WantedEpoch, result: EpochResult) -> None:
        for shard in result.shards:
            self.backfill.status.note(
                epoch.epoch_height,
                [str(shard.listing.shard_uid)],
                state=StepState.PUBLISHED,
                num_parts=len(shard.parts),
                stored_size=shard.stored_size,
            )

    def _produce(
        self,
        run: ClaimedRun,
        epoch: WantedEpoch,
        context: EpochContext,
        publisher: EpochPublisher,
        datasets: Datasets,
        *,
        source: NodeSource | None = None,
    ) -> EpochResult:
        """Produce an epoch out of its datasets, or from a source."""
        backfill = self.backfill
        return EpochProduction(
            runner=self._runner(run),
            kernel=backfill.kernel,
            context=context,
            source=source,
            datasets=tuple(datasets.values()),
            publisher=publisher,
            settings=backfill.settings,
            described=f"node at {backfill.node.node_home}",
            epoch_shard_ids=epoch.epoch_shard_ids,
            header_source=NodeSource(backfill.node.node_home, context),
            ladder=backfill.ladder,
            before_manifest=run.confirm,
        ).run()

    def _runner(self, run: ClaimedRun) -> StageRunner:
        return StageRunner(self.backfill.executor, self.progress, run.keep_going)

    def _dataset(self, run: ClaimedRun, context: EpochContext, shard: ShardContext, base: Datasets) -> ShardDataset:
        """Return a shard's dataset: one that is there, one rolled forward, or one read from the node."""
        began = time.monotonic()
        there = self._exported(context, shard)
        if there is not None:
            return self._noted(context, there, RecordsWay.DATASET, began)
        older = base.get(shard.shard_uid) if self.backfill.node.roll_forward else None
        rolled = None if older is None else self._rolled(run, context, shard, older)
        return self._from_node(run, context, shard) if rolled is None else self._noted(context, rolled, RecordsWay.ROLL_FORWARD, began)

    def _rolled(self, run: ClaimedRun, context: EpochContext, shard: ShardContext, older: ShardDataset) -> ShardDataset | None:
        """Roll forward by StateChanges, by the difference of the tries where those are gone; None where neither is possible."""
        backfill = self.backfill
        wanted = next(epoch for epoch in backfill.epochs if epoch.context is context)
        layout = find_known_layout(read_node_home(backfill.node.node_home), frozenset(wanted.epoch_shard_uids))
        for attempt in dict.fromkeys((layout, None)):
            try:
                return roll_forward_shard(
                    self._runner(run),
                    backfill.node.node_home,
                    older,
                    context,
                    shard,
                    layout=attempt,
                    settings=backfill.settings.export,
                    read_limit_bytes_per_s=backfill.node.read_limit_bytes_per_s,
                )
            except SnapshotMismatchError as error:
                self.progress.note(f"{error.problem}; comparing the tries instead")
            except (SourceError, IntegrityError) as error:
                self.progress.note(f"shard {shard.shard_uid} can't be rolled forward: {error}")
                return None
        return None

    def _from_node(self, run: ClaimedRun, context: EpochContext, shard: ShardContext) -> ShardDataset:
        began = time.monotonic()
        alone = replace(context, shards=(shard,))
        source = self.backfill.node.source(alone)
        (dataset,) = export_epoch(self._runner(run), source, alone, self.backfill.settings.export)
        way = RecordsWay.STATE_WALK if isinstance(source, StateWalkSource) else RecordsWay.FLAT_STATE
        return self._noted(context, dataset, way, began)

    def _noted(self, context: EpochContext, dataset: ShardDataset, way: RecordsWay, began: float) -> ShardDataset:
        self._made.append(dataset)
        self.backfill.status.note(
            context.epoch_height,
            [str(dataset.summary.shard.shard_uid)],
            state=StepState.EXPORTED,
            way=way,
            records=dataset.summary.records,
            seconds=round(time.monotonic() - began, 3),
            error=None,
        )
        return dataset

    def _exported(self, context: EpochContext, shard: ShardContext) -> ShardDataset | None:
        return find_exported(self.backfill.settings.export.dataset_url, context, shard)

    def _discard_all_but(self, kept: Datasets) -> None:
        if self.backfill.settings.keep_dataset:
            return
        folders = {dataset.folder for dataset in kept.values()}
        for dataset in [dataset for dataset in self._made if dataset.folder not in folders]:
            self._discard(dataset)

    def _remove_work(self, dataset: ShardDataset) -> None:
        work_folder_for(self.backfill.settings.work_url, dataset).remove()

    def _discard(self, dataset: ShardDataset) -> None:
        discard_export(dataset)
        self._made = [made for made in self._made if made.folder != dataset.folder]


def find_exported(dataset_url: str, context: EpochContext, shard: ShardContext) -> ShardDataset | None:
    """Return a shard's dataset when one of its state root is there and whole; one of another format is none."""
    found = find_readable_shard(dataset_url, replace(context, shards=(shard,)))
    if found is None or found.summary.shard.state_root != shard.state_root:
        return None
    return found if found.is_whole() else None
