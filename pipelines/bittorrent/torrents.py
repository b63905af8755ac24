"""Torrents of both versions (hybrid), built from piece hashes alone; libtorrent comes with the extra ``p2p``.

No file needs to be at hand: the pieces were hashed when the part was built. The info dictionary depends on the files' names and bytes and
on nothing else, so its hashes can be signed and every producer of the same objects offers the same torrent; web seeds and
trackers lie outside it. Files are in the order of their names, as version 2's file tree demands.

libtorrent's ``create_torrent`` takes version 1's hashes but not version 2's, so the dictionary is put together here, written by
libtorrent's encoder, and read back by its parser before it is returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.bittorrent.library import import_libtorrent
from pipelines.bittorrent.published_torrent import PublishedTorrent
from schemas.errors import InvalidInputError, ManifestError
from schemas.published.torrent import PartPieces
from schemas.shown_text import shown_url

CREATED_BY = "statecast"
"""Fixed, so that the same objects give the same torrent file."""


@dataclass(frozen=True, slots=True)
class TorrentFile:
    """A ``.torrent`` file and what its info dictionary hashes to."""

    data: bytes
    name: str
    piece_length: int
    info_hash_v1: bytes
    """SHA-1, 20 bytes."""
    info_hash_v2: bytes
    """SHA-256, 32 bytes; trackers and handshakes use its first 20."""


def build_torrent(
    name: str,
    files: Sequence[tuple[str, int, PartPieces]],
    piece_length: int,
    web_seeds: Sequence[str] = (),
    trackers: Sequence[str] = (),
) -> TorrentFile:
    """Build a hybrid torrent.

    Args:
        name: the folder that the files lie in; a web seed is the URL of its parent.
        files: name, size in bytes and piece hashes of each file, ascending by name; at least one that is not empty.
        piece_length: bytes; what the piece hashes were made with.
        web_seeds: plain URLs without a query, each ending in a slash.
        trackers: announce URLs.
    Raises:
        InvalidInputError: libtorrent is not installed, or a web seed has another form.
    """
    names = [file_name for file_name, _, _ in files]
    assert names == sorted(set(names)) and sum(size for _, size, _ in files) > 0, name
    assert all(pieces.size == size and pieces.piece_length == piece_length for _, size, pieces in files), name
    info = {
        b"file tree": {file_name.encode(): {b"": _leaf(pieces)} for file_name, _, pieces in files},
        b"files": _v1_files(files, piece_length),
        b"meta version": 2,
        b"name": name.encode(),
        b"piece length": piece_length,
        b"pieces": _v1_pieces(files),
    }
    layers = {pieces.v2_root: pieces.v2_piece_layer for _, size, pieces in files if size > piece_length}
    return _read_back(_encode(info, layers, web_seeds, trackers), name, piece_length)


def recompose_torrent(torrent: PublishedTorrent, web_seeds: Sequence[str], trackers: Sequence[str]) -> bytes:
    """Return the torrent file that `build_torrent` would have made, with the info dictionary and piece layers of another one.

    What lies outside of them in the other file is dropped.

    Args:
        torrent: what was read from the other file, whose parser passes over piece layers that are missing or not a dictionary.
        web_seeds, trackers: as in `build_torrent`.
    Raises:
        ManifestError: the piece layers are not those of the info dictionary, which has the right hashes.
        InvalidInputError: as `build_torrent`.
    """
    lt = import_libtorrent()
    layout = torrent.info.layout()
    files = [index for index in range(layout.num_files()) if layout.file_size(index) > torrent.piece_length]
    roots = {layout.root(index).to_bytes() for index in files if not layout.file_flags(index) & layout.flag_pad_file}
    try:
        found = lt.bdecode(torrent.data)
        layers = found.get(b"piece layers")
        if not isinstance(layers, dict) or not roots <= layers.keys():
            raise ManifestError(problem="the torrent file lacks the piece layer of a part that is longer than a piece")
        made = _encode(found[b"info"], {root: layers[root] for root in roots}, web_seeds, trackers)
        # Where a dictionary has a key twice, the torrent's parser takes the first and this decoder the last.
        same = lt.load_torrent_buffer(made).ti.info_hashes() == torrent.info.info_hashes()
    except RuntimeError as error:
        raise ManifestError(problem=f"the torrent file can't be written again: {error}") from error
    if not same:
        raise ManifestError(problem="the torrent file says its info dictionary twice, and not the same")
    return made


def _encode(info: dict[bytes, Any], layers: dict[bytes, bytes], web_seeds: Sequence[str], trackers: Sequence[str]) -> bytes:
    document: dict[bytes, Any] = {b"created by": CREATED_BY.encode(), b"info": info, b"piece layers": layers}
    # One entry is written alone, several as a list, as libtorrent does.
    if trackers:
        document[b"announce"] = trackers[0].encode()
    if len(trackers) > 1:
        document[b"announce-list"] = [[tracker.encode()] for tracker in trackers]
    if web_seeds:
        urls = [_checked_web_seed(url).encode() for url in web_seeds]
        document[b"url-list"] = urls if len(urls) > 1 else urls[0]
    return bytes(import_libtorrent().bencode(document))


def _leaf(pieces: PartPieces) -> dict[bytes, Any]:
    return {b"length": pieces.size} | ({b"pieces root": pieces.v2_root} if pieces.size else {})


def _v1_files(files: Sequence[tuple[str, int, PartPieces]], piece_length: int) -> list[dict[bytes, Any]]:
    """List the files of version 1, a padding file after each one that does not end at a piece boundary.

    Source: libtorrent src/create_torrent.cpp; the one file of a torrent is not padded.
    """
    listed: list[dict[bytes, Any]] = []
    for file_name, size, _ in files:
        listed.append({b"length": size, b"path": [file_name.encode()]})
        padding = -size % piece_length
        if padding and len(files) > 1:
            listed.append({b"attr": b"p", b"length": padding, b"path": [b".pad", str(padding).encode()]})
    return listed


def _v1_pieces(files: Sequence[tuple[str, int, PartPieces]]) -> bytes:
    if len(files) == 1:
        only = files[0][2]
        return only.v1_pieces[: -len(only.v1_last_unpadded)] + only.v1_last_unpadded
    return b"".join(pieces.v1_pieces for _, _, pieces in files)


def _checked_web_seed(url: str) -> str:
    # libtorrent appends the path to the end of the URL, so a signed URL's query would swallow it.
    if not url.startswith(("https://", "http://")) or not url.endswith("/") or "?" in url or "#" in url:
        raise InvalidInputError(
            problem="a web seed is a plain http(s) URL that ends in a slash", where=shown_url(url), remedy="Signed URLs can't be web seeds."
        )
    return url


def _read_back(data: bytes, name: str, piece_length: int) -> TorrentFile:
    parsed = import_libtorrent().load_torrent_buffer(data).ti
    hashes = parsed.info_hashes()
    assert hashes.has_v1() and hashes.has_v2() and parsed.name() == name and parsed.piece_length() == piece_length, name
    return TorrentFile(data, name, piece_length, hashes.v1.to_bytes(), hashes.v2.to_bytes())
