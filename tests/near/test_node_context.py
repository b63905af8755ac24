"""The epoch context out of a node's database."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from pipelines.near.epoch.node_context import (
    epoch_context_from_node,
    list_epochs,
    open_node,
)
from pipelines.near.epoch.node_shards import location_failure
from pipelines.near.node.node_columns import BLOCK, BLOCK_HEADER, EPOCH_START, FLAT_STORAGE_STATUS, STATE_SYNC_HASHES
from pipelines.near.node.node_home import read_node_home
from pipelines.near.node.rocksdb_reader import RocksDbReader
from pipelines.near.trie.trie_walk_source import StateWalk
from pipelines.producing.watch.watch_poll import look_at_node
from schemas.errors import ColumnMissingError, EpochNotReadyError, IntegrityError, InvalidInputError, SourceError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.block import decode_block_header
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.flat_storage import FlatBlock, encode_ready_status
from tests.support.nodes import (
    LOCALNET_EPOCH_HEIGHT,
    LOCALNET_EPOCH_ID,
    change_rows,
    check_context_against_node,
    context_file,
    drop_column,
    localnet,
    localnet_home,
    node_a,
    snapshot_folder,
    tree,
)


@pytest.fixture(scope="module")
def context() -> EpochContext:
    """The newest epoch's context."""
    return epoch_context_from_node(localnet_home())


def row(column: str, key: bytes) -> bytes:
    """Return a row of the real node."""
    with RocksDbReader(localnet_home() / "data", (column,)) as reader:
        found = reader.get(column, key)
    assert found is not None
    return found


def rpc_answers(method: str) -> list[dict[str, object]]:
    """Return the real node's answers to a method."""
    calls = json.loads(gzip.decompress((localnet() / "rpc.json.gz").read_bytes()))
    return [call["result"] for call in calls if call["method"] == method and "result" in call]


def test_the_newest_epoch_is_found_with_all_its_shards(context: EpochContext) -> None:
    """Epoch, chain, shards and what flat state must stand at."""
    assert (context.chain_id, context.epoch_height, str(context.epoch_id)) == ("test-chain-klplt", LOCALNET_EPOCH_HEIGHT, LOCALNET_EPOCH_ID)
    assert context.protocol_version == 74
    assert [str(shard.shard_uid) for shard in context.shards] == ["s0.v0", "s1.v0", "s2.v0", "s3.v0"]
    assert {str(shard.flat_head_target) for shard in context.shards} == {snapshot_folder(localnet_home()).parent.name}


def test_its_block_headers_chain_to_the_sync_hash(context: EpochContext) -> None:
    """The sync block's header and its parent's are there for readers that trust the sync hash alone."""
    sync_block, parent = (decode_block_header(data, "context") for data in context.block_headers)
    assert sync_block.hash == context.sync_hash
    assert sync_block.prev_hash == parent.hash


def test_state_roots_are_those_of_the_nodes_json_rpc() -> None:
    """For the epoch before, whose blocks the answers hold, chunk headers say the same."""
    older = epoch_context_from_node(localnet_home(), "5")
    blocks = {answer["header"]["hash"]: answer for answer in rpc_answers("block")}  # type: ignore[index]
    parent = decode_block_header(older.block_headers[1], "context")
    chunks = {chunk["shard_id"]: chunk for chunk in blocks[str(parent.hash)]["chunks"]}  # type: ignore[attr-defined]
    assert {shard.shard_id: str(shard.state_root) for shard in older.shards} == {
        shard_id: chunk["prev_state_root"] for shard_id, chunk in chunks.items()
    }


def test_selectors_name_the_same_epoch(context: EpochContext) -> None:
    """latest, its height and its id are one."""
    for selector in (str(LOCALNET_EPOCH_HEIGHT), LOCALNET_EPOCH_ID, "latest"):
        assert epoch_context_from_node(localnet_home(), selector) == context


@pytest.mark.parametrize(
    "selector",
    ["99", "7", "9EUEcC4j3nZAp5tDwK9SWCuSqBMSxVmPh2Pf5FoD6Jp7", "11111111111111111111111111111111", "11111111111111111111111111111112"],
)
def test_an_epoch_that_is_unknown_or_has_no_sync_hash_is_not_ready(selector: str) -> None:
    """The epochs that could be had are named."""
    with pytest.raises(EpochNotReadyError, match=rf"6 \({LOCALNET_EPOCH_ID}\)"):
        epoch_context_from_node(localnet_home(), selector)


def test_another_form_of_selector_is_refused() -> None:
    """Neither a height nor base58."""
    with pytest.raises(InvalidInputError):
        epoch_context_from_node(localnet_home(), "newest!")


