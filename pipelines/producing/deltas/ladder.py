"""Which deltas an epoch is to have: to the epoch before, and to every so-manieth, so that few steps lead from a whole epoch to any."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.bucket.chain_catalogue import CatalogueWriter, read_catalogue
from pipelines.stores.store import Store
from schemas.errors import ManifestError
from schemas.published.object_layout import EpochLayout


def ladder_heights(epoch_height: int, every: int, published: Iterable[int]) -> tuple[int, ...]:
    """Return the heights that an epoch's deltas lead from, ascending: the last published one before it, and the last multiple of ``every``.

    Args:
        published: heights of published epochs.
    """
    lower = {height for height in published if height < epoch_height}
    rung = (epoch_height - 1) // every * every
    return tuple(sorted({*([max(lower)] if lower else []), *([rung] if rung in lower else [])}))


def ladder_bases(store: Store, target: EpochLayout, every: int) -> tuple[EpochLayout, ...]:
    """Return the published epochs that an epoch's deltas are to lead from, ascending by height.

    Raises:
        StoreError: the store can't be read.
    """
    published = {layout.epoch_height: layout for layout in published_layouts(store, target.chain_id)}
    return tuple(published[height] for height in ladder_heights(target.epoch_height, every, published))


def published_layouts(store: Store, chain_id: str) -> tuple[EpochLayout, ...]:
    """Return the epochs of a chain that are published and stay, ascending by height.

    Raises:
        StoreError: the store can't be read.
    """
    try:
        catalogue = read_catalogue(store, chain_id)
    except ManifestError:
        catalogue = None
    found = catalogue or CatalogueWriter(store, chain_id).survey()
    return tuple(
        EpochLayout(chain_id, epoch.epoch_height, epoch.epoch_id)
        for epoch in found.epochs
        if epoch.listing is not None and epoch.leaving_since is None
    )
