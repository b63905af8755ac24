"""The sync hash worked out from blocks."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.near.epoch.node_context import epoch_context_from_node, list_epochs
from pipelines.near.epoch.sync_block import SYNC_BLOCK_COLUMNS, find_sync_block, find_sync_hash, is_final
from pipelines.near.node.node_columns import (
    BLOCK,
    BLOCK_HEADER,
    BLOCK_HEIGHT,
    BLOCK_MISC,
    EPOCH_START,
    STATE_SNAPSHOT_KEY,
    STATE_SYNC_HASHES,
)
from pipelines.near.node.rocksdb_reader import RocksDbReader
from schemas.errors import EpochNotReadyError, IntegrityError
from schemas.ids import ZERO_HASH, CryptoHash
from schemas.nearcore.block import BlockHeader, ChunkHeader, decode_block_header
from schemas.nearcore.rpc_block import read_rpc_header
from schemas.nearcore.rpc_reader import RpcReader
from schemas.nearcore.state_header import prove_state_root
from tests.support.nodes import change_rows, localnet, localnet_home


@pytest.fixture
def reader() -> Iterator[RocksDbReader]:
    """The real node's blocks."""
    with RocksDbReader(localnet_home() / "data", SYNC_BLOCK_COLUMNS) as opened:
        yield opened


def epoch_id(height: int) -> CryptoHash:
    """Return the real chain's last epoch of a height."""
    return next(epoch.epoch_id for epoch in reversed(list_epochs(localnet_home()).epochs) if epoch.epoch_height == height)


def test_it_is_the_one_that_the_node_recorded(reader: RocksDbReader) -> None:
    """For the epochs that StateSyncHashes has: the newest one's block is not final, but the node has made the snapshot for it."""
    recorded = [epoch for epoch in list_epochs(localnet_home()).epochs if epoch.sync_hash]
    assert len(recorded) == 2
    for epoch in recorded:
        assert find_sync_hash(reader, epoch.epoch_id, epoch.protocol_version) == epoch.sync_hash


@pytest.mark.parametrize("snapshot", [None, b"\7" * 32, b""], ids=["none", "another", "damaged"])
def test_without_its_snapshot_a_block_that_is_not_final_is_none(home: Path, snapshot: bytes | None) -> None:
    """That release of neard had recorded it without waiting."""
    _, newest = [epoch for epoch in list_epochs(localnet_home()).epochs if epoch.sync_hash]
    change_rows(home / "data", BLOCK_MISC, {STATE_SNAPSHOT_KEY: snapshot})
    with RocksDbReader(home / "data", SYNC_BLOCK_COLUMNS) as reader:
        assert find_sync_hash(reader, newest.epoch_id, newest.protocol_version) is None
        found = find_sync_block(header_blocks(reader, newest.epoch_id), newest.epoch_id, newest.protocol_version, "localnet")
    assert found is not None
    assert found.header.hash == newest.sync_hash


def header_blocks(reader: RocksDbReader, epoch_id: CryptoHash) -> Iterator[MaskedBlock]:
    """Yield the blocks of an epoch of the localnet, where no shard ever missed a chunk."""
    (height,) = struct.unpack("<Q", reader.get(EPOCH_START, epoch_id) or b"")
    while (block_hash := reader.get(BLOCK_HEIGHT, struct.pack("<Q", height))) is not None:
        row = reader.get(BLOCK_HEADER, block_hash)
        assert row is not None
        yield MaskedBlock(decode_block_header(row, "localnet", CryptoHash(block_hash)), (True,) * 4)
        height += 1


def test_headers_that_neard_dumped_earlier_prove_it() -> None:
    """Of an epoch that StateSyncHashes no longer has, neard's own headers lead to the block before the sync block that was found."""
    context = epoch_context_from_node(localnet_home(), "4")
    (headers,) = (localnet() / "dump").glob(f"*/epoch_height=4/epoch_id={context.epoch_id}/headers")
    for shard in context.shards:
        data = (headers / f"shard_id={shard.shard_id}" / "header").read_bytes()
        assert prove_state_root(data, context.sync_hash, context.block_headers, "dump").state_root == shard.state_root


def test_before_protocol_74_it_was_the_first_block(reader: RocksDbReader) -> None:
    """The rule of older epochs."""
    found = find_sync_hash(reader, epoch_id(4), 73)
    assert found == reader.get(BLOCK_HEIGHT, reader.get(EPOCH_START, epoch_id(4)) or b"")


def test_an_epoch_without_blocks_has_none(reader: RocksDbReader) -> None:
    """One that has not begun, and one that the node never heard of."""
    assert find_sync_hash(reader, epoch_id(7), 74) is None
    assert find_sync_hash(reader, CryptoHash(b"\1" * 32), 74) is None


def third_height(reader: RocksDbReader) -> int:
    """Return the height of the third block of epoch 4."""
    (start,) = struct.unpack("<Q", reader.get(EPOCH_START, epoch_id(4)) or b"")
    return int(start) + 2


def test_an_epoch_whose_blocks_are_gone_has_none(home: Path, reader: RocksDbReader) -> None:
    """Nothing is guessed where a block is missing."""
    block_hash = reader.get(BLOCK_HEIGHT, struct.pack("<Q", third_height(reader)))
    assert block_hash is not None
    change_rows(home / "data", BLOCK, {block_hash: None})
    with RocksDbReader(home / "data", SYNC_BLOCK_COLUMNS) as changed:
        assert find_sync_hash(changed, epoch_id(4), 74) is None


