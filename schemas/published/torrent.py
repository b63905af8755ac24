"""Piece hashes of one file, as a BitTorrent torrent of both versions (hybrid) needs them: a pure function of bytes.

Version 1 hashes each piece with SHA-1. In a hybrid torrent every file begins at a piece boundary, so the last piece of a file is
filled up with zero bytes; only where a file is the torrent's single one is its last piece hashed as it is. Version 2 hashes 16 KiB
leaf blocks with SHA-256 into a binary tree a file; the layer of that tree whose nodes cover one piece each is the *piece layer*.

Source: BEP 3, BEP 47 (padding files), BEP 52. Building a torrent out of these is `pipelines.bittorrent.torrents`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from schemas.published.object_layout import NUM_PARTS_MAX

LEAF_BYTES = 16 << 10
"""A leaf of version 2's tree; also the smallest piece."""

PIECE_BYTES_MAX = 4 << 20
"""Largest piece used: about eight of them make a state part of nearcore's target size."""

PIECES_PER_PART_TARGET = 8
"""A part is about this many pieces, until pieces reach `PIECE_BYTES_MAX`."""

SHA256_BYTES = 32

_ZERO_LEAF = bytes(SHA256_BYTES)


@dataclass(frozen=True, slots=True)
class PartPieces:
    """The piece hashes of one file, some 50 bytes a piece."""

    size: int
    piece_length: int
    v1_pieces: bytes
    """SHA-1 of each piece, 20 bytes each, the last piece filled up with zeros."""
    v1_last_unpadded: bytes
    """SHA-1 of the last piece without the filling; empty for an empty file."""
    v2_piece_layer: bytes
    """Node of each piece in version 2's tree, 32 bytes each."""
    v2_root: bytes
    """``pieces root``: the root of version 2's tree; empty for an empty file."""


def piece_length_for(memory_usage: int, num_parts: int) -> int:
    """Return the piece length of a shard's torrent.

    It follows from the shard statement alone, so it is known before the first part is built, and every producer of a shard comes
    to the same torrent: the smallest power of two of at least `LEAF_BYTES` that takes an average part's memory usage in at most
    `PIECES_PER_PART_TARGET` pieces, and at most `PIECE_BYTES_MAX`.

    Args:
        memory_usage: the state root's.
        num_parts: at least 1.
    """
    assert 1 <= num_parts <= NUM_PARTS_MAX, num_parts
    piece_length = LEAF_BYTES
    while piece_length < PIECE_BYTES_MAX and piece_length * PIECES_PER_PART_TARGET * num_parts < memory_usage:
        piece_length *= 2
    return piece_length


def piece_hashes(data: bytes | bytearray | memoryview, piece_length: int) -> PartPieces:
    """Hash a file's bytes for both versions; reads them twice and copies nothing.

    Args:
        piece_length: bytes; a power of two, at least `LEAF_BYTES`.
    """
    assert piece_length >= LEAF_BYTES and piece_length & (piece_length - 1) == 0, piece_length
    view = memoryview(data).cast("B")
    v1_pieces, layer, v1_last_unpadded = bytearray(), [], b""
    for start in range(0, view.nbytes, piece_length):
        piece = view[start : start + piece_length]
        digest = hashlib.sha1(piece, usedforsecurity=False)
        v1_last_unpadded = digest.digest()
        digest.update(bytes(piece_length - piece.nbytes))
        v1_pieces += digest.digest()
        layer.append([hashlib.sha256(piece[leaf : leaf + LEAF_BYTES]).digest() for leaf in range(0, piece.nbytes, LEAF_BYTES)])

    leaves_per_piece = piece_length // LEAF_BYTES
    if not layer:
        return PartPieces(0, piece_length, b"", b"", b"", b"")
    if len(layer) == 1:
        # A file of one piece has a tree just high enough for its leaves.
        root = _root(layer[0], _ZERO_LEAF, _next_power_of_two(len(layer[0])))
        nodes = [root]
    else:
        nodes = [_root(leaves, _ZERO_LEAF, leaves_per_piece) for leaves in layer]
        root = _root(nodes, _root([], _ZERO_LEAF, leaves_per_piece), _next_power_of_two(len(nodes)))
    return PartPieces(view.nbytes, piece_length, bytes(v1_pieces), v1_last_unpadded, b"".join(nodes), root)


def _root(nodes: list[bytes], filling: bytes, width: int) -> bytes:
    """Return the root of a binary tree over ``width`` nodes (a power of two), missing ones taken as ``filling``."""
    while width > 1:
        if len(nodes) % 2:
            nodes = [*nodes, filling]
        nodes = [hashlib.sha256(nodes[i] + nodes[i + 1]).digest() for i in range(0, len(nodes), 2)]
        filling = hashlib.sha256(filling + filling).digest()
        width //= 2
    return nodes[0] if nodes else filling


def _next_power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
