"""Which epochs of a chain a store has, by its catalogue or, where there is none, by its manifests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from pipelines.bucket.chain_catalogue import CatalogueWriter, read_catalogue, thin_epochs
from pipelines.stores.store import Store
from schemas.errors import EpochNotReadyError, ManifestError
from schemas.published.object_layout import EpochLayout, chain_folder

RANGES_SHOWN_MAX = 20


def find_published(store: Store, chain_id: str, heights: Collection[int]) -> tuple[list[EpochLayout], list[int]]:
    """Return the epochs of some heights, ascending, and the heights without one.

    Epochs that are about to be deleted, whose manifest is damaged, or that are kept as deltas alone are as good as not there. The catalogue is not signed: it saves a
    listing, and who reads an epoch judges its manifest.

    Raises:
        EpochNotReadyError: the chain is not published there.
        StoreError: the store can't be read.
    """
    there = _published(store, chain_id)
    wanted = set(heights)
    found = [layout for layout in there if layout.epoch_height in wanted]
    return found, sorted(wanted - {layout.epoch_height for layout in found})


def latest_published(store: Store, chain_id: str) -> EpochLayout:
    """Return the newest epoch of a chain.

    Raises:
        As `find_published`.
    """
    return _published(store, chain_id)[-1]


def missing_epochs(store: Store, chain_id: str, missing: Sequence[int]) -> EpochNotReadyError:
    """Return the error that names the heights that are not there, and those that are."""
    there = sorted({layout.epoch_height for layout in _published(store, chain_id)})
    thin = {layout.epoch_height for layout in thin_epochs(store, chain_id)}
    as_deltas = [height for height in missing if height in thin]
    remedy = f"Published are {heights_text(there)}; --skip-missing goes on without the others."
    problem = f"epochs {heights_text(missing)} are not published there"
    if as_deltas:
        problem = f"epochs {heights_text(as_deltas)} are kept there as deltas alone"
        absent = [height for height in missing if height not in thin]
        problem += f", and epochs {heights_text(absent)} are not published" if absent else ""
        remedy = f"statecast fetch --base rebuilds one into a folder, which is asked then. {remedy}"
    return EpochNotReadyError(problem=problem, where=f"{store.url}/{chain_folder(chain_id)}", remedy=remedy)


def heights_text(heights: Iterable[int]) -> str:
    """Return ascending heights in a few words: ``5, 7..9``."""
    runs: list[list[int]] = []
    for height in heights:
        if runs and height == runs[-1][-1] + 1:
            runs[-1].append(height)
        else:
            runs.append([height])
    shown = [str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs[:RANGES_SHOWN_MAX]]
    return ", ".join(shown) + (f" and {len(runs) - RANGES_SHOWN_MAX} more ranges" if len(runs) > RANGES_SHOWN_MAX else "")


def _published(store: Store, chain_id: str) -> list[EpochLayout]:
    try:
        catalogue = read_catalogue(store, chain_id)
    except ManifestError:
        catalogue = None
    if catalogue is None:
        catalogue = CatalogueWriter(store, chain_id).survey()
    kept = [epoch for epoch in catalogue.epochs if epoch.listing is not None and epoch.leaving_since is None and not epoch.steps]
    if not kept:
        raise EpochNotReadyError(problem="no epoch of the chain is published there", where=f"{store.url}/{chain_folder(chain_id)}")
    return [EpochLayout(chain_id, epoch.epoch_height, epoch.epoch_id) for epoch in kept]
