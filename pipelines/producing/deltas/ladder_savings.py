"""What a ladder saves: the bytes that a bucket keeps and that its readers move, with deltas and with whole parts, as its manifests say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from pipelines.bucket.published_epoch import read_manifest
from pipelines.producing.deltas.ladder import published_layouts
from pipelines.stores.store import Store
from schemas.errors import ManifestError
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout

EPOCHS_LOOKED_AT_MAX: Final = 64
"""Most epochs, the newest, whose manifests are read for it."""


@dataclass(frozen=True, slots=True)
class EpochBytes:
    """Stored bytes of one epoch."""

    epoch_height: int
    parts: int
    """Of all parts, by the manifest; they may be gone."""
    deltas: int
    """Of all deltas to the epoch."""
    step: int | None
    """Of the deltas from the epoch before; None where not all shards have one: then its parts stay, and readers take them."""

    @classmethod
    def of(cls, manifest: Manifest, before: EpochLayout | None) -> EpochBytes:
        """Return what a manifest says.

        Args:
            before: the epoch before; None where there is none.
        """
        steps = {} if before is None else {one.shard_id: one.size for one in manifest.deltas if one.base_epoch_id == before.epoch_id}
        has_step = before is not None and steps.keys() == {shard.shard_id for shard in manifest.shards}
        return cls(
            epoch_height=manifest.epoch_height,
            parts=sum(part.size for shard in manifest.shards for part in shard.parts),
            deltas=sum(one.size for one in manifest.deltas),
            step=sum(steps.values()) if has_step else None,
        )


@dataclass(frozen=True, slots=True)
class LadderSavings:
    """Bytes of adjacent epochs, ascending by height; each list has one figure for each number of epochs, from one on."""

    every: int
    """Whole parts stay of heights that this divides, as with ``gc --full-every``, and of the newest."""
    epochs: tuple[EpochBytes, ...]

    def kept_whole(self) -> list[int]:
        """Return what a bucket keeps that has all parts of so many epochs."""
        return list(accumulate(one.parts for one in self.epochs))

    def kept_by_ladder(self) -> list[int]:
        """Return what it keeps with deltas of all, and parts of those that stay whole."""
        staying = accumulate(one.parts if one.step is None or one.epoch_height % self.every == 0 else 0 for one in self.epochs)
        deltas = accumulate(one.deltas for one in self.epochs)
        newest = (0 if one.step is None or one.epoch_height % self.every == 0 else one.parts for one in self.epochs)
        return [sum(three) for three in zip(staying, deltas, newest, strict=True)]

    def moved_whole(self) -> list[int]:
        """Return what a reader has moved that has followed so many epochs by whole parts."""
        return self.kept_whole()

    def moved_by_deltas(self) -> list[int]:
        """Return what a reader has moved that took the first whole, and then what changed."""
        return list(accumulate(one.parts if one.step is None else min(one.step, one.parts) for one in self.epochs))


def ladder_savings(store: Store, chain_id: str, every: int, on_problem: Callable[[str], None] = lambda _: None) -> LadderSavings:
    """Return the figures of a chain's newest epochs in a store.

    Args:
        on_problem: told of manifests that can't be read; the figures begin after the last of those.
    Raises:
        StoreError: the store can't be read.
    """
    return LadderSavings(every, tuple(_epochs(store, published_layouts(store, chain_id)[-EPOCHS_LOOKED_AT_MAX:], on_problem)))


def _epochs(store: Store, layouts: Iterable[EpochLayout], on_problem: Callable[[str], None]) -> list[EpochBytes]:
    found: list[EpochBytes] = []
    before: EpochLayout | None = None
    for layout in layouts:
        try:
            stored = read_manifest(store, layout)
        except ManifestError as error:
            on_problem(f"epoch {layout.epoch_height} is left out of what a ladder saves: {error.problem}")
            stored = None
        if stored is None:
            found.clear()
            before = None
            continue
        found.append(EpochBytes.of(stored.manifest, before))
        before = layout
    return found
