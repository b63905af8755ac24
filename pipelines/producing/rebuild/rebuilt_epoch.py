"""A published epoch whose parts are not there, made whole in another place: its documents copied, its parts rebuilt of other epochs' and deltas."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.bucket.published_epoch import read_manifest
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.trie_kernel import Kernel
from pipelines.producing.rebuild.rebuild_published import PublishedRebuild
from pipelines.stores.held_folder import held_folder
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import read_object
from pipelines.stores.store import Store
from schemas.errors import (
    EpochNotReadyError,
    IntegrityError,
    InvalidInputError,
    ManifestError,
    ObjectNotFoundError,
    SourceError,
    StoreDeniedError,
    StoreNotListedError,
)
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import STORED_BYTES_MAX
from schemas.published.object_layout import EpochLayout, ObjectKind, parse_object_name


@dataclass(frozen=True, slots=True)
class EpochRebuild:
    """How epochs of one store are rebuilt."""

    runner: StageRunner
    kernel: Kernel
    store_url: str

    def run(self, layout: EpochLayout, steps: Sequence[EpochLayout], into: Path) -> None:
        """Put an epoch's documents and parts into a folder, as they were published.

        Args:
            steps: a whole epoch, then those that each delta leads to, up to the one before.
            into: a folder that is a store then.
        Raises:
            EpochNotReadyError, IntegrityError, ManifestError, SourceError, StoreError: it can't be had by these steps.
        """
        store, copied = open_store(self.store_url), open_store(str(into), durable=False)
        manifest = self._manifest(layout)
        for name in self._documents(store, manifest):
            with suppress(ObjectNotFoundError):
                copied.put(name, read_object(store, name, STORED_BYTES_MAX))
        self._rebuild([self._manifest(one) for one in (*steps, layout)], into)

    def _documents(self, store: Store, manifest: Manifest) -> list[str]:
        """Return the names of an epoch's objects but parts and who is there: as listed, or where a store can't be listed those that its manifest knows."""
        layout, not_copied = manifest.layout, (ObjectKind.STATE_PART, ObjectKind.LEASE, ObjectKind.CLAIM)
        try:
            names = [info.name for info in store.list(layout.folder)]
        except (StoreNotListedError, StoreDeniedError):
            names = [layout.manifest, layout.tables_statement]
            for shard in manifest.shards:
                names += (layout.shard_statement(shard.shard_id), layout.state_header(shard.shard_id), layout.torrent(shard.shard_id))
            for one in manifest.deltas:
                names.append(layout.delta_statement(one.base_epoch_id, one.shard_id))
                names += (layout.delta(one.base_epoch_id, one.shard_id, index) for index in range(one.objects))
            return names
        return [name for name in names if (parsed := parse_object_name(name)) is None or parsed.kind not in not_copied]

    def why_not(self, layout: EpochLayout, steps: Sequence[EpochLayout]) -> str:
        """Rebuild an epoch's parts, and let them go; return why they can't be had by these steps, byte for byte, or nothing.

        Raises:
            StoreError: a store can't be read, or this machine's folder not written.
        """
        with held_folder("rebuild") as folder:
            try:
                self._rebuild([self._manifest(one) for one in (*steps, layout)], folder)
            except (EpochNotReadyError, IntegrityError, ManifestError, SourceError, InvalidInputError, ObjectNotFoundError) as error:
                return str(error)
        return ""

    def _rebuild(self, manifests: Sequence[Manifest], into: Path) -> None:
        for shard in manifests[-1].shards:
            if not shard.num_parts:
                continue
            work = into / ".rebuild"
            parts = PublishedRebuild(self.runner, self.kernel, self.store_url, str(work), str(into)).run(manifests, shard.shard_id)
            shutil.rmtree(work, ignore_errors=True)
            reencoded = [part for part in parts if part.is_reencoded]
            if reencoded:
                raise IntegrityError(
                    problem=f"{len(reencoded)} rebuilt parts are right, but this machine's zstd stores them in other bytes than the publisher's",
                    where=reencoded[0].object_name,
                    remedy="Use the zstd version that the manifest names.",
                )

    def _manifest(self, layout: EpochLayout) -> Manifest:
        stored = read_manifest(open_store(self.store_url), layout)
        if stored is None:
            raise EpochNotReadyError(problem=f"epoch {layout.epoch_height} is not there", where=layout.manifest)
        return stored.manifest