def test_epochs_are_listed_by_height() -> None:
    """All EpochInfo rows are there, with the sync hash where the node has it."""
    epochs = list_epochs(localnet_home()).epochs
    assert [epoch.epoch_height for epoch in epochs] == [1, 1, 2, 3, 4, 5, 6, 7]
    assert [epoch.epoch_height for epoch in epochs if epoch.sync_hash] == [5, 6]


def test_a_database_without_epochs_asks_for_a_context_file() -> None:
    """Its block and epoch columns are empty."""
    with pytest.raises(EpochNotReadyError, match="--context"):
        epoch_context_from_node(node_a())
    assert list_epochs(node_a()).epochs == ()


def test_reading_the_context_changes_nothing_in_the_home(home: Path) -> None:
    """Names, sizes and times of all files are the same before and after."""
    before = tree(home)
    check_context_against_node(epoch_context_from_node(home), home)
    assert tree(home) == before


def test_latest_is_the_newest_epoch_that_can_be_had(home: Path) -> None:
    """Without a snapshot, and with a hot store that has moved on, none can be from flat state; by a walk over the State column it can."""
    (home / "data" / "state_snapshot").rename(home / "elsewhere")
    moved = encode_ready_status(FlatBlock(CryptoHash(b"\7" * 32), 10_000, CryptoHash(bytes(32))))
    uids = [ShardUId(version=0, shard_id=shard_id) for shard_id in range(4)]
    change_rows(home / "data", FLAT_STORAGE_STATUS, {uid.to_bytes(): moved for uid in uids})
    with pytest.raises(EpochNotReadyError, match="flat state of none"):
        epoch_context_from_node(home)
    assert epoch_context_from_node(home, "6").epoch_height == 6
    with open_node(home, StateWalk.AUTO) as node:
        assert node.epoch_context().epoch_height == 6
        assert re.match(r"epoch 6, by a walk over the State column, is the newest that can be had; epoch 6: .*; epoch 5: ", node.note)


def test_a_state_snapshot_alone_has_no_objection_to_a_context(tmp_path: Path) -> None:
    """What the context says is not asked of it; it tells nothing of epochs."""
    copied_snapshot = tmp_path / "home"
    shutil.copytree(snapshot_folder(localnet_home()), copied_snapshot / "data")
    drop_column(copied_snapshot / "data", EPOCH_START)
    context = epoch_context_from_node(localnet_home())
    check_context_against_node(context, copied_snapshot)
    with open_node(copied_snapshot) as node:
        assert [shard.shard_uid for shard in node.with_parents(context).shards] == [shard.shard_uid for shard in context.shards]
    with pytest.raises(ColumnMissingError, match=r"no column family .*--context"):
        epoch_context_from_node(copied_snapshot)


def test_latest_is_had_from_flat_state_where_it_can_be(home: Path) -> None:
    """That is what a node makes its snapshots for; nothing need be said then."""
    with open_node(home, StateWalk.AUTO) as node:
        assert node.epoch_context().epoch_height == 6
        assert not node.note


# what does not hash


def flip(data: bytes, position: int) -> bytes:
    """Return bytes with one bit changed."""
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("which", [0, 1], ids=["sync block", "its parent"])
def test_a_changed_header_is_found(home: Path, context: EpochContext, which: int) -> None:
    """Block hashes are recomputed."""
    header = decode_block_header(context.block_headers[which], "context")
    change_rows(home / "data", BLOCK_HEADER, {header.hash: flip(header.encoded, 40)})
    with pytest.raises(IntegrityError, match=str(header.hash)):
        epoch_context_from_node(home, "6")


def test_a_changed_chunk_header_is_found(home: Path, context: EpochContext) -> None:
    """A state root that the block's chunk_headers_root does not commit to is never returned."""
    parent = decode_block_header(context.block_headers[1], "context").hash
    block = row(BLOCK, parent)
    state_root = context.shards[0].state_root
    assert state_root is not None
    change_rows(home / "data", BLOCK, {parent: flip(block, block.index(state_root))})
    with pytest.raises(IntegrityError, match="Merkle root"):
        epoch_context_from_node(home, "6")


def test_a_sync_hash_of_another_epoch_is_found(home: Path, context: EpochContext) -> None:
    """The sync block must be of the epoch that it is filed under."""
    other = epoch_context_from_node(localnet_home(), "5").sync_hash
    change_rows(home / "data", STATE_SYNC_HASHES, {context.epoch_id: other})
    with pytest.raises(IntegrityError, match="is of epoch"):
        epoch_context_from_node(home, "6")


def test_a_missing_block_is_not_ready(home: Path, context: EpochContext) -> None:
    """A node that has dropped the blocks can't tell the state roots."""
    parent = decode_block_header(context.block_headers[1], "context").hash
    change_rows(home / "data", BLOCK, {parent: None})
    with pytest.raises(EpochNotReadyError, match=str(parent)):
        epoch_context_from_node(home, "6")


