"""Finds the newest epochs of a bucket and believes their manifests, or does not. Reads documents alone, never a part."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pipelines.stores.store import Store
from pipelines.trust.freshness import AcceptedManifests
from pipelines.trust.policy import Offer, TrustPolicy, acceptable_manifests
from schemas.errors import EpochNotReadyError, InvalidInputError, ManifestError, ObjectNotFoundError
from schemas.published.dsse import ENVELOPE_BYTES_MAX
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout, ObjectKind, chain_folder, latest_name, parse_object_name

LISTING_INTERVAL_S: Final = 900.0
"""A bucket is listed when its pointer has moved, and this often in any case: epochs without all their shards move no pointer."""

EPOCHS_TRIED_MAX: Final = 64
"""Most manifests that are read in one look: those that are not believed are passed over."""


@dataclass(frozen=True, slots=True)
class EpochToSeed:
    """An epoch whose manifest passed."""

    layout: EpochLayout
    manifest: Manifest
    envelope: bytes
    """As it was stored."""


@dataclass(frozen=True, slots=True)
class Look:
    """The result of a look at the bucket."""

    epochs: tuple[EpochToSeed, ...]
    """Newest first."""
    refused: tuple[tuple[str, ManifestError], ...]
    """Manifests that were not believed, by name."""


class EpochFeed:
    """The newest epochs of one chain. Not thread-safe."""

    def __init__(self, store: Store, chain_id: str, epochs: int, policy: TrustPolicy, accepted: AcceptedManifests) -> None:
        self._store = store
        self._chain_id = chain_id
        self._epochs = epochs
        self._policy = policy
        self.accepted = accepted
        """What was accepted so far, by signer: to keep it makes a rollback visible."""
        self._pointer_version = ""
        self._listed_at_s = -LISTING_INTERVAL_S
        self._layouts: list[EpochLayout] = []
        self._read: dict[EpochLayout, tuple[str, EpochToSeed]] = {}
        """By layout: the stored version that was read, and what came of it."""

    def look(self) -> Look:
        """Return the newest epochs that are believed.

        Raises:
            StoreError: the bucket can't be read.
        """
        self._list_again()
        epochs: list[EpochToSeed] = []
        refused = []
        for layout in self._layouts[:EPOCHS_TRIED_MAX]:
            try:
                found = self._believed(layout)
            except ManifestError as error:
                refused.append((layout.manifest, error))
                continue
            if found is not None:
                epochs.append(found)
            if len(epochs) == self._epochs:
                break
        self._read = {layout: entry for layout, entry in self._read.items() if layout in {epoch.layout for epoch in epochs}}
        return Look(tuple(epochs), tuple(refused))

    def believe(self, layout: EpochLayout, data: bytes, where: str) -> EpochToSeed:
        """Judge a manifest's envelope.

        Raises:
            ManifestError: it is not believed; the subclasses say why.
        """
        offer = Offer(where, data)
        believed = acceptable_manifests(self._policy, [offer], layout, datetime.now(UTC), self.accepted, must_be_newest=False).first
        self.accepted = self.accepted.with_accepted(believed.signers, believed.manifest, believed.envelope.payload_sha256)
        return EpochToSeed(layout, believed.manifest, data)

    def _list_again(self) -> None:
        """List the manifests if there may be others than last time."""
        pointer = self._store.info(latest_name(self._chain_id))
        version = "" if pointer is None else f"{pointer.version}-{pointer.size}"
        now_s = time.monotonic()
        if version == self._pointer_version and now_s - self._listed_at_s < LISTING_INTERVAL_S:
            return
        found = (parse_object_name(info.name) for info in self._store.list(chain_folder(self._chain_id)))
        layouts = {name.epoch for name in found if name is not None and name.kind is ObjectKind.MANIFEST and name.epoch is not None}
        self._layouts = sorted(layouts, key=lambda layout: (layout.epoch_height, str(layout.epoch_id)), reverse=True)
        self._pointer_version, self._listed_at_s = version, now_s

    def _believed(self, layout: EpochLayout) -> EpochToSeed | None:
        """Return an epoch as it is now; None when its manifest went away."""
        info = self._store.info(layout.manifest)
        if info is None:
            return None
        where = f"{self._store.url}/{layout.manifest}"
        version, known = self._read.get(layout, ("", None))
        if known is not None and version and version == info.version:
            return known
        if info.size > ENVELOPE_BYTES_MAX:
            raise ManifestError(problem=f"a manifest has at most {ENVELOPE_BYTES_MAX} bytes, this has {info.size}", where=where)
        try:
            data = self._store.get(layout.manifest, 0, ENVELOPE_BYTES_MAX)
        except ObjectNotFoundError:
            return None
        found = self.believe(layout, data, where)
        self._read[layout] = (info.version, found)
        return found


def find_chain(store: Store) -> str:
    """Return the only chain that is published in a store.

    Raises:
        EpochNotReadyError: none is.
        InvalidInputError: several are.
        StoreError: it can't be listed.
    """
    chains = published_chains(store)
    if not chains:
        raise EpochNotReadyError(problem="no chain is published there", where=store.url, remedy="Check the URL; it is the store's folder.")
    if len(chains) > 1:
        raise InvalidInputError(
            problem="several chains are published there", where=store.url, remedy=f"Name one with --chain-id: {', '.join(chains)}."
        )
    return chains[0]


def published_chains(store: Store) -> list[str]:
    """Return the chains that a store has objects of, by name; a StoreError where it can't be listed."""
    return sorted({parsed.chain_id for info in store.list() if (parsed := parse_object_name(info.name)) is not None})
