"""Parents of shards out of a node's database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.near.epoch.node_context import epoch_context_from_node, open_node
from pipelines.near.node.node_columns import CHUNK_EXTRA, EPOCH_INFO, FLAT_STORAGE_STATUS, STATE_SHARD_UID_MAPPING
from pipelines.near.node.rocksdb_reader import RocksDbReader
from schemas.errors import InvalidInputError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.borsh import BorshWriter
from schemas.nearcore.epoch_context import EpochContext, parse_epoch_context
from schemas.nearcore.shard_layout import shard_layout_from_json
from tests.support.nodes import LOCALNET_EPOCH_ID, change_rows, context_file, drop_column, localnet_home, node_a, tree


def parents(context: EpochContext) -> dict[str, str]:
    """Return the parents that a context names, by shard uid."""
    return {str(shard.shard_uid): str(shard.parent_shard_uid) for shard in context.shards if shard.parent_shard_uid is not None}


def map_shards(home: Path, mapping: dict[str, str]) -> None:
    """Write StateShardUIdMapping."""
    rows: dict[bytes, bytes | None] = {ShardUId.parse(uid).to_bytes(): ShardUId.parse(origin).to_bytes() for uid, origin in mapping.items()}
    change_rows(home / "data", STATE_SHARD_UID_MAPPING, rows)


def test_a_given_context_gets_the_parent_of_a_split_shard() -> None:
    """The node's epoch columns are empty, but it knows under whose prefix the shard's State rows lie."""
    before = tree(node_a())
    with open_node(node_a()) as node:
        filled = node.with_parents(context_file(node_a()))
        assert parents(filled) == {"s90.v4": "s0.v3"}
        assert node.with_parents(filled) == filled
    assert tree(node_a()) == before


def test_shards_that_were_never_split_have_no_parent() -> None:
    """As on the real chain of the localnet."""
    assert parents(epoch_context_from_node(localnet_home())) == {}


def test_the_mapping_names_parents(home: Path) -> None:
    """Of the epoch's shards; a shard that is mapped to itself has none."""
    map_shards(home, {"s1.v0": "s7.v0", "s2.v0": "s7.v0", "s3.v0": "s3.v0"})
    assert parents(epoch_context_from_node(home)) == {"s1.v0": "s7.v0", "s2.v0": "s7.v0"}


def test_where_a_shard_was_split_in_between_the_parent_is_left_open(home: Path) -> None:
    """Its State rows lie under the grandparent's prefix, which is then no evidence."""
    map_shards(home, {"s1.v0": "s7.v0", "s2.v0": "s7.v0", "s9.v0": "s7.v0", "s3.v0": "s8.v0"})
    assert parents(epoch_context_from_node(home)) == {"s3.v0": "s8.v0"}


def test_a_database_without_the_mapping_names_none(home: Path) -> None:
    """Those of before resharding without copies."""
    expected = epoch_context_from_node(home)
    drop_column(home / "data", STATE_SHARD_UID_MAPPING)
    assert epoch_context_from_node(home) == expected


def epoch_info_v5(layout_version: int) -> bytes:
    """Return an EpochInfo of V5 whose layout has the localnet's shards, two of them split off shard 9."""
    writer = BorshWriter().u8(4).u64(6)
    # validators, their indices, settlements, stake changes, rewards, kickouts
    for _ in range(7):
        writer.u32(0)
    writer.u128(0).u128(0).u32(74)
    writer.u8(2).u32(3)
    for account in (b"9f", b"bb", b"tt"):
        writer.byte_vec(account)
    writer.u32(4)
    for shard_id in (3, 1, 0, 2):
        writer.u64(shard_id)
    writer.u32(0).u32(0)
    writer.u8(1).u32(3)
    for parent, children in ((0, [0]), (2, [2]), (9, [3, 1])):
        writer.u64(parent).u32(len(children))
        for child in children:
            writer.u64(child)
    return writer.u8(0).u32(layout_version).to_bytes()


