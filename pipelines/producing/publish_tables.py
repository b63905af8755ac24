"""An epoch's decoded tables beside its parts: made of the same export, read back, and stated with the epoch's shards.

A shard's tables are made once its parts are out and its root is proved; the epoch enters the tables' catalogue before the manifest names
its statement. A run that dies between leaves tables that are right, and that no manifest names yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.tables.export_tables import TablesExport
from pipelines.dataset.tables.tables_place import TablesPlace, open_tables
from pipelines.dataset.tables.verify_tables import verify_tables
from pipelines.dataset.verify_dataset import check_state_root
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.trie_kernel import Kernel
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.producing.publish.shard_publisher import PublishedShard
from pipelines.stores.open_store import open_store
from schemas.dataset.tables_summary import TablesShard
from schemas.errors import ObjectMismatchError
from schemas.nearcore.epoch_context import EpochContext
from schemas.published.manifest_tables import ManifestTables
from schemas.published.tables_statement import TablesStatement


@dataclass(slots=True)
class EpochTables:
    """The tables of the epoch that a production makes."""

    runner: StageRunner
    kernel: Kernel
    context: EpochContext
    publisher: EpochPublisher
    place: TablesPlace
    _made: list[TablesShard] = field(default_factory=list)

    def make(self, dataset: ShardDataset, published: PublishedShard) -> None:
        """Write and read back the tables of a shard whose parts are out.

        Raises:
            ObjectMismatchError: the store gave back other bytes than it was given, twice.
            StateRootMismatchError: the tables' records are not those of the state root.
            StoreError: the tables can't be written.
        """
        root = published.listing.state_root
        noted = ShardDataset.of(dataset.url, replace(dataset.summary, verified_state_root=root, memory_usage=published.memory_usage))
        export = TablesExport(self.runner, self.place)
        shard = export.shard(noted)
        verified = verify_tables(self.runner, self.kernel, self.place.url, shard)
        if verified.wrong:
            # Damaged since an earlier run, which only the bytes tell.
            for file in verified.wrong:
                open_store(self.place.url).delete(file.name)
            shard = export.shard(noted)
            verified = verify_tables(self.runner, self.kernel, self.place.url, shard)
        if verified.wrong:
            first = verified.wrong[0]
            raise ObjectMismatchError(problem=first.problem, where=f"{self.place.url}/{first.name}", remedy="Run again.")
        if verified.state_root is not None:
            check_state_root(root, verified.state_root, f"tables of shard {published.listing.shard_uid}")
        self._made.append(shard)

    def finish(self) -> ManifestTables:
        """Enter the epoch in the tables' catalogue and store the statement; return how the manifest names it."""
        self.place.finish(self.context, self._made)
        tables = open_tables(self.place.url, str(self.context.epoch_id))
        return self.publisher.put_tables(self.context, TablesStatement.of(self.context.sync_hash, tables.shards))
