"""Manifests: one publisher's word on where an epoch's objects are and how they are stored.

The payload is an in-toto Statement. Its subjects are the stored objects (state parts as encoded, state headers) by SHA-256, named
relative to the epoch's folder; the predicate says the rest. What the *decoded* parts must be is the shard statements' to say, which
a manifest names by the digest of their payloads. What ties either to the chain is the state header's proof, not the publisher.

What is not there is listed under ``missing``: a manifest that lacks an object and does not say so is refused. Unknown fields are
ignored (the signature covers the bytes, not their meaning to this reader), so fields can be added without a new predicate type;
a writer of the next revision from a parsed manifest drops them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Any

from schemas.errors import InvalidInputError, ManifestError
from schemas.ids import CryptoHash
from schemas.json_document import FieldReader, decode_base64, encode_base64, encode_time
from schemas.json_limits import JsonLimits
from schemas.nearcore.epoch_context import CHAIN_ID_PATTERN
from schemas.nearcore.shard_layout import SHARDS_MAX, ShardLayout, shard_layout_from_json
from schemas.nearcore.state_part import Encoding
from schemas.published.dsse import PAYLOAD_BYTES_MAX
from schemas.published.in_toto import decode_in_toto, encode_in_toto
from schemas.published.manifest_delta import MANIFEST_DELTAS_MAX, ManifestDelta
from schemas.published.manifest_shard import MANIFEST_PARTS_MAX, ManifestShard
from schemas.published.manifest_tables import ManifestTables
from schemas.published.object_layout import REVISION_MAX, EpochLayout
from schemas.shown_text import shown_url
from schemas.url import split_web_url

MANIFEST_TYPE = "urn:statecast:manifest:v1"
"""Predicate type; a change that readers must know of gets a new one."""

URLS_MAX = 64
"""Most mirrors, web seeds or trackers."""

URL_LENGTH_MAX = 2048

BLOCK_HEADER_BYTES_MAX = 1 << 20
"""Largest borsh block header."""

MISSING_MAX = MANIFEST_PARTS_MAX
"""Most objects listed as missing."""

# A part is an object with three fields, its subject two objects with two, what is missing an object with four; there are some 30 values
# of each shard besides. About as much again is room for fields that a later version adds.
_LIMITS = JsonLimits(PAYLOAD_BYTES_MAX, 5 * MANIFEST_PARTS_MAX, 12 * MANIFEST_PARTS_MAX)

# Printable ASCII without @, so that no URL carries credentials; a web seed also has no query, since clients append the path.
_MIRROR_PATTERN = r"(?:https?|gs|s3)://[!-?A-~]+"
_WEB_SEED_PATTERN = r"https?://[!-\"$->A-~]+/"
_TRACKER_PATTERN = r"(?:https?|udp)://[!-?A-~]+"


class MissingKind(StrEnum):
    """What a manifest can lack."""

    SHARD = "shard"
    STATE_PART = "state_part"
    STATE_HEADER = "state_header"
    TORRENT = "torrent"
    BLOCK_HEADERS = "block_headers"


REASON_CHARACTERS_MAX = 300
"""Most characters of the reason why something is missing."""


@dataclass(frozen=True, slots=True)
class MissingObject:
    """Something that the epoch has and the publisher does not offer."""

    kind: MissingKind
    reason: str
    """For people; printable ASCII, at most `REASON_CHARACTERS_MAX`."""
    shard_id: int | None = None
    part_id: int | None = None


@dataclass(frozen=True, slots=True)
class ZstdSettings:
    """What compressed the parts: other settings give other bytes of the same decoded part."""

    version: str
    level: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One revision of an epoch's manifest."""

    chain_id: str
    epoch_height: int
    epoch_id: CryptoHash
    sync_hash: CryptoHash
    protocol_version: int
    revision: int
    """From 1; each replacement has the next."""
    created: datetime
    """UTC, whole seconds."""
    expires: datetime | None
    """UTC, whole seconds; after it a reader should want a newer revision. None: never."""
    producer_version: str
    """Name and version of the software, for people."""
    encoding: Encoding
    zstd: ZstdSettings | None
    """With encoding ``v1`` alone."""
    shards: tuple[ManifestShard, ...]
    """Ascending by shard id."""
    mirrors: tuple[str, ...] = ()
    """URLs of folders that hold the epoch's folder under its full name, best first."""
    web_seeds: tuple[str, ...] = ()
    """URLs of the epoch's folder, ending in a slash, as torrents name them."""
    trackers: tuple[str, ...] = ()
    block_headers: tuple[bytes, ...] = ()
    """Borsh block headers of the sync block and of its parent, or nothing."""
    missing: tuple[MissingObject, ...] = ()
    shard_layout: ShardLayout | None = None
    """The epoch's, without parents, which the shards name: it has the shards that are listed and those that are missing, and no
    others. None where the publisher does not know it, and in older manifests."""
    deltas: tuple[ManifestDelta, ...] = ()
    """What changed since lower epochs, shard by shard: ascending by shard id, height and id of the base. Absent in older manifests."""
    tables: ManifestTables | None = None
    """The epoch's decoded tables; None where the publisher offers none, and in older manifests."""

    @property
    def is_complete(self) -> bool:
        """Whether every part of every shard is there."""
        return not any(found.kind in (MissingKind.SHARD, MissingKind.STATE_PART) for found in self.missing)

    @property
    def missing_shard_ids(self) -> frozenset[int]:
        """Shards of the epoch that are not listed, as far as the publisher knows them."""
        return frozenset(found.shard_id for found in self.missing if found.kind is MissingKind.SHARD and found.shard_id is not None)

    @property
    def layout(self) -> EpochLayout:
        """The names of the epoch's objects."""
        return EpochLayout(self.chain_id, self.epoch_height, self.epoch_id)

    def shard(self, shard_id: int) -> ManifestShard | None:
        """Return one shard; None when it is not listed."""
        place = bisect_left(self.shards, shard_id, key=lambda shard: shard.shard_id)
        return self.shards[place] if place < len(self.shards) and self.shards[place].shard_id == shard_id else None

    def to_payload(self) -> bytes:
        """Return the payload in canonical JSON."""
        problem = self._problem()
        assert problem is None, problem
        predicate: dict[str, Any] = {
            "chain_id": self.chain_id,
            "epoch_height": self.epoch_height,
            "epoch_id": str(self.epoch_id),
            "sync_hash": str(self.sync_hash),
            "protocol_version": self.protocol_version,
            "revision": self.revision,
            "created": encode_time(self.created),
            "expires": None if self.expires is None else encode_time(self.expires),
            "producer_version": self.producer_version,
            "encoding": str(self.encoding),
            "zstd": None if self.zstd is None else {"version": self.zstd.version, "level": self.zstd.level},
            "shards": [shard.to_json() for shard in self.shards],
            "mirrors": list(self.mirrors),
            "web_seeds": list(self.web_seeds),
            "trackers": list(self.trackers),
            "block_headers": [encode_base64(header) for header in self.block_headers],
            "missing": [
                {"kind": str(found.kind), "shard_id": found.shard_id, "part_id": found.part_id, "reason": found.reason}
                for found in self.missing
            ],
            **({} if self.shard_layout is None else {"shard_layout": self.shard_layout.to_json()}),
            **({} if not self.deltas else {"deltas": [found.to_json() for found in self.deltas]}),
            **({} if self.tables is None else {"tables": self.tables.to_json()}),
        }
        payload = encode_in_toto(MANIFEST_TYPE, self.subjects(), predicate)
        assert Manifest.from_payload(payload, "manifest to be written") == self, "what is written is what is read"
        return payload

    @classmethod
    def of_epoch(cls, layout: EpochLayout, payload: bytes, where: str) -> Manifest:
        """Parse the payload of an epoch's manifest.

        Raises:
            ManifestError: not a manifest, one that contradicts itself, or another epoch's.
        """
        manifest = cls.from_payload(payload, where)
        if manifest.layout != layout:
            raise ManifestError(
                problem=f"the manifest is of epoch {manifest.epoch_height} ({manifest.epoch_id}) of {manifest.chain_id}", where=where
            )
        return manifest

    @classmethod
    def from_payload(cls, payload: bytes, where: str) -> Manifest:
        """Parse a payload.

        Raises:
            ManifestError: not a manifest, or one that contradicts itself.
        """
        subjects, reader = decode_in_toto(payload, MANIFEST_TYPE, _LIMITS, MANIFEST_PARTS_MAX + SHARDS_MAX, where)
        manifest = cls(
            chain_id=reader.text("chain_id", 64, CHAIN_ID_PATTERN),
            epoch_height=reader.number("epoch_height", 0, 2**64 - 1),
            epoch_id=reader.hash("epoch_id"),
            sync_hash=reader.hash("sync_hash"),
            protocol_version=reader.number("protocol_version", 0, 2**32 - 1),
            revision=reader.number("revision", 1, REVISION_MAX),
            created=reader.time("created"),
            expires=None if reader.is_null("expires") else reader.time("expires"),
            producer_version=reader.text("producer_version", 100),
            encoding=Encoding(reader.text("encoding", 20, "|".join(Encoding))),
            zstd=None if reader.is_null("zstd") else _read_zstd(reader.inner("zstd")),
            shards=tuple(ManifestShard.from_json(entry, subjects) for entry in reader.inners("shards", SHARDS_MAX)),
            mirrors=reader.texts("mirrors", URLS_MAX, URL_LENGTH_MAX, _MIRROR_PATTERN),
            web_seeds=reader.texts("web_seeds", URLS_MAX, URL_LENGTH_MAX, _WEB_SEED_PATTERN),
            trackers=reader.texts("trackers", URLS_MAX, URL_LENGTH_MAX, _TRACKER_PATTERN),
            block_headers=tuple(
                decode_base64(entry, BLOCK_HEADER_BYTES_MAX, f"{where}: block_headers") for entry in reader.listed("block_headers", 2)
            ),
            missing=tuple(_read_missing(entry) for entry in reader.inners("missing", MISSING_MAX)),
            shard_layout=_read_shard_layout(reader),
            deltas=tuple(map(ManifestDelta.from_json, reader.inners("deltas", MANIFEST_DELTAS_MAX) if "deltas" in reader.names() else ())),
            tables=ManifestTables.from_json(reader.inner("tables")) if reader.has("tables") else None,
        )
        problem = manifest._problem()
        if problem is None and manifest.subjects() != subjects:
            problem = "the subjects are not the objects that the shards list"
        if problem is not None:
            raise ManifestError(problem=problem, where=where)
        return manifest

    def subjects(self) -> dict[str, str]:
        """Return the SHA-256 of every stored object by its name relative to the epoch's folder."""
        return {name: sha256 for shard in self.shards for name, sha256 in shard.subjects().items()}

    def _problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        shard_ids = [shard.shard_id for shard in self.shards]
        if shard_ids != sorted(set(shard_ids)):
            return "shards are listed once each, ascending"
        if sum(len(shard.parts) for shard in self.shards) > MANIFEST_PARTS_MAX:
            return f"a manifest lists at most {MANIFEST_PARTS_MAX} parts"
        if (self.encoding is Encoding.V1) != (self.zstd is not None):
            return "zstd's version and level belong to encoding v1 and to no other"
        if len(self.block_headers) not in (0, 2):
            return "block_headers are the sync block's and its parent's, or none"
        if self.expires is not None and self.expires <= self.created:
            return "the manifest expires before it was created"
        return self._deltas_problem() or self._missing_problem()

    def _deltas_problem(self) -> str | None:
        keys = [found.key for found in self.deltas]
        if keys != sorted(set(keys)) or len(keys) > MANIFEST_DELTAS_MAX:
            return f"deltas are listed once each, ascending by shard and base, and at most {MANIFEST_DELTAS_MAX}"
        if any(found.base_epoch_height >= self.epoch_height for found in self.deltas):
            return "a delta leads from a lower epoch"
        return None

    def _missing_problem(self) -> str | None:
        """Compare what is missing by the listing with what is said to be missing; whole shards can't be told from the listing."""
        said = {(found.kind, found.shard_id, found.part_id) for found in self.missing if found.kind is not MissingKind.SHARD}
        # num_parts is only a number here, and what is absent may be more than memory holds: it is gone through up to what nobody said.
        differing = list(islice((found for found in self._absent() if found not in said), 3))
        differing = differing or list(islice(said.difference(self._absent()), 3))
        if differing:
            return f"what is missing and what is said to be missing differ: {sorted(map(str, differing))}"
        listed_shards = {shard.shard_id for shard in self.shards}
        if any(found.kind is MissingKind.SHARD and (found.shard_id is None or found.shard_id in listed_shards) for found in self.missing):
            return "a shard is listed and said to be missing"
        return self._layout_problem()

    def _absent(self) -> Iterator[tuple[MissingKind, int | None, int | None]]:
        """Yield what the listing lacks: kind, shard id, part id."""
        for shard in self.shards:
            for idx in shard.absent_part_ids():
                yield MissingKind.STATE_PART, shard.shard_id, idx
            if shard.header is None:
                yield MissingKind.STATE_HEADER, shard.shard_id, None
            if shard.torrent is None and shard.num_parts:
                yield MissingKind.TORRENT, shard.shard_id, None
        if not self.block_headers:
            yield MissingKind.BLOCK_HEADERS, None, None

    def _layout_problem(self) -> str | None:
        """Compare the shard layout with the shards; of those that are missing only the ids are known."""
        if self.shard_layout is None:
            return None
        shard_uids = {shard.shard_id: shard.shard_uid for shard in self.shards}
        other = sorted(set(shard_uids.values()) - set(self.shard_layout.shard_uids))
        if other:
            return f"shard {other[0]} is listed and not in the shard layout"
        differing = sorted(map(str, {*shard_uids, *self.missing_shard_ids} ^ set(self.shard_layout.shard_ids)))
        if differing:
            return f"the shards of the shard layout and those that are listed or missing differ in shard {', '.join(differing[:3])}"
        return None


