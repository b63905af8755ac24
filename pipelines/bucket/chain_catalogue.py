"""Keeps a chain's catalogue: changes it beside concurrent writers, and rebuilds it from the manifests.

Every change is a compare-and-swap of the whole object. A catalogue that is missing or can't be parsed is rebuilt by the next
writer. Signatures are not judged here: the catalogue saves a listing, and readers verify the manifest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Final

from pipelines.bucket.published_epoch import read_manifest
from pipelines.stores.compare_and_swap import swapped
from pipelines.stores.store import ObjectInfo, Store
from schemas.errors import InvalidInputError, ManifestError, ObjectNotFoundError, StatecastError
from schemas.ids import CryptoHash
from schemas.published.catalogue import CATALOGUE_BYTES_MAX, Catalogue, CatalogueEpoch, EpochKey, PublishedListing
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout, ObjectKind, catalogue_name, chain_folder, parse_object_name

MARK_STALE_S: Final = 3600
"""A mark of an epoch that is kept after all is taken back after this: until then it may be another collector's that is at work."""

MANIFESTS_AT_ONCE: Final = 8
"""Manifests that are read at once when a catalogue is rebuilt."""


@dataclass(frozen=True, slots=True)
class CatalogueChange:
    """The result of a change."""

    catalogue: Catalogue
    note: str = ""
    """What was out of the ordinary, for people."""


@dataclass(frozen=True, slots=True)
class CatalogueWriter:
    """Changes one chain's catalogue."""

    store: Store
    chain_id: str
    sleep: Callable[[float], None] = time.sleep
    random: Random = field(default_factory=Random)

    def record(self, manifest: Manifest, manifest_sha256: str) -> CatalogueChange:
        """Enter what was just published; an entry of a later revision stays.

        Raises:
            StoreError: the store can't be read or written, or other writers were faster each time.
        """
        listing = PublishedListing.of(manifest, manifest_sha256)
        epoch = CatalogueEpoch(manifest.epoch_height, manifest.epoch_id, listing)
        return self.change(lambda catalogue: catalogue.with_published(epoch))

    def rebuild(self) -> CatalogueChange:
        """Rebuild the catalogue from the manifests in the store; marks of epochs that are being deleted stay.

        Raises:
            As `record`.
        """
        return self._swap(lambda there, manifests: _keep_marks(manifests.read(), there))

    def survey(self) -> Catalogue:
        """Return the catalogue that the manifests in the store make; writes nothing.

        Raises:
            StoreError: the store can't be read.
        """
        return _Manifests(self.store, self.chain_id).read()

    def change(self, change: Callable[[Catalogue], Catalogue]) -> CatalogueChange:
        """Apply a change, which must be right whatever the catalogue holds by then.

        Raises:
            As `record`.
        """
        return self._swap(lambda there, manifests: change(manifests.read() if there is None else there))

    def _swap(self, make: Callable[[Catalogue | None, _Manifests], Catalogue]) -> CatalogueChange:
        name, note = catalogue_name(self.chain_id), ""
        manifests = _Manifests(self.store, self.chain_id)

        def changed(info: ObjectInfo | None) -> tuple[bytes | None, CatalogueChange]:
            nonlocal note
            there: Catalogue | None = None
            try:
                there = None if info is None else read_catalogue(self.store, self.chain_id)
            except ManifestError as error:
                note = f"the catalogue could not be read and was rebuilt from the manifests: {error.problem}"
            made = make(there, manifests)
            return None if made == there else made.to_bytes(), CatalogueChange(made, note)

        return swapped(self.store, name, changed, sleep=self.sleep, random=self.random)


def record_published(store: Store, manifest: Manifest, manifest_sha256: str) -> str:
    """Enter an epoch that was just published; return a note for people where that failed or was out of the ordinary, else nothing.

    The epoch is published without it, so a failure is no error.
    """
    try:
        return CatalogueWriter(store, manifest.chain_id).record(manifest, manifest_sha256).note
    except StatecastError as error:
        return f"the catalogue was not updated ({error.problem}): statecast catalogue --rebuild rebuilds it"


