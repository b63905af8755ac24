"""A shard's torrent as published, believed for its info hashes alone: those are in the signed manifest.

Both info hashes must be the manifest's, and then the torrent's files must be the manifest's parts, by name, size and pieces root. What
lies outside the info dictionary (web seeds, trackers) is not covered by the hashes and is not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pipelines.bittorrent.library import import_libtorrent
from schemas.errors import ManifestError
from schemas.ids import PartId
from schemas.published.manifest_shard import ManifestShard, ManifestTorrent
from schemas.published.object_layout import part_file_name, shard_folder_name

TORRENT_BYTES_MAX: Final = 512 << 20
"""Largest torrent file that is read: some 52 bytes a piece, with room for the largest manifest."""


@dataclass(frozen=True, slots=True)
class FilePieces:
    """Where a part lies among a torrent's pieces."""

    size: int
    first_piece: int
    """Every part begins at a piece boundary."""
    num_pieces: int


@dataclass(frozen=True, slots=True)
class PublishedTorrent:
    """A torrent that is what the manifest says, and its parts' pieces."""

    shard_id: int
    info_hash_v1: str
    """In hexadecimal."""
    info_hash_v2: str
    piece_length: int
    num_pieces: int
    files: Mapping[int, FilePieces]
    """By part id."""
    info: Any
    """libtorrent's ``torrent_info``."""
    data: bytes = field(default=b"", repr=False)
    """The torrent file; empty where peers sent the info dictionary alone."""

    def parameters(self) -> Any:
        """Return libtorrent's parameters for a session, version 2's piece layers included, without web seeds, trackers and a folder."""
        assert self.data, "read from a file"
        parameters = import_libtorrent().load_torrent_buffer(self.data)
        parameters.url_seeds, parameters.trackers = [], []
        return parameters

    def piece_bytes(self, part_id: int, piece: int) -> tuple[int, int]:
        """Return the bytes [start, stop) of a part that one of its pieces holds."""
        file = self.files[part_id]
        start = (piece - file.first_piece) * self.piece_length
        return start, min(start + self.piece_length, file.size)

    def is_piece(self, piece: int, data: bytes) -> bool:
        """Whether bytes are those of a piece, without the zeros that fill up the last piece of a part."""
        digest = hashlib.sha1(data, usedforsecurity=False)
        if len(self.files) > 1:
            digest.update(bytes(self.piece_length - len(data)))
        return bool(digest.digest() == self.info.hash_for_piece(piece))


def read_torrent(data: bytes, shard: ManifestShard, where: str) -> PublishedTorrent:
    """Parse a torrent file and compare it with the manifest.

    Raises:
        ManifestError: not a torrent, or not the one that the manifest names.
        InvalidInputError: libtorrent is not installed.
    """
    lt = import_libtorrent()
    if len(data) > TORRENT_BYTES_MAX:
        raise ManifestError(problem=f"a torrent file has at most {TORRENT_BYTES_MAX} bytes, this has {len(data)}", where=where)
    try:
        info = lt.load_torrent_buffer(data).ti
    except RuntimeError as error:
        raise ManifestError(problem=f"this is no torrent file: {error}", where=where) from error
    return replace(check_torrent(info, shard, where), data=data)


def check_torrent(info: Any, shard: ManifestShard, where: str) -> PublishedTorrent:
    """Compare a parsed torrent with the manifest.

    Raises:
        ManifestError: another info hash, or other files than the shard's parts.
    """
    torrent = named_torrent(shard, where)
    hashes = info.info_hashes()
    found = (hashes.v1.to_bytes().hex() if hashes.has_v1() else "none", hashes.v2.to_bytes().hex() if hashes.has_v2() else "none")
    if found != (torrent.info_hash_v1, torrent.info_hash_v2):
        raise ManifestError(
            problem=f"the torrent's info hashes are {found[0]} and {found[1]}, the manifest names {torrent.info_hash_v1} and {torrent.info_hash_v2}",
            where=where,
            remedy="It is not the published torrent; take it from another source.",
        )
    layout = info.layout()
    listed = [
        (layout.file_path(index), layout.file_size(index), layout.root(index).to_bytes().hex() if layout.file_size(index) else None)
        for index in range(layout.num_files())
        if not layout.file_flags(index) & layout.flag_pad_file
    ]
    folder = shard_folder_name(shard.shard_id)
    expected = [
        (f"{folder}/{part_file_name(PartId(part.part_id, shard.num_parts))}", part.size, part.pieces_root if part.size else None)
        for part in shard.parts
    ]
    if listed != expected or info.piece_length() != torrent.piece_length:
        raise ManifestError(problem="the torrent's files are not the parts that the manifest lists", where=where)
    files, piece = {}, 0
    for part in shard.parts:
        num_pieces = -(-part.size // torrent.piece_length)
        files[part.part_id] = FilePieces(part.size, piece, num_pieces)
        piece += num_pieces
    assert piece == info.num_pieces(), "every file of a hybrid torrent begins at a piece boundary"
    return PublishedTorrent(shard.shard_id, torrent.info_hash_v1, torrent.info_hash_v2, torrent.piece_length, piece, files, info)


def named_torrent(shard: ManifestShard, where: str) -> ManifestTorrent:
    """Return the torrent that the manifest names.

    Raises:
        ManifestError: it names none.
    """
    if shard.torrent is None:
        raise ManifestError(problem=f"the manifest names no torrent of shard {shard.shard_id}", where=where)
    return shard.torrent
