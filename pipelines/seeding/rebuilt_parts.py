"""Brings a shard's parts by what changed since an older epoch that is here, where that is fewer bytes than whole parts.

Whatever fails here is told, and the parts come whole: a seeder that rebuilds is one that moves less, and nothing else.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from pipelines.bucket.published_epoch import listed_statement, read_manifest
from pipelines.fetching.documents import DocumentReader
from pipelines.fetching.fetch_part import parts_to_fetch
from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.object_source import ObjectStoreSource
from pipelines.fetching.part_rebuilding import PartRebuilder, RebuildWay, WantedShard
from pipelines.fetching.source_account import open_account
from pipelines.fetching.throttle import Throttle
from pipelines.seeding.data_folder import DataFolder
from pipelines.seeding.shard_parts import OnPart, ShardFiles
from pipelines.stores.open_store import open_store
from pipelines.stores.pace import Pace
from pipelines.stores.store import Store
from schemas.errors import ManifestError, StatecastError
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import ManifestPart, ManifestShard
from schemas.published.object_layout import EpochLayout
from schemas.published.shard_statement import ShardStatement


@dataclass(frozen=True, slots=True)
class PlannedBringing:
    """How a shard's missing parts would be brought."""

    missing: tuple[ManifestPart, ...]
    way: RebuildWay | None
    """None for whole parts."""
    wanted: WantedShard | None = None
    """Given with a way."""

    @property
    def whole_size(self) -> int:
        """Stored bytes of the missing parts."""
        return sum(part.size for part in self.missing)

    @property
    def size(self) -> int:
        """Bytes that would be moved."""
        return self.whole_size if self.way is None else self.way.size


@dataclass(frozen=True, slots=True)
class PartBringing:
    """Chooses how the parts of shards are brought, and rebuilds them."""

    store: Store
    data: DataFolder
    rebuilder: PartRebuilder | None
    """None for whole parts alone."""
    on_problem: Callable[[str], None]
    """Told why parts come whole that were to be rebuilt."""

    def plan(self, manifest: Manifest, shard: ManifestShard, missing: Sequence[ManifestPart], *, keep: bool = True) -> PlannedBringing:
        """Return the way of fewest bytes to a shard's missing parts.

        Args:
            missing: ascending by id.
            keep: keep the statements that are read, which later epochs are rebuilt by; else nothing is written.
        """
        whole = PlannedBringing(tuple(missing), None)
        if self.rebuilder is None or not missing:
            return whole
        if not any(one.shard_id == shard.shard_id for one in manifest.deltas):
            with suppress(StatecastError):
                self._statement(manifest, shard, keep=keep)
            return whole
        try:
            statement = self._statement(manifest, shard, keep=keep)
            if keep:
                self._keep_older_statements(manifest.layout, shard)
            ids = {part.part_id for part in missing}
            parts = tuple(part for part in parts_to_fetch(manifest, shard, statement) if part.part_id.idx in ids)
            wanted = WantedShard(manifest, statement, parts)
            way, _ = self.rebuilder.find_way(wanted, self._reader())
        except StatecastError as error:
            self.on_problem(str(error))
            return whole
        return whole if way is None else PlannedBringing(tuple(missing), way, wanted)

    def rebuild(self, planned: PlannedBringing, files: ShardFiles, executor: ThreadPoolExecutor, on_part: OnPart, pace: Pace | None) -> int:
        """Put the parts in place that can be rebuilt, and whole ones that those need; return how many were rebuilt.

        Args:
            on_part: told of whole parts alone.
        """
        if self.rebuilder is None or planned.wanted is None:
            return 0
        scratch = self.data.own("tmp") / uuid.uuid4().hex
        try:
            rebuilding = self.rebuilder.open(planned.wanted, self._reader(), scratch)
            failed = rebuilding.build()
            rebuilt = rebuilding.finish(files.bring_some(failed, self.store, executor, on_part, pace))
            by_id = {part.part_id: part for part in planned.missing}
            landed = {idx: path for idx, path in rebuilt.items() if idx in by_id}
            for idx, path in landed.items():
                files.take(path, by_id[idx])
        except StatecastError as error:
            self.on_problem(str(error))
            return 0
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return len(landed)

    def _statement(self, manifest: Manifest, shard: ManifestShard, *, keep: bool = True) -> ShardStatement:
        """Return a shard's statement, from here or from the bucket.

        Raises:
            ManifestError: it is not the one that the manifest names.
            StoreError: the bucket can't be read.
        """
        layout = manifest.layout
        here = listed_statement(open_store(str(self.data.root)), layout, shard)
        if here is not None:
            return here[0]
        found, where = listed_statement(self.store, layout, shard), layout.shard_statement(shard.shard_id)
        if found is None:
            raise ManifestError(
                problem="the bucket has not the statement that the manifest names by its sha256, or a damaged one", where=where
            )
        if keep:
            self.data.write(self.data.path(where), found[1].to_bytes())
        return found[0]

    def _keep_older_statements(self, layout: EpochLayout, shard: ManifestShard) -> None:
        """Bring the statements of older epochs that are here: an epoch may have been brought before anything was rebuilt of it."""
        uids = {shard.shard_uid, shard.parent_shard_uid}
        for older in self.data.epochs():
            if older.chain_id != layout.chain_id or older.epoch_height >= layout.epoch_height:
                continue
            with suppress(StatecastError):
                stored = read_manifest(open_store(str(self.data.root)), older)
                if stored is None:
                    continue
                for listed in stored.manifest.shards:
                    if listed.shard_uid in uids:
                        self._statement(stored.manifest, listed)

    def _reader(self) -> DocumentReader:
        source, limits = ObjectStoreSource(self.store, Throttle([])), FetchLimits()
        return DocumentReader([source], {source.source_id: open_account(source.source_id, source.traits, limits)}, limits, Random())