def read_catalogue(store: Store, chain_id: str) -> Catalogue | None:
    """Return a chain's catalogue; None where there is none.

    Raises:
        ManifestError: it can't be parsed, or is another chain's.
    """
    name = catalogue_name(chain_id)
    try:
        catalogue = Catalogue.parse(store.get(name, 0, CATALOGUE_BYTES_MAX + 1), f"{store.url}/{name}")
    except ObjectNotFoundError:
        return None
    if catalogue.chain_id != chain_id:
        raise ManifestError(problem=f"the catalogue is of {catalogue.chain_id}", where=f"{store.url}/{name}")
    return catalogue


def steps_to(store: Store, layout: EpochLayout) -> tuple[EpochLayout, ...]:
    """Return by which steps an epoch is had whose parts are not there, as `CatalogueEpoch.steps`; nothing for a whole one, or where nobody knows.

    Raises:
        StoreError: the store can't be read.
    """
    return thin_epochs(store, layout.chain_id).get(layout, ())


def thin_epochs(store: Store, chain_id: str) -> dict[EpochLayout, tuple[EpochLayout, ...]]:
    """Return the epochs whose parts are not there, with the steps by which they are had; raises as `steps_to`."""
    try:
        catalogue = read_catalogue(store, chain_id)
    except ManifestError:
        return {}
    epochs = () if catalogue is None else catalogue.epochs
    return {EpochLayout(chain_id, one.epoch_height, one.epoch_id): _layouts(chain_id, one.steps) for one in epochs if one.steps}


def _layouts(chain_id: str, keys: Iterable[EpochKey]) -> tuple[EpochLayout, ...]:
    return tuple(EpochLayout(chain_id, height, CryptoHash.from_base58(epoch_id)) for height, epoch_id in keys)


def _keep_marks(made: Catalogue, there: Catalogue | None) -> Catalogue:
    """Return a catalogue rebuilt with what manifests don't say: a killed deletion is known by its mark alone, missing parts by the steps."""
    for epoch in () if there is None else there.epochs:
        layout = EpochLayout(made.chain_id, epoch.epoch_height, epoch.epoch_id)
        if epoch.leaving_since is not None:
            made = made.marked(layout, epoch.leaving_since)
        if epoch.steps:
            made = made.with_steps(layout, _layouts(made.chain_id, epoch.steps))
    return made


@dataclass(slots=True)
class _Manifests:
    """The manifests of a chain; one that did not change is read once, however often a swap is lost."""

    store: Store
    chain_id: str
    _known: dict[ObjectInfo, CatalogueEpoch | None] = field(default_factory=dict)

    def read(self) -> Catalogue:
        """Return the catalogue that the manifests make."""
        found: dict[ObjectInfo, EpochLayout] = {}
        for info in self.store.list(chain_folder(self.chain_id)):
            parsed = parse_object_name(info.name)
            if parsed is not None and parsed.kind is ObjectKind.MANIFEST and parsed.epoch is not None:
                found[info] = parsed.epoch
        wanted = [(info, layout) for info, layout in found.items() if not info.version or info not in self._known]
        with ThreadPoolExecutor(MANIFESTS_AT_ONCE, thread_name_prefix="manifest") as executor:
            entries = list(executor.map(lambda item: read_entry(self.store, item[1]), wanted))
        self._known |= {info: entry for (info, _), entry in zip(wanted, entries, strict=True)}
        there = [entry for info in found if (entry := self._known[info]) is not None]
        return Catalogue(self.chain_id, tuple(sorted(there, key=lambda epoch: epoch.key)))


def read_entry(store: Store, layout: EpochLayout) -> CatalogueEpoch | None:
    """Return the entry that an epoch's manifest makes, a damaged one too; None where there is no manifest (any more)."""
    try:
        stored = read_manifest(store, layout)
    except ObjectNotFoundError:
        return None
    except (ManifestError, InvalidInputError) as error:
        return CatalogueEpoch.damaged(layout, error.problem)
    if stored is None:
        return None
    listing = PublishedListing.of(stored.manifest, stored.envelope.payload_sha256)
    return CatalogueEpoch(layout.epoch_height, layout.epoch_id, listing)
