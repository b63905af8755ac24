"""The catalogue of a chain: one entry for each epoch that a store has, so that readers need not list or read manifests to know what is there.

It is not signed and not needed: it can be rebuilt from the manifests, and readers verify those. An entry says nothing
that its manifest does not say, but for the mark that the epoch is about to go.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeAlias

from schemas.errors import InvalidInputError
from schemas.ids import CryptoHash, ShardUId
from schemas.json_document import FieldReader, decode_json, encode_json, encode_time
from schemas.json_limits import JsonLimits
from schemas.nearcore.epoch_context import CHAIN_ID_PATTERN
from schemas.nearcore.shard_layout import SHARDS_MAX
from schemas.nearcore.state_part import Encoding
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import MANIFEST_PARTS_MAX
from schemas.published.object_layout import REVISION_MAX, EpochLayout

CATALOGUE_BYTES_MAX: Final = 64 << 20
"""Largest catalogue that is read."""

EPOCHS_MAX: Final = 50_000
"""Most epochs of a catalogue."""

PROBLEM_LENGTH_MAX: Final = 300

STEPS_MAX: Final = 1000
"""Most steps by which an epoch is had."""

# A shard is an object with eight fields and some 160 bytes, an epoch two objects, a list and fourteen fields.
_LIMITS: Final = JsonLimits(CATALOGUE_BYTES_MAX, CATALOGUE_BYTES_MAX // 160 + 3 * EPOCHS_MAX, CATALOGUE_BYTES_MAX // 20 + 14 * EPOCHS_MAX)

_FORMAT = "urn:statecast:catalogue:v1"

EpochKey: TypeAlias = tuple[int, str]
"""Epoch height and epoch id in base58: the order of entries."""


@dataclass(frozen=True, slots=True)
class CatalogueShard:
    """What is published of one shard."""

    shard_uid: ShardUId
    state_root: CryptoHash
    num_parts: int
    parts: int
    """How many of them the manifest lists."""
    size: int
    """Stored bytes of those."""
    has_header: bool
    has_torrent: bool


@dataclass(frozen=True, slots=True)
class PublishedListing:
    """What an epoch's manifest says."""

    sync_hash: CryptoHash
    protocol_version: int
    encoding: Encoding
    revision: int
    manifest_sha256: str
    """Of the manifest's payload, in hexadecimal."""
    created: datetime
    """Of this revision."""
    is_complete: bool
    """Every part of every shard of the epoch is there."""
    shards: tuple[CatalogueShard, ...]

    @property
    def size(self) -> int:
        """Stored bytes of all parts."""
        return sum(shard.size for shard in self.shards)

    @classmethod
    def of(cls, manifest: Manifest, manifest_sha256: str) -> PublishedListing:
        """Return what a manifest says."""
        return cls(
            sync_hash=manifest.sync_hash,
            protocol_version=manifest.protocol_version,
            encoding=manifest.encoding,
            revision=manifest.revision,
            manifest_sha256=manifest_sha256,
            created=manifest.created,
            is_complete=manifest.is_complete,
            shards=tuple(
                CatalogueShard(
                    shard_uid=shard.shard_uid,
                    state_root=shard.state_root,
                    num_parts=shard.num_parts,
                    parts=len(shard.parts),
                    size=sum(part.size for part in shard.parts),
                    has_header=shard.header is not None,
                    has_torrent=shard.torrent is not None,
                )
                for shard in manifest.shards
            ),
        )


@dataclass(frozen=True, slots=True)
class CatalogueEpoch:
    """One epoch."""

    epoch_height: int
    epoch_id: CryptoHash
    listing: PublishedListing | None
    """None where the manifest can't be read."""
    problem: str = ""
    """Why it can't; printable ASCII, at most `PROBLEM_LENGTH_MAX` characters."""
    leaving_since: datetime | None = None
    """A collection has begun to delete the epoch, or its parts; None else."""
    steps: tuple[EpochKey, ...] = ()
    """Of an epoch whose parts are not there: a whole one, then those that each delta leads to, up to the one before. Empty for a whole one."""

    @property
    def key(self) -> EpochKey:
        """The entry's place in the catalogue."""
        return self.epoch_height, str(self.epoch_id)

    @classmethod
    def damaged(cls, layout: EpochLayout, problem: str) -> CatalogueEpoch:
        """Return the entry of an epoch whose manifest can't be read."""
        printable = "".join(letter if " " <= letter <= "~" else "?" for letter in problem)
        return cls(layout.epoch_height, layout.epoch_id, None, printable[:PROBLEM_LENGTH_MAX])


