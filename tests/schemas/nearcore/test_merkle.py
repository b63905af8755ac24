"""NEAR's Merkle trees."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import ZERO_HASH, CryptoHash
from schemas.nearcore.borsh import BorshReader, BorshWriter
from schemas.nearcore.merkle import MerklePathItem, combine_hash, merkle_root, path_root, read_merkle_path


def leaf(item: bytes) -> CryptoHash:
    """Return the hash of a leaf."""
    return CryptoHash(sha256(item).digest())


def test_a_list_of_nothing_has_the_zero_root() -> None:
    """As nearcore has it."""
    assert merkle_root([]) == ZERO_HASH


def test_an_odd_item_moves_up_unchanged() -> None:
    """Five items: the fifth meets the root of the first four."""
    items = [bytes([index]) for index in range(5)]
    left = combine_hash(combine_hash(leaf(items[0]), leaf(items[1])), combine_hash(leaf(items[2]), leaf(items[3])))
    assert merkle_root(items) == combine_hash(left, leaf(items[4]))


def path_of(items: list[bytes], index: int) -> list[MerklePathItem]:
    """Return an item's path, built level by level."""
    level = [leaf(item) for item in items]
    path = []
    while len(level) > 1:
        if index ^ 1 < len(level):
            path.append(MerklePathItem(level[index ^ 1], is_left=bool(index & 1)))
        level = [combine_hash(*level[i : i + 2]) if i + 1 < len(level) else level[i] for i in range(0, len(level), 2)]
        index //= 2
    return path


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=20), st.data())
def test_paths_lead_to_the_root(items: list[bytes], data: st.DataObject) -> None:
    """Every item's path, also through borsh."""
    index = data.draw(st.integers(0, len(items) - 1))
    path = path_of(items, index)
    writer = BorshWriter().u32(len(path))
    for step in path:
        writer.fixed(step.hash).u8(0 if step.is_left else 1)
    assert path_root(items[index], read_merkle_path(BorshReader(writer.to_bytes()))) == merkle_root(items)
