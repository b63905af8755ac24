"""NEAR's Merkle tree: roots of lists and paths of items.

A leaf is the sha256 of an item's borsh bytes, a parent the sha256 of its children's hashes; an odd node moves up unchanged.

Source: nearcore core/primitives/src/merkle.rs, merklize, verify_hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas.ids import ZERO_HASH, CryptoHash
from schemas.nearcore.borsh import BorshReader

PATH_ITEMS_MAX: Final = 64
"""Longest path that is taken: a tree of 2**64 items."""


@dataclass(frozen=True, slots=True)
class MerklePathItem:
    """The sibling of a node on the way up."""

    hash: CryptoHash
    is_left: bool
    """The sibling is the left child."""


def combine_hash(left: bytes, right: bytes) -> CryptoHash:
    """Return the hash of a node with two children."""
    return CryptoHash(hashlib.sha256(left + right).digest())


def merkle_root(items: Sequence[bytes]) -> CryptoHash:
    """Return the root over items given as borsh bytes; zeros for none."""
    level = [CryptoHash(hashlib.sha256(item).digest()) for item in items]
    while len(level) > 1:
        pairs = [combine_hash(level[index], level[index + 1]) for index in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0] if level else ZERO_HASH


def path_root(item: bytes, path: Sequence[MerklePathItem]) -> CryptoHash:
    """Return the root that an item and its path lead to."""
    node = CryptoHash(hashlib.sha256(item).digest())
    for step in path:
        node = combine_hash(step.hash, node) if step.is_left else combine_hash(node, step.hash)
    return node


def read_merkle_path(reader: BorshReader) -> tuple[MerklePathItem, ...]:
    """Take a path: a vec of hash and direction (0 left, 1 right).

    Raises:
        IntegrityError: the reader's class, on malformed bytes.
    """
    return tuple(reader.vec(lambda: MerklePathItem(CryptoHash(reader.fixed(32)), is_left=not reader.flag()), 33, PATH_ITEMS_MAX))
