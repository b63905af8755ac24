"""By which steps an epoch of a store is had whose parts are not there: as its manifests, their deltas and the objects themselves say.

The catalogue says so too (``rebuilt_from``), but nobody signs it. It is a hint here: it tells that a collection let parts go, never that nothing is
missing, nor which way leads to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pipelines.bucket.chain_catalogue import steps_to
from pipelines.bucket.published_epoch import Judge, read_manifest
from pipelines.keeping.ladder import find_steps
from pipelines.stores.store import Store
from schemas.errors import InvalidInputError, ManifestError, StoreDeniedError, StoreNotListedError
from schemas.ids import PartId
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout

MANIFESTS_READ_MAX: Final = 256
"""Most manifests that are read on the way to a whole epoch."""

SizeOf: TypeAlias = Callable[[str], int | None]
"""Returns the stored bytes of an object of an epoch; None where it is not there."""


def part_sizes(manifest: Manifest) -> Iterator[tuple[str, int]]:
    """Yield the names and stored bytes of all parts that a manifest lists."""
    for shard in manifest.shards:
        for part in shard.parts:
            yield manifest.layout.state_part(shard.shard_id, PartId(part.part_id, shard.num_parts)), part.size


def has_all_parts(manifest: Manifest, size_of: SizeOf) -> bool:
    """Tell whether all listed parts are there, by name and size."""
    return all(size_of(name) == size for name, size in part_sizes(manifest))


def bases_there(manifest: Manifest, size_of: SizeOf) -> frozenset[EpochLayout]:
    """Return the epochs that deltas of all shards lead from, whose statements and objects are there, by name and size."""
    layout, wanted = manifest.layout, {shard.shard_id for shard in manifest.shards}
    by_base: dict[EpochLayout, set[int]] = {}
    for listed in manifest.deltas:
        sizes = [size_of(layout.delta(listed.base_epoch_id, listed.shard_id, index)) for index in range(listed.objects)]
        is_there = size_of(layout.delta_statement(listed.base_epoch_id, listed.shard_id)) is not None
        if is_there and None not in sizes and sum(size or 0 for size in sizes) == listed.size:
            base = EpochLayout(manifest.chain_id, listed.base_epoch_height, listed.base_epoch_id)
            by_base.setdefault(base, set()).add(listed.shard_id)
    return frozenset(base for base, shards in by_base.items() if shards == wanted)


def sizes_in(store: Store, layout: EpochLayout) -> SizeOf:
    """Return what tells the sizes of an epoch's objects: one listing where the store can be listed, else a look at each.

    Raises:
        StoreError: the store can't be read.
    """
    try:
        sizes = {info.name: info.size for info in store.list(layout.folder)}
    except (StoreNotListedError, StoreDeniedError):

        def look(name: str) -> int | None:
            info = store.info(name)
            return None if info is None else info.size

        return look
    return sizes.get


@dataclass(slots=True)
class StoredLadder:
    """The epochs of a chain in a store, each looked at once, when a way leads over it."""

    store: Store
    judge: Judge | None = None
    """Raises ManifestError where no trusted key has signed a manifest: then no way leads over it."""
    _bases: dict[EpochLayout, frozenset[EpochLayout]] = field(default_factory=dict)
    _whole: dict[EpochLayout, bool] = field(default_factory=dict)

    def steps_to(self, layout: EpochLayout) -> tuple[EpochLayout, ...] | None:
        """Return the fewest steps to an epoch, as if none of its own parts were there; None where none lead there.

        Raises:
            StoreError: the store can't be read.
        """
        self._look(layout)
        return find_steps(layout, self._bases_of, self._is_whole)

    def _bases_of(self, layout: EpochLayout) -> frozenset[EpochLayout]:
        self._look(layout)
        return self._bases[layout]

    def _is_whole(self, layout: EpochLayout) -> bool:
        self._look(layout)
        return self._whole[layout]

    def _look(self, layout: EpochLayout) -> None:
        if layout in self._bases:
            return
        self._bases[layout], self._whole[layout] = frozenset(), False
        if len(self._bases) > MANIFESTS_READ_MAX:
            return
        try:
            stored = read_manifest(self.store, layout, self.judge)
        except (ManifestError, InvalidInputError):
            return
        if stored is not None:
            size_of = sizes_in(self.store, layout)
            # Deltas lead up alone: a manifest that says otherwise leads nowhere.
            below = (base for base in bases_there(stored.manifest, size_of) if base.epoch_height < layout.epoch_height)
            self._bases[layout], self._whole[layout] = frozenset(below), has_all_parts(stored.manifest, size_of)


def thin_steps(store: Store, manifest: Manifest, judge: Judge | None = None) -> tuple[EpochLayout, ...]:
    """Return the steps by which a published epoch is had that is kept as deltas; nothing for one whose parts are there, or are missing.

    It is kept as deltas where deltas lead to it, and none of its parts is there; or only some of them are, and the catalogue says that a
    collection has begun.

    Args:
        judge: as in `StoredLadder`.
    Raises:
        StoreError: the store can't be read.
    """
    layout = manifest.layout
    size_of = sizes_in(store, layout)
    if has_all_parts(manifest, size_of):
        return ()
    if not steps_to(store, layout) and any(size_of(name) is not None for name, _ in part_sizes(manifest)):
        return ()
    return StoredLadder(store, judge).steps_to(layout) or ()