@pytest.mark.parametrize("has_column", [True, False])
def test_without_recorded_sync_hashes_an_epoch_that_is_named_is_worked_out(home: Path, has_column: bool) -> None:
    """From its blocks; whether the column is empty or, as in databases of before it, not there. Which is the newest is not said."""
    with RocksDbReader(home / "data", (STATE_SYNC_HASHES,)) as reader:
        keys = [key for rows in reader.scan(STATE_SYNC_HASHES, b"", None) for key, _ in rows]
    change_rows(home / "data", STATE_SYNC_HASHES, dict.fromkeys(keys))
    if not has_column:
        drop_column(home / "data", STATE_SYNC_HASHES)
    for height in ("5", "6"):
        assert epoch_context_from_node(home, height) == epoch_context_from_node(localnet_home(), height)
    with pytest.raises(EpochNotReadyError, match="no sync hash of any epoch"):
        epoch_context_from_node(home)


def test_a_missing_column_is_named(home: Path) -> None:
    """Without blocks nothing can be told."""
    drop_column(home / "data", BLOCK_HEADER)
    with pytest.raises(ColumnMissingError, match="BlockHeader"):
        epoch_context_from_node(home)


# the chain id


def test_a_genesis_file_is_read_no_further_than_its_records(home: Path, context: EpochContext) -> None:
    """Records may be gigabytes; what is behind their beginning is not looked at."""
    genesis = (home / "genesis.json").read_bytes()
    (home / "genesis.json").write_bytes(genesis[: genesis.index(b'"records"') + 200] + b"{{{ no JSON any more")
    assert epoch_context_from_node(home) == context


def test_a_home_without_a_genesis_file_is_refused(home: Path) -> None:
    """The chain id is nowhere else."""
    (home / "genesis.json").unlink()
    with pytest.raises(SourceError, match=r"genesis\.json"):
        epoch_context_from_node(home)
    (home / "config.json").unlink()
    with pytest.raises(SourceError, match="chain id"):
        epoch_context_from_node(home)


# a given context


def test_the_nodes_own_context_agrees(context: EpochContext) -> None:
    """What was read from the node passes, with some of its shards too."""
    check_context_against_node(context, localnet_home())
    check_context_against_node(context.only((2,)), localnet_home())


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("chain_id", lambda context: replace(context, chain_id="another")),
        ("epoch_height", lambda context: replace(context, epoch_height=7)),
        ("sync_hash", lambda context: replace(context, sync_hash=CryptoHash(sha256(b"").digest()))),
        ("protocol_version", lambda context: replace(context, protocol_version=75)),
        ("state_root", lambda context: replace(context, shards=(replace(context.shards[0], state_root=context.shards[1].state_root),))),
        ("flat_head_target", lambda context: replace(context, shards=(replace(context.shards[0], flat_head_target=context.sync_hash),))),
        ("shard_uid", lambda context: replace(context, shards=(replace(context.shards[0], shard_uid=ShardUId(version=1, shard_id=0)),))),
        ("shard 9", lambda context: replace(context, shards=(replace(context.shards[0], shard_uid=ShardUId(version=0, shard_id=9)),))),
        ("epoch_id", lambda context: replace(context, epoch_id=CryptoHash(sha256(b"").digest()))),
    ],
)
def test_a_context_that_the_node_contradicts_is_refused(
    context: EpochContext, field: str, change: Callable[[EpochContext], EpochContext]
) -> None:
    """Every field that the node knows must agree."""
    with pytest.raises(InvalidInputError, match=field.replace("chain_id", "chain").replace("epoch_id", "sync_hash")):
        check_context_against_node(change(context), localnet_home())


def test_a_node_that_knows_nothing_has_no_objection() -> None:
    """Its epoch columns are empty."""
    check_context_against_node(context_file(node_a()), node_a())


# polling


def test_the_newest_epoch_is_polled_without_building_its_context(context: EpochContext) -> None:
    """It is the one that latest means, and its flat state can be reached."""
    newest = look_at_node(localnet_home()).epochs[-1]
    assert (newest.epoch_height, newest.epoch_id, newest.sync_hash) == (context.epoch_height, context.epoch_id, context.sync_hash)
    assert epoch_context_from_node(localnet_home()) == context


def test_a_node_that_recorded_no_sync_hash_has_no_newest_epoch() -> None:
    """As before its first sync block."""
    assert look_at_node(node_a()).epochs == ()


def test_an_epoch_that_flat_state_has_passed_is_unreachable() -> None:
    """Its position is shown."""
    shard = epoch_context_from_node(localnet_home(), "5").shards[0]
    assert shard.flat_head_target is not None
    failure = location_failure(read_node_home(localnet_home()), shard.shard_uid, shard.flat_head_target)
    assert isinstance(failure, SourceError)