def test_the_layout_of_an_epoch_says_it_best(home: Path) -> None:
    """Where EpochInfo holds one, it is believed before the mapping."""
    map_shards(home, {"s1.v0": "s7.v0", "s3.v0": "s7.v0", "s0.v0": "s8.v0"})
    change_rows(home / "data", EPOCH_INFO, {CryptoHash.from_base58(LOCALNET_EPOCH_ID): epoch_info_v5(0)})
    assert parents(epoch_context_from_node(home)) == {"s0.v0": "s8.v0", "s1.v0": "s9.v0", "s3.v0": "s9.v0"}


def test_the_layout_of_an_epoch_tells_shard_uids(home: Path) -> None:
    """Where the node kept nothing of the block."""
    with RocksDbReader(home / "data", (CHUNK_EXTRA, FLAT_STORAGE_STATUS)) as reader:
        rows = {
            column: [key for step in reader.scan(column, b"", None) for key, _ in step] for column in (CHUNK_EXTRA, FLAT_STORAGE_STATUS)
        }
    for column, keys in rows.items():
        change_rows(home / "data", column, dict.fromkeys(keys))
    change_rows(home / "data", EPOCH_INFO, {CryptoHash.from_base58(LOCALNET_EPOCH_ID): epoch_info_v5(3)})
    context = epoch_context_from_node(home, LOCALNET_EPOCH_ID)
    assert [str(shard.shard_uid) for shard in context.shards] == ["s0.v3", "s1.v3", "s2.v3", "s3.v3"]
    assert context.shard_layout is not None
    assert set(context.shard_layout.shard_uids) == {shard.shard_uid for shard in context.shards}
    assert parents(context) == {"s1.v3": "s9.v3", "s3.v3": "s9.v3"}


def test_the_shard_layout_is_the_epochs_or_the_genesis_files(home: Path) -> None:
    """The genesis file's as long as the epoch has its shards; without parents, which the shards name."""
    genesis = json.loads((home / "genesis.json").read_text())
    layout = shard_layout_from_json(genesis["shard_layout"], "genesis")
    assert epoch_context_from_node(home).shard_layout == layout.assignment
    genesis["shard_layout"]["V2"]["version"] = 7
    (home / "genesis.json").write_text(json.dumps(genesis))
    assert epoch_context_from_node(home).shard_layout is None


def test_a_context_file_may_name_the_shard_layout() -> None:
    """It comes back; a shard that it does not have is the user's to mend."""
    document = json.loads((node_a() / "context.json").read_text())
    assert "shard_layout" not in parse_epoch_context(json.dumps(document), "test").to_json()
    document["shards"] = document["shards"][:2]
    document["shard_layout"] = {"V2": {"boundary_accounts": ["b", "c"], "shard_ids": [0, 5, 9], "version": 3}}
    context = parse_epoch_context(json.dumps(document), "test")
    assert context.shard_layout is not None
    assert parse_epoch_context(json.dumps(context.to_json()), "test") == context
    for change in ({"version": 4}, {"shard_ids": [0, 6, 9]}):
        changed = {**document, "shard_layout": {"V2": {**document["shard_layout"]["V2"], **change}}}
        with pytest.raises(InvalidInputError, match="is not in the shard layout"):
            parse_epoch_context(json.dumps(changed), "test")


def test_a_context_file_may_name_parents() -> None:
    """And writes them as it reads them; what names none is as it was."""
    document = json.loads((node_a() / "context.json").read_text())
    assert all("parent_shard_uid" not in shard for shard in parse_epoch_context(json.dumps(document), "test").to_json()["shards"])
    document["shards"][2]["parent_shard_uid"] = "s5.v3"
    context = parse_epoch_context(json.dumps(document), "test")
    assert parents(context) == {"s90.v4": "s5.v3"}
    assert parse_epoch_context(json.dumps(context.to_json()), "test") == context
    with open_node(node_a()) as node:
        assert node.with_parents(context) == context
