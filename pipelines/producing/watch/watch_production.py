"""What a watcher does to one epoch: finds it published, or claims and produces it; and what it does to old ones."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from pipelines.bucket.epoch_claim import HeldClaim, remove_dead_claim
from pipelines.bucket.read_latest import read_latest
from pipelines.execution.executor import Executor
from pipelines.execution.progress import Progress, SilentProgress
from pipelines.execution.stage_runner import KeepGoing, StageRunner
from pipelines.keeping.collect_epochs import collect_epochs
from pipelines.keeping.collect_tables import collect_tables
from pipelines.keeping.retention import RetentionRule
from pipelines.kernel.trie_kernel import Kernel
from pipelines.near.node.node_store import NodeSource
from pipelines.near.node.rocksdb_reader import forget_readers
from pipelines.near.trie.trie_walk_source import StateWalk, choose_node_source, tracked_shards
from pipelines.producing.claimed_production import ClaimTerms, claimed
from pipelines.producing.deltas.delta_ladder import DeltaLadder
from pipelines.producing.epoch_input import EpochInput
from pipelines.producing.produce_epoch import EpochProduction, EpochResult, ProductionSettings
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.producing.watch.watch_poll import NodeView, look_at_node, read_chain_id, snapshot_block
from pipelines.stores.open_store import open_store
from schemas.errors import ManifestError
from schemas.ids import CryptoHash
from schemas.nearcore.epoch_context import EpochContext
from schemas.published.object_layout import EpochLayout

CONTEXTS_MAX: Final = 8
"""Most epoch contexts that are kept."""


class EpochWork(Protocol):
    """What a watcher needs done; every method may raise a StatecastError."""

    def look(self) -> NodeView:
        """Look at the node."""
        ...

    def snapshot_block(self, sync_hash: CryptoHash) -> CryptoHash | None:
        """Return what the state snapshot for a sync hash is named by."""
        ...

    def latest_published(self) -> int | None:
        """Return the height of the store's newest complete epoch of the node's chain; None where the store does not say."""
        ...

    def find_published(self, epoch_id: CryptoHash) -> str | None:
        """Return the URL of an epoch when nothing of it is missing."""
        ...

    def produce(
        self, epoch_id: CryptoHash, progress: Progress, keep_going: KeepGoing, on_claim: Callable[[HeldClaim | None], None]
    ) -> EpochResult:
        """Claim and produce an epoch.

        Args:
            keep_going: asked between results; what it raises ends the attempt.
            on_claim: given the claim while it is held, then None.
        """
        ...

    def discard(self, epoch_height: int, epoch_id: CryptoHash) -> None:
        """Remove what attempts at an epoch have left in the work folder."""
        ...

    def collect(self) -> int:
        """Remove epochs that are no longer kept; return how many."""
        ...


@dataclass(frozen=True, slots=True)
class WatchProduction:
    """An `EpochWork` over a node and a store."""

    node_home: str
    context_of: Callable[[str], EpochContext]
    """Gives the context of an epoch id in base58."""
    shard_ids: tuple[int, ...]
    state_walk: StateWalk
    read_limit_bytes_per_s: int | None
    kernel: Kernel
    publisher_for: Callable[[EpochContext], EpochPublisher]
    store_url: str
    settings: ProductionSettings
    writes_dataset: Callable[[EpochInput], bool]
    """Decides before each attempt whether the records are exported first: free space comes and goes."""
    open_executor: Callable[[], Executor]
    """Called for each attempt: what a dead executor leaves behind does not outlive its epoch."""
    terms: ClaimTerms
    keep_epochs: int | None = None
    """None to delete nothing."""
    tables_url: str | None = None
    """Where decoded tables go; None for none."""
    keep_tables: int | None = None
    """Epochs whose tables are kept; None to delete none."""
    before_production: Callable[[EpochInput], None] = lambda _epoch: None
    """Given each epoch before it is claimed and read; what it raises ends the attempt."""
    ladder: DeltaLadder | None = None
    """Makes each epoch's deltas; None for none."""
    _contexts: dict[CryptoHash, EpochContext] = field(default_factory=dict)

    def look(self) -> NodeView:
        """See `EpochWork.look`."""
        return look_at_node(self.node_home)

    def snapshot_block(self, sync_hash: CryptoHash) -> CryptoHash | None:
        """See `EpochWork.snapshot_block`."""
        return snapshot_block(self.node_home, sync_hash)

    def latest_published(self) -> int | None:
        """See `EpochWork.latest_published`."""
        try:
            pointer = read_latest(open_store(self.store_url), read_chain_id(self.node_home))
        except ManifestError:
            # The next publisher replaces it; a watcher that waited for that might never end.
            return None
        return None if pointer is None else pointer.epoch_height

    def find_published(self, epoch_id: CryptoHash) -> str | None:
        """See `EpochWork.find_published`."""
        # What is open from an earlier attempt shows the node as it was then.
        forget_readers()
        context = self._context(epoch_id)
        chosen = tracked_shards(self.node_home, context, self.shard_ids)
        publisher = self.publisher_for(chosen)
        if publisher.find_published(chosen, self.settings.num_parts) is None:
            return None
        if self.ladder is not None:
            # An attempt that was killed between the manifest and its deltas.
            with closing(self.open_executor()) as executor:
                self.ladder.make(StageRunner(executor, SilentProgress()), publisher, chosen)
        remove_dead_claim(open_store(self.store_url), publisher.layout(chosen))
        return publisher.epoch_url(chosen)

    def produce(
        self, epoch_id: CryptoHash, progress: Progress, keep_going: KeepGoing, on_claim: Callable[[HeldClaim | None], None]
    ) -> EpochResult:
        """See `EpochWork.produce`."""
        context = self._context(epoch_id)
        chosen = tracked_shards(self.node_home, context, self.shard_ids)
        publisher = self.publisher_for(chosen)
        source = choose_node_source(NodeSource(self.node_home, chosen, self.read_limit_bytes_per_s), self.state_walk)
        found = EpochInput(chosen, tuple(shard.shard_uid for shard in context.shards), source)
        self.before_production(found)
        with claimed(self.store_url, chosen, self.terms, progress, keep_going) as run:
            on_claim(run.claim)
            try:
                settings = replace(self.settings, write_dataset=self.writes_dataset(found))
                with closing(self.open_executor()) as executor:
                    return EpochProduction(
                        runner=StageRunner(executor, progress, run.keep_going),
                        kernel=self.kernel,
                        context=chosen,
                        source=source,
                        datasets=(),
                        publisher=publisher,
                        settings=settings,
                        described=source.describe(),
                        epoch_shard_ids=found.epoch_shard_ids,
                        ladder=self.ladder,
                        before_manifest=run.confirm,
                    ).run()
            finally:
                on_claim(None)

    def discard(self, epoch_height: int, epoch_id: CryptoHash) -> None:
        """See `EpochWork.discard`."""
        self._contexts.pop(epoch_id, None)
        # Datasets and work folders have the levels of nearcore's object names too.
        folder = EpochLayout(read_chain_id(self.node_home), epoch_height, epoch_id).folder
        for url in (self.settings.export.dataset_url, self.settings.work_url):
            open_store(url, durable=False).delete_folder(folder)

    def collect(self) -> int:
        """See `EpochWork.collect`."""
        collected = 0
        if self.keep_epochs is not None:
            collected = len(collect_epochs(self.store_url, read_chain_id(self.node_home), RetentionRule(self.keep_epochs)).collected)
        if self.keep_tables is not None and self.tables_url is not None:
            collect_tables(self.tables_url, RetentionRule(self.keep_tables))
        return collected

    def _context(self, epoch_id: CryptoHash) -> EpochContext:
        found = self._contexts.get(epoch_id)
        if found is None:
            # A few attempts at a few epochs ask for the same again and again, perhaps of a distant endpoint.
            if len(self._contexts) >= CONTEXTS_MAX:
                self._contexts.clear()
            found = self._contexts[epoch_id] = self.context_of(str(epoch_id))
        return found