def epoch_key(layout: EpochLayout) -> EpochKey:
    """Return an epoch's place in a catalogue."""
    return layout.epoch_height, str(layout.epoch_id)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All epochs of a chain, ascending by height and id."""

    chain_id: str
    epochs: tuple[CatalogueEpoch, ...] = ()

    def find(self, layout: EpochLayout) -> CatalogueEpoch | None:
        """Return an epoch's entry; None where there is none."""
        return self._at(epoch_key(layout))[1]

    def layout(self, epoch: CatalogueEpoch) -> EpochLayout:
        """Return the names of an entry's objects."""
        return EpochLayout(self.chain_id, epoch.epoch_height, epoch.epoch_id)

    def with_epoch(self, epoch: CatalogueEpoch) -> Catalogue:
        """Return the catalogue with an entry added or replaced."""
        place, there = self._at(epoch.key)
        return Catalogue(self.chain_id, (*self.epochs[:place], epoch, *self.epochs[place if there is None else place + 1 :]))

    def with_published(self, epoch: CatalogueEpoch) -> Catalogue:
        """Return the catalogue with what was just published: an entry of a later revision stays, a mark that the epoch goes does not."""
        there = self._at(epoch.key)[1]
        if there is not None:
            # Whether its parts are there is a collector's to see.
            epoch = replace(epoch, steps=there.steps)
        if there is None or there.listing is None or epoch.listing is None or there.leaving_since is not None:
            return self.with_epoch(epoch)
        return self if there.listing.revision > epoch.listing.revision else self.with_epoch(epoch)

    def without(self, layouts: Iterable[EpochLayout]) -> Catalogue:
        """Return the catalogue without some epochs."""
        keys = {epoch_key(layout) for layout in layouts}
        return Catalogue(self.chain_id, tuple(epoch for epoch in self.epochs if epoch.key not in keys))

    def marked(self, layout: EpochLayout, leaving_since: datetime | None) -> Catalogue:
        """Return the catalogue with an epoch marked as leaving, or with None no longer; an epoch that it lacks is added for the mark."""
        there = self.find(layout)
        if there is None and leaving_since is None:
            return self
        entry = there or CatalogueEpoch.damaged(layout, "no manifest was read")
        return self.with_epoch(replace(entry, leaving_since=leaving_since))

    def with_steps(self, layout: EpochLayout, steps: Sequence[EpochLayout]) -> Catalogue:
        """Return the catalogue in which an epoch is had by some steps, or with none is whole; one that it lacks stays lacking."""
        there = self.find(layout)
        keys = tuple(map(epoch_key, steps))
        return self if there is None or there.steps == keys else self.with_epoch(replace(there, steps=keys))

    def _at(self, key: EpochKey) -> tuple[int, CatalogueEpoch | None]:
        """Return an entry's place, and the entry if it is there: found in a few steps, since there may be as many lookups as entries."""
        place = bisect_left(self.epochs, key, key=lambda epoch: epoch.key)
        found = self.epochs[place] if place < len(self.epochs) else None
        return place, found if found is not None and found.key == key else None

    def to_bytes(self) -> bytes:
        """Return the wire form, canonical JSON.

        Raises:
            InvalidInputError: more epochs than a catalogue can have.
        """
        if len(self.epochs) > EPOCHS_MAX:
            raise InvalidInputError(problem=f"a catalogue has at most {EPOCHS_MAX} epochs", remedy="Collect old ones: statecast gc.")
        return encode_json({"format": _FORMAT, "chain_id": self.chain_id, "epochs": [_epoch_json(epoch) for epoch in self.epochs]})

    @classmethod
    def parse(cls, data: bytes, where: str) -> Catalogue:
        """Parse the wire form; unknown fields are ignored.

        Raises:
            ManifestError: not a catalogue.
        """
        reader = FieldReader(decode_json(data, _LIMITS, where), where)
        reader.literal("format", _FORMAT)
        chain_id = reader.text("chain_id", 64, CHAIN_ID_PATTERN)
        epochs = [_read_epoch(entry) for entry in reader.inners("epochs", EPOCHS_MAX)]
        if [epoch.key for epoch in epochs] != sorted({epoch.key for epoch in epochs}):
            reader.fail("epochs are listed once each, ascending by height and id")
        return cls(chain_id, tuple(epochs))

    def to_json(self) -> dict[str, Any]:
        """Return the catalogue as plain JSON values, for people's programs: the wire form's fields without its format."""
        return {"chain_id": self.chain_id, "epochs": [_epoch_json(epoch) for epoch in self.epochs]}


