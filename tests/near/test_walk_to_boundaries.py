"""The walk to boundaries: the nodes that the merged edges give, each checked by its hash, and read once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.kernel.choice import choose_kernel
from pipelines.near.node.node_columns import STATE
from pipelines.near.node.rocksdb_reader import forget_readers
from pipelines.near.trie.walk_to_boundaries import walk_to_boundaries
from schemas.errors import MalformedNodeError, MissingTrieValueError
from schemas.ids import CryptoHash
from tests.support.nodes import change_rows
from tests.support.records import Pairs, build_ranges, cut_pairs, record_sets
from tests.support.state_rows import SHARD_UID, node_of, state_column, state_rows

PAIRS: Pairs = [(bytes([number // 16, number % 16 * 17]), bytes([number])) for number in range(200)]


@given(pairs=record_sets(), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_the_walk_gives_what_the_merged_edges_give(tmp_path_factory: pytest.TempPathFactory, pairs: Pairs, cuts: list[int]) -> None:
    """For the first key of every key range, however the records are cut."""
    ranges = cut_pairs(pairs, cuts)
    sealed = choose_kernel("auto").seal([build.edge for build in build_ranges(choose_kernel("auto"), ranges)])
    folder = tmp_path_factory.mktemp("trie")
    home, (root,) = node_of(folder, pairs)
    try:
        walked = walk_to_boundaries(state_column(home), root, [one.pairs[0][0] for one in ranges])
    finally:
        forget_readers()
        shutil.rmtree(folder)
    assert root == sealed.state_root
    assert walked.memory_usage == sealed.memory_usage
    assert [sorted(nodes) for nodes in walked.boundary_nodes] == [sorted(nodes) for nodes in sealed.boundary_nodes]
    assert all(len(set(nodes)) == len(nodes) for nodes in walked.boundary_nodes)


def test_nodes_that_paths_share_are_read_once(tmp_path: Path) -> None:
    """Two keys under one branch: the way to it counts once."""
    home, (root,) = node_of(tmp_path, PAIRS)
    column = state_column(home)
    one, other = PAIRS[100][0], PAIRS[101][0]
    both = walk_to_boundaries(column, root, [one, other])
    assert both.rows == len({node for nodes in both.boundary_nodes for node in nodes})
    assert both.rows < sum(walk_to_boundaries(column, root, [key]).rows for key in (one, other))


@pytest.mark.parametrize("key", [b"", b"\x00", b"\x05\x11\x00", b"\x05\x12", b"\xff"])
def test_a_key_that_is_not_in_the_trie_is_refused(tmp_path: Path, key: bytes) -> None:
    """Shorter and longer than a key that is, beside one, and behind all."""
    home, (root,) = node_of(tmp_path, PAIRS)
    with pytest.raises(MissingTrieValueError, match="is not in the trie of state root"):
        walk_to_boundaries(state_column(home), root, [PAIRS[3][0], key])


def test_a_root_that_the_node_lacks_is_refused(tmp_path: Path) -> None:
    """The node has dropped the epoch."""
    home, _ = node_of(tmp_path, PAIRS)
    with pytest.raises(MissingTrieValueError, match="not in the State column"):
        walk_to_boundaries(state_column(home), CryptoHash(b"\x07" * 32), [PAIRS[0][0]])


def test_a_row_that_does_not_hash_is_refused(tmp_path: Path) -> None:
    """Every node on a path, spoiled in turn."""
    home, (root,) = node_of(tmp_path, PAIRS)
    key = PAIRS[120][0]
    (nodes,) = walk_to_boundaries(state_column(home), root, [key]).boundary_nodes
    assert len(nodes) > 10
    for node in nodes:
        ((row_key, row),) = state_rows([node]).items()
        forget_readers()
        change_rows(home / "data", STATE, {row_key: bytes([row[0] ^ 1]) + row[1:]})
        with pytest.raises(MissingTrieValueError, match="does not hash"):
            walk_to_boundaries(state_column(home), root, [key])
        forget_readers()
        change_rows(home / "data", STATE, {row_key: row})


def test_bytes_that_hash_but_are_no_node_are_refused(tmp_path: Path) -> None:
    """A trusted root that is no root: the hash of a value."""
    home, _ = node_of(tmp_path, PAIRS)
    ((row_key, row),) = state_rows([b"\x09no node"]).items()
    change_rows(home / "data", STATE, {row_key: row})
    with pytest.raises(MalformedNodeError):
        walk_to_boundaries(state_column(home), CryptoHash(row_key[len(SHARD_UID.to_bytes()) :]), [b"key"])
