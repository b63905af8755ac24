"""What blocks did to a shard, out of the real node's StateChanges, and what is said when that is gone."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node.node_columns import BLOCK_HEADER, CHUNK_EXTRA, STATE, STATE_CHANGES
from pipelines.near.node.node_home import read_node_home
from pipelines.near.node.rocksdb_reader import RocksDbReader
from pipelines.near.trie.changed_records import BlockChanges, KindFilter, find_known_layout
from pipelines.near.trie.walk_difference import trie_difference
from schemas.errors import SnapshotMismatchError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from tests.support.nodes import change_rows, copied, localnet_home, new_database, node_a
from tests.support.state_rows import state_column

OLDER, NEWER = 4, 6


def context(height: int) -> EpochContext:
    """Return an epoch of the real node."""
    return epoch_context_from_node(localnet_home(), str(height))


def block_changes(home: Path, shard: ShardContext) -> BlockChanges:
    """Return the changes up to a shard's block."""
    node = read_node_home(home)
    layout = find_known_layout(node, frozenset(one.shard_uid for one in context(NEWER).shards))
    assert layout is not None
    return BlockChanges(node, shard, layout)


def earlier_block(shard: ShardContext) -> CryptoHash:
    """Return the block of the older epoch's state."""
    block = context(OLDER).shard(shard.shard_id).flat_head_target
    assert block is not None
    return block


@pytest.mark.parametrize("shard_id", [0, 1, 2, 3])
def test_blocks_changes_are_the_difference_of_the_tries(shard_id: int) -> None:
    """Over eighty blocks of the real node, each shard's own keys and values."""
    shard = context(NEWER).shard(shard_id)
    changes = block_changes(localnet_home(), shard)
    blocks = changes.blocks_since(earlier_block(shard))
    merged = {key: value for block in blocks for key, value in changes.changes(block)}
    column = state_column(localnet_home(), shard.shard_uid)
    old_root, new_root = context(OLDER).shard(shard_id).state_root, shard.state_root
    assert old_root is not None and new_root is not None
    found = trie_difference(column, old_root, new_root, lambda prefix: True)
    differing = {key: None if leaf is None else column.read([leaf.value_hash])[0] for key, leaf in found}
    assert differing
    # A key that was changed and changed back is in the blocks' changes alone.
    assert {key: merged[key] for key in differing} == differing


def changed_block(shard: ShardContext) -> tuple[CryptoHash, CryptoHash]:
    """Return a block that changed a shard, and the block before it."""
    changes = block_changes(localnet_home(), shard)
    blocks = [earlier_block(shard), *changes.blocks_since(earlier_block(shard))]
    return next((before, block) for before, block in itertools.pairwise(blocks) if changes.changes(block))


def rows_of(block: CryptoHash) -> dict[bytes, bytes | None]:
    """Return the removal of a block's StateChanges rows."""
    with RocksDbReader(localnet_home() / "data", (STATE_CHANGES,)) as reader:
        return {key: None for rows in reader.scan(STATE_CHANGES, block, block + b"\xff" * 99) for key, _ in rows}


def test_a_block_whose_changes_are_gone_is_named(tmp_path: Path) -> None:
    """The state roots around it tell that it did something."""
    home = copied(localnet_home(), tmp_path)
    shard = context(NEWER).shards[0]
    before, block = changed_block(shard)
    change_rows(home / "data", STATE_CHANGES, rows_of(block))
    changes = block_changes(home, shard)
    assert changes.changes(block) == []
    with pytest.raises(SnapshotMismatchError, match=str(block)):
        changes.check_kept(before, block)


def test_a_block_that_did_nothing_needs_no_changes() -> None:
    """Most blocks of a quiet shard; and a node that can't tell has no objection."""
    shard = context(NEWER).shards[3]
    changes = block_changes(localnet_home(), shard)
    blocks = [earlier_block(shard), *changes.blocks_since(earlier_block(shard))]
    quiet = [(before, block) for before, block in itertools.pairwise(blocks) if not changes.changes(block)]
    assert len(quiet) > 20
    for before, block in quiet:
        changes.check_kept(before, block)
    changes.check_kept(CryptoHash(b"\1" * 32), CryptoHash(b"\2" * 32))


def test_a_header_that_is_gone_is_named(tmp_path: Path) -> None:
    """The way back from block to block ends there."""
    home = copied(localnet_home(), tmp_path)
    shard = context(NEWER).shards[0]
    gone = block_changes(localnet_home(), shard).blocks_since(earlier_block(shard))[10]
    change_rows(home / "data", BLOCK_HEADER, {gone: None})
    with pytest.raises(SnapshotMismatchError, match=str(gone)):
        block_changes(home, shard).blocks_since(earlier_block(shard))


def test_a_block_that_is_no_ancestor_is_refused() -> None:
    """The way ends at the chain's beginning."""
    with pytest.raises(SnapshotMismatchError):
        block_changes(localnet_home(), context(NEWER).shards[0]).blocks_since(CryptoHash(b"\1" * 32))


def test_an_archival_nodes_cold_store_has_the_older_blocks(tmp_path: Path) -> None:
    """Headers and changes come from wherever they are."""
    home = copied(localnet_home(), tmp_path)
    shard = context(NEWER).shards[0]
    _, block = changed_block(shard)
    with RocksDbReader(home / "data", (BLOCK_HEADER, STATE_CHANGES, CHUNK_EXTRA)) as reader:
        header = reader.get(BLOCK_HEADER, block)
        assert header is not None
        moved = {key: row for rows in reader.scan(STATE_CHANGES, block, block + b"\xff" * 99) for key, row in rows}
    new_database(home / "cold", {BLOCK_HEADER: {block: header}, STATE_CHANGES: moved, CHUNK_EXTRA: {}, STATE: {}})
    change_rows(home / "data", STATE_CHANGES, dict.fromkeys(moved))
    change_rows(home / "data", BLOCK_HEADER, {block: None})
    config = json.loads((home / "config.json").read_text())
    (home / "config.json").write_text(json.dumps({**config, "cold_store": {"path": "cold"}}))
    here, there = block_changes(home, shard), block_changes(localnet_home(), shard)
    assert here.blocks_since(earlier_block(shard)) == there.blocks_since(earlier_block(shard))
    assert here.changes(block) == there.changes(block) != []


def test_a_layout_of_other_shards_is_not_used() -> None:
    """After a resharding the genesis file no longer tells; without one nothing does."""
    shards = frozenset(one.shard_uid for one in context(NEWER).shards)
    node = read_node_home(localnet_home())
    assert find_known_layout(node, shards | {ShardUId(version=0, shard_id=9)}) is None
    assert find_known_layout(node, frozenset(list(shards)[1:])) is None
    assert find_known_layout(read_node_home(node_a()), shards) is None


@pytest.mark.parametrize(("prefix", "expected"), [(b"", True), (b"\0", True), (b"\1", False), (b"\0\x09", True), (b"\0\x08\x01", False)])
def test_kinds_are_told_by_the_first_byte(prefix: bytes, expected: bool) -> None:
    """Half a byte leads to either."""
    assert KindFilter(frozenset({9}))(prefix) is expected
