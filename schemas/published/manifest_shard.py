"""A shard in a manifest: its stored objects and its torrent."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.ids import CryptoHash, PartId, ShardUId
from schemas.json_document import FieldReader
from schemas.nearcore.state_header import STATE_HEADER_BYTES_MAX
from schemas.published.in_toto import subject_sha256
from schemas.published.object_layout import part_file_name, shard_folder_name
from schemas.published.shard_statement import STATEMENT_PARTS_MAX
from schemas.published.torrent import LEAF_BYTES, PIECE_BYTES_MAX

MANIFEST_PARTS_MAX = 200_000
"""Most parts of a manifest, over all shards."""

STORED_BYTES_MAX = 1 << 30
"""Largest stored object: twice the largest decoded part, since compression can't grow it further."""


@dataclass(frozen=True, slots=True)
class ManifestPart:
    """A state part as it is stored."""

    part_id: int
    size: int
    sha256: str
    """Of the stored bytes, in hexadecimal."""
    pieces_root: str | None = None
    """``pieces root`` of the stored bytes in BitTorrent version 2, in hexadecimal; None when no torrent was made."""


@dataclass(frozen=True, slots=True)
class ManifestHeader:
    """A state header as it is stored."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ManifestTorrent:
    """A shard's torrent: the torrent file proves itself by these hashes."""

    info_hash_v1: str
    """SHA-1 in hexadecimal."""
    info_hash_v2: str
    """SHA-256 in hexadecimal."""
    piece_length: int


@dataclass(frozen=True, slots=True)
class ManifestShard:
    """One shard of the epoch."""

    shard_uid: ShardUId
    state_root: CryptoHash
    num_parts: int
    statement_sha256: str
    """Of the shard statement's payload, in hexadecimal."""
    parts: tuple[ManifestPart, ...]
    """Those that are there, ascending by part id."""
    header: ManifestHeader | None = None
    torrent: ManifestTorrent | None = None
    parent_shard_uid: ShardUId | None = None
    """The shard that a resharding made this one out of; None where there is none or the publisher does not know."""

    @property
    def shard_id(self) -> int:
        """The shard's id in object names."""
        return self.shard_uid.shard_id

    def subjects(self) -> dict[str, str]:
        """Return the SHA-256 of each stored object by its name relative to the epoch's folder."""
        subjects = {self._part_name(part.part_id): part.sha256 for part in self.parts}
        return subjects if self.header is None else subjects | {_header_name(self.shard_id): self.header.sha256}

    def part(self, part_id: int) -> ManifestPart | None:
        """Return one part; None when it is not listed."""
        place = bisect_left(self.parts, part_id, key=lambda part: part.part_id)
        return self.parts[place] if place < len(self.parts) and self.parts[place].part_id == part_id else None

    def absent_part_ids(self) -> Iterator[int]:
        """Yield the ids of the parts that are not listed, ascending; there may be very many more than are listed."""
        following = 0
        for part in self.parts:
            yield from range(following, part.part_id)
            following = part.part_id + 1
        yield from range(following, self.num_parts)

    def to_json(self) -> dict[str, Any]:
        """Return the shard as JSON values; the digests of its objects are the manifest's subjects."""
        torrent = self.torrent
        return {
            "shard_id": self.shard_id,
            "shard_uid": str(self.shard_uid),
            "state_root": str(self.state_root),
            "num_parts": self.num_parts,
            "statement_sha256": self.statement_sha256,
            "parts": [{"part_id": part.part_id, "size": part.size, "pieces_root": part.pieces_root} for part in self.parts],
            "state_header": None if self.header is None else {"size": self.header.size},
            "torrent": None
            if torrent is None
            else {
                "name": shard_folder_name(self.shard_id),
                "info_hash_v1": torrent.info_hash_v1,
                "info_hash_v2": torrent.info_hash_v2,
                "piece_length": torrent.piece_length,
            },
            **({} if self.parent_shard_uid is None else {"parent_shard_uid": str(self.parent_shard_uid)}),
        }

    @classmethod
    def from_json(cls, reader: FieldReader, subjects: Mapping[str, str]) -> ManifestShard:
        """Build a shard from decoded JSON values.

        Args:
            subjects: the manifest's.
        Raises:
            ManifestError: a field is missing or of another form, an object has no subject, a part is listed twice or out of order.
        """
        shard_uid = reader.shard_uid("shard_uid")
        reader.literal("shard_id", shard_uid.shard_id)
        num_parts = reader.number("num_parts", 0, STATEMENT_PARTS_MAX)
        parts: list[ManifestPart] = []
        for entry in reader.inners("parts", num_parts):
            part_id = entry.number("part_id", parts[-1].part_id + 1 if parts else 0, num_parts - 1)
            sha256 = subject_sha256(entry, subjects, _part_name(shard_uid.shard_id, part_id, num_parts))
            root = None if entry.is_null("pieces_root") else entry.sha256("pieces_root")
            parts.append(ManifestPart(part_id, entry.number("size", 0, STORED_BYTES_MAX), sha256, root))
        header = None
        if not reader.is_null("state_header"):
            sha256 = subject_sha256(reader, subjects, _header_name(shard_uid.shard_id))
            header = ManifestHeader(reader.inner("state_header").number("size", 0, STATE_HEADER_BYTES_MAX), sha256)
        return cls(
            shard_uid=shard_uid,
            state_root=reader.hash("state_root"),
            num_parts=num_parts,
            statement_sha256=reader.sha256("statement_sha256"),
            parts=tuple(parts),
            header=header,
            torrent=None if reader.is_null("torrent") else _read_torrent(reader.inner("torrent"), shard_uid.shard_id),
            parent_shard_uid=_read_parent(reader, shard_uid),
        )

    def _part_name(self, part_id: int) -> str:
        return _part_name(self.shard_id, part_id, self.num_parts)


def _read_parent(reader: FieldReader, shard_uid: ShardUId) -> ShardUId | None:
    """Read a field that older publishers don't write."""
    if "parent_shard_uid" not in reader.names():
        return None
    parent = reader.shard_uid("parent_shard_uid")
    if parent == shard_uid:
        reader.fail("field parent_shard_uid names the shard itself")
    return parent


def _read_torrent(reader: FieldReader, shard_id: int) -> ManifestTorrent:
    reader.literal("name", shard_folder_name(shard_id))
    piece_length = reader.number("piece_length", LEAF_BYTES, PIECE_BYTES_MAX)
    if piece_length & (piece_length - 1):
        reader.fail("field piece_length must be a power of two")
    return ManifestTorrent(reader.text("info_hash_v1", 40, r"[0-9a-f]{40}"), reader.sha256("info_hash_v2"), piece_length)


def _part_name(shard_id: int, part_id: int, num_parts: int) -> str:
    return f"{shard_folder_name(shard_id)}/{part_file_name(PartId(part_id, num_parts))}"


def _header_name(shard_id: int) -> str:
    return f"headers/{shard_folder_name(shard_id)}/header"