def check_urls(mirrors: Sequence[str] = (), web_seeds: Sequence[str] = (), trackers: Sequence[str] = ()) -> None:
    """Check what a user wants listed, before it is listed.

    Raises:
        InvalidInputError: a URL with credentials or of another scheme, a web seed with a query or without a slash at its end, too many.
    """
    for option, urls, pattern, form in (
        ("mirror", mirrors, _MIRROR_PATTERN, "an http(s), gs or s3 URL without credentials"),
        ("web seed", web_seeds, _WEB_SEED_PATTERN, "a plain http(s) URL that ends in a slash, without a query or credentials"),
        ("tracker", trackers, _TRACKER_PATTERN, "an http(s) or udp URL without credentials"),
    ):
        for url in urls:
            split_web_url(url)
            if len(urls) > URLS_MAX or len(url) > URL_LENGTH_MAX or re.fullmatch(pattern, url) is None:
                raise InvalidInputError(problem=f"a {option} is {form}, and there are at most {URLS_MAX}", where=shown_url(url))


def _read_zstd(reader: FieldReader) -> ZstdSettings:
    return ZstdSettings(reader.text("version", 20, r"\d+\.\d+\.\d+"), reader.number("level", 1, 22))


def _read_shard_layout(reader: FieldReader) -> ShardLayout | None:
    """Read a field that older publishers don't write."""
    if "shard_layout" not in reader.names():
        return None
    try:
        return shard_layout_from_json(reader.value("shard_layout"), f"{reader.where}: shard_layout", with_parents=False)
    except InvalidInputError as error:
        reader.fail(f"field shard_layout: {error.problem}")


def _read_missing(reader: FieldReader) -> MissingObject:
    return MissingObject(
        kind=MissingKind(reader.text("kind", 20, "|".join(MissingKind))),
        reason=reader.text("reason", REASON_CHARACTERS_MAX),
        shard_id=None if reader.is_null("shard_id") else reader.number("shard_id", 0, 2**32 - 1),
        part_id=None if reader.is_null("part_id") else reader.number("part_id", 0, MANIFEST_PARTS_MAX),
    )