def test_blocks_that_are_no_chain_are_refused(home: Path, reader: RocksDbReader) -> None:
    """A height that names another block of the epoch does not shift the count."""
    height = third_height(reader)
    later = reader.get(BLOCK_HEIGHT, struct.pack("<Q", height + 1))
    change_rows(home / "data", BLOCK_HEIGHT, {struct.pack("<Q", height): later})
    with RocksDbReader(home / "data", SYNC_BLOCK_COLUMNS) as changed, pytest.raises(IntegrityError, match="does not follow"):
        find_sync_hash(changed, epoch_id(4), 74)


@pytest.mark.parametrize(("descendants", "known"), [(0, False), (1, False), (2, True)])
def test_an_epoch_that_is_asked_for_early_is_not_known_yet(home: Path, descendants: int, known: bool) -> None:
    """As long as no block calls its sync block final; the second one after it does."""
    context = epoch_context_from_node(home, "5")
    sync_height = decode_block_header(context.block_headers[0], "context").height
    newer: dict[bytes, bytes | None] = {struct.pack("<Q", height): None for height in range(sync_height + descendants + 1, 246)}
    change_rows(home / "data", BLOCK_HEIGHT, newer)
    change_rows(home / "data", STATE_SYNC_HASHES, {context.epoch_id: None})
    if known:
        assert epoch_context_from_node(home, "5") == context
        return
    with pytest.raises(EpochNotReadyError, match="sync hash of epoch 5 is not known yet"):
        epoch_context_from_node(home, "5")


@pytest.mark.parametrize(
    ("heights", "final"),
    [
        ((), False),
        ((11, 13), False),
        ((12, 13), False),
        ((12, 14, 15), False),
        ((11, 12), True),
        ((12, 13, 14), True),
        ((11, 13, 15, 16, 17), True),
    ],
)
def test_three_consecutive_heights_make_a_block_final(heights: tuple[int, ...], final: bool) -> None:
    """From the block itself or from one after it; a height without a block begins again."""
    header = BlockHeader(4, ZERO_HASH, ZERO_HASH, 10, ZERO_HASH, ZERO_HASH, ZERO_HASH, 0, ZERO_HASH, b"")
    assert is_final(header, (replace(header, height=height) for height in heights)) is final


def test_a_context_of_an_older_epoch_chains_to_its_sync_hash() -> None:
    """As that of the newest does."""
    for height in (2, 3, 4):
        context = epoch_context_from_node(localnet_home(), str(height))
        assert decode_block_header(context.block_headers[0], "context").epoch_id == context.epoch_id == epoch_id(height)


# blocks of the real chain


@dataclass(frozen=True, slots=True)
class MaskedBlock:
    """A block that is known by its header alone: its chunk mask says which chunks are new."""

    header: BlockHeader
    mask: tuple[bool, ...]

    def chunks(self) -> tuple[ChunkHeader, ...]:
        """Return chunk headers that say no more than that."""
        height = self.header.height
        return tuple(
            ChunkHeader(ZERO_HASH, ZERO_HASH, ZERO_HASH, 0, height if is_new else height - 1, shard_id, 0)
            for shard_id, is_new in enumerate(self.mask)
        )


def mainnet_epochs(shared_fixtures: Path) -> list[dict[str, Any]]:
    """Return five epochs of the real chain with their first blocks."""
    epochs: list[dict[str, Any]] = json.loads((shared_fixtures / "real" / "epochs_mainnet_2024_06.json").read_text())["epochs"]
    return epochs


def first_blocks(epoch: dict[str, Any]) -> list[MaskedBlock]:
    """Return the first blocks of an epoch of the real chain."""
    shown = [entry["header"] for entry in epoch["blocks"] if entry["label"] in {f"block-{position}" for position in range(5)}]
    return [MaskedBlock(read_rpc_header(RpcReader(header, "real")), tuple(header["chunk_mask"])) for header in shown]


def test_the_rule_over_blocks_of_the_real_chain(shared_fixtures: Path) -> None:
    """Today's rule over five epochs of mainnet; from the second block on every shard needs two new chunks; and the blocks begin at the border."""
    epochs = mainnet_epochs(shared_fixtures)
    for epoch in epochs:
        found = find_sync_block(first_blocks(epoch), CryptoHash.from_base58(epoch["epoch_id"]), 74, "real")
        assert found is not None
        assert str(found.header.hash) == epoch["sync_hash_if_current_rule"]
    blocks, epoch_id = first_blocks(epochs[0]), CryptoHash.from_base58(epochs[0]["epoch_id"])
    for others in (blocks[1:], first_blocks(epochs[1])):
        with pytest.raises(IntegrityError, match="is not the first of epoch"):
            find_sync_block(others, epoch_id, 74, "real")
    late = [replace(block, mask=(position != 1, *block.mask[1:])) for position, block in enumerate(blocks)]
    assert find_sync_block(late, epoch_id, 74, "real") == late[4]
    never = [replace(block, mask=(False, *block.mask[1:])) for block in blocks]
    assert find_sync_block(never, epoch_id, 74, "real") is None