def _epoch_json(epoch: CatalogueEpoch) -> dict[str, Any]:
    return {
        "epoch_height": epoch.epoch_height,
        "epoch_id": str(epoch.epoch_id),
        "manifest": None if epoch.listing is None else _listing_json(epoch.listing),
        "problem": epoch.problem,
        "leaving_since": None if epoch.leaving_since is None else encode_time(epoch.leaving_since),
        **(
            {}
            if not epoch.steps
            else {"rebuilt_from": [{"epoch_height": height, "epoch_id": epoch_id} for height, epoch_id in epoch.steps]}
        ),
    }


def _listing_json(listing: PublishedListing) -> dict[str, Any]:
    return {
        "sync_hash": str(listing.sync_hash),
        "protocol_version": listing.protocol_version,
        "encoding": str(listing.encoding),
        "revision": listing.revision,
        "manifest_sha256": listing.manifest_sha256,
        "created": encode_time(listing.created),
        "complete": listing.is_complete,
        "size": listing.size,
        "shards": [
            {
                "shard_id": shard.shard_uid.shard_id,
                "shard_uid": str(shard.shard_uid),
                "state_root": str(shard.state_root),
                "num_parts": shard.num_parts,
                "parts": shard.parts,
                "size": shard.size,
                "state_header": shard.has_header,
                "torrent": shard.has_torrent,
            }
            for shard in listing.shards
        ],
    }


def _read_epoch(reader: FieldReader) -> CatalogueEpoch:
    return CatalogueEpoch(
        epoch_height=reader.number("epoch_height", 0, 2**64 - 1),
        epoch_id=reader.hash("epoch_id"),
        listing=None if reader.is_null("manifest") else _read_listing(reader.inner("manifest")),
        problem=reader.text("problem", PROBLEM_LENGTH_MAX),
        leaving_since=None if reader.is_null("leaving_since") else reader.time("leaving_since"),
        steps=tuple(
            (entry.number("epoch_height", 0, 2**64 - 1), str(entry.hash("epoch_id")))
            for entry in (reader.inners("rebuilt_from", STEPS_MAX) if "rebuilt_from" in reader.names() else ())
        ),
    )


def _read_listing(reader: FieldReader) -> PublishedListing:
    return PublishedListing(
        sync_hash=reader.hash("sync_hash"),
        protocol_version=reader.number("protocol_version", 0, 2**32 - 1),
        encoding=Encoding(reader.text("encoding", 20, "|".join(Encoding))),
        revision=reader.number("revision", 1, REVISION_MAX),
        manifest_sha256=reader.sha256("manifest_sha256"),
        created=reader.time("created"),
        is_complete=reader.flag("complete"),
        shards=tuple(_read_shard(entry) for entry in reader.inners("shards", SHARDS_MAX)),
    )


def _read_shard(reader: FieldReader) -> CatalogueShard:
    num_parts = reader.number("num_parts", 0, MANIFEST_PARTS_MAX)
    return CatalogueShard(
        shard_uid=reader.shard_uid("shard_uid"),
        state_root=reader.hash("state_root"),
        num_parts=num_parts,
        parts=reader.number("parts", 0, num_parts),
        size=reader.number("size", 0, 2**63 - 1),
        has_header=reader.flag("state_header"),
        has_torrent=reader.flag("torrent"),
    )
