"""State headers of a real node: computed as neard does, and nothing believed that does not verify."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.near.node.native_state_header import HeaderChain, compute_state_header, verify_state_header
from pipelines.near.node.node_columns import BLOCK, CHUNKS, INCOMING_RECEIPTS, STATE_HEADERS
from pipelines.near.node.node_state_header import NodeStateHeader, find_node_state_header, open_state_header
from pipelines.near.node.rocksdb_reader import RocksDbReader
from schemas.errors import IntegrityError, InvalidInputError, SourceError, StatecastError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.state_header import HeaderOrigin, prove_state_root
from tests.support.dumped_headers import CACHED_EPOCH_HEIGHT, EPOCH_HEIGHTS, SHARD_IDS, DumpedHeader, dumped_header
from tests.support.native_wheel import needs_headers
from tests.support.nodes import change_rows, copied, localnet_home

pytestmark = needs_headers

EVERY_HEADER = [(height, shard_id) for height in EPOCH_HEIGHTS for shard_id in SHARD_IDS]
COLUMNS = ("BlockHeader", "Block", "Chunks", "IncomingReceipts", "EpochInfo", "State")


@contextmanager
def opened(dumped: DumpedHeader, home: Path | None = None) -> Iterator[NodeStateHeader]:
    """Open what a header of the dump is made of."""
    with open_state_header(home or localnet_home(), dumped.context.chain_id, dumped.shard_uid, dumped.sync_hash) as state_header:
        yield state_header


def genesis_chain() -> HeaderChain:
    """Return the chain's facts out of the genesis file."""
    genesis = json.loads((localnet_home() / "genesis.json").read_text())
    return HeaderChain(genesis["chain_id"], json.dumps(genesis["shard_layout"]))


# As neard dumps them


@pytest.mark.parametrize(("epoch_height", "shard_id"), EVERY_HEADER)
def test_a_computed_header_is_neards(epoch_height: int, shard_id: int) -> None:
    """Byte for byte, for every shard of every epoch that neard dumped."""
    dumped = dumped_header(epoch_height, shard_id)
    with opened(dumped) as state_header:
        assert state_header.compute() == dumped.data


@pytest.mark.parametrize(("epoch_height", "shard_id"), EVERY_HEADER)
def test_neards_header_verifies_and_says_what_python_reads(epoch_height: int, shard_id: int) -> None:
    """What the full verification finds is what readers without the wheel prove by the block headers alone."""
    dumped = dumped_header(epoch_height, shard_id)
    with opened(dumped) as state_header:
        verified = state_header.verify(dumped.data)
    proven = prove_state_root(dumped.data, dumped.sync_hash, dumped.context.block_headers, "test")
    assert (verified.state_root, verified.memory_usage) == (proven.state_root, proven.memory_usage)
    assert (verified.chunk_hash, verified.height_included) == (proven.chunk.chunk_hash, proven.chunk.height_included)
    assert verified.state_root == dumped.context.shard(shard_id).state_root
    assert (verified.version, verified.blocks) == (2, 2)


def test_some_headers_hold_receipts() -> None:
    """Else the tests on receipts would say nothing."""
    counts = []
    for epoch_height, shard_id in EVERY_HEADER:
        dumped = dumped_header(epoch_height, shard_id)
        with opened(dumped) as state_header:
            counts.append(state_header.verify(dumped.data).receipts)
    assert counts == [7, 0, 3, 0, 6, 1, 2, 1, 7, 0, 2, 1]


def test_any_block_can_be_a_sync_block(tmp_path: Path) -> None:
    """Every block whose ancestors the node has gives a header that verifies."""
    chain_id = dumped_header(6, 0).context.chain_id
    with RocksDbReader(localnet_home() / "data", ("col4",)) as reader:
        blocks = sorted((int.from_bytes(key, "little"), row) for rows in reader.scan("col4", b"", None) for key, row in rows)
    made = 0
    for height, block_hash in blocks:
        if 100 <= height < 130:
            with open_state_header(localnet_home(), chain_id, ShardUId(0, height % 4), CryptoHash(block_hash)) as state_header:
                state_header.verify(state_header.compute())
                made += 1
    assert made == 30


# Refusals


@pytest.mark.parametrize(("epoch_height", "shard_id"), EVERY_HEADER)
def test_a_changed_byte_anywhere_is_refused(epoch_height: int, shard_id: int) -> None:
    """Signatures, directions of paths between equal neighbours and transactions too."""
    dumped = dumped_header(epoch_height, shard_id)
    passed = []
    with opened(dumped) as state_header:
        for index in range(len(dumped.data)):
            changed = bytearray(dumped.data)
            changed[index] ^= 1
            try:
                state_header.verify(bytes(changed))
            except IntegrityError:
                continue
            passed.append(index)
    assert passed == []


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"", lambda data: data[1:]])
def test_a_cut_or_longer_header_is_refused(change: Callable[[bytes], bytes]) -> None:
    """The bytes are one header and nothing else."""
    dumped = dumped_header(6, 0)
    with opened(dumped) as state_header, pytest.raises(IntegrityError, match="decoded"):
        state_header.verify(change(dumped.data))


@pytest.mark.parametrize("other", [(6, 1), (5, 0), (4, 3)])
def test_the_header_of_another_shard_or_epoch_is_refused(other: tuple[int, int]) -> None:
    """Each is right in its own place."""
    with opened(dumped_header(6, 0)) as state_header, pytest.raises(IntegrityError):
        state_header.verify(dumped_header(*other).data)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_row_is_named(column: str) -> None:
    """Without a column nothing is computed, and the error says what the node lacks."""
    dumped = dumped_header(5, 2)
    with opened(dumped) as state_header:

        def read_row(asked: str, key: bytes) -> bytes | None:
            return None if asked == column else state_header._named_row(asked, key)

        with pytest.raises(SourceError, match="receipts of 0 of" if column == "IncomingReceipts" else column):
            compute_state_header(read_row, genesis_chain(), dumped.sync_hash, 2)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_row_that_lies_is_refused(column: str) -> None:
    """Each row is known by a hash: one of another key, or with a changed byte in its middle, is no row."""
    dumped = dumped_header(5, 2)
    with opened(dumped) as state_header:

        def read_row(asked: str, key: bytes) -> bytes | None:
            row = state_header._named_row(asked, key)
            if asked != column or row is None:
                return row
            middle = len(row) // 2
            return row[:middle] + bytes([row[middle] ^ 1]) + row[middle + 1 :]

        # Of EpochInfo only the layout counts, which the chunk's receipts root binds.
        if column == "EpochInfo":
            assert compute_state_header(read_row, genesis_chain(), dumped.sync_hash, 2) == dumped.data
            return
        with pytest.raises(IntegrityError):
            compute_state_header(read_row, genesis_chain(), dumped.sync_hash, 2)


def test_without_blocks_neards_own_checks_remain() -> None:
    """A node that has the block headers alone can verify; only the two chunk signatures stay unbound, as in neard."""
    dumped = dumped_header(6, 0)
    unbound = []
    chain = genesis_chain()
    with opened(dumped) as state_header:

        def read_row(asked: str, key: bytes) -> bytes | None:
            return None if asked == "Block" else state_header._named_row(asked, key)

        for index in range(len(dumped.data)):
            changed = bytearray(dumped.data)
            changed[index] ^= 1
            try:
                verify_state_header(bytes(changed), read_row, chain, dumped.sync_hash, 0)
            except IntegrityError:
                continue
            unbound.append(index)
    assert len(unbound) == 2 * 64
    # Both are all of one header, in one piece.
    assert [right - left == 1 for left, right in itertools.pairwise(unbound)].count(False) == 1


def test_a_wrong_layout_does_not_pass() -> None:
    """Receipts grouped by other shards have another root."""
    dumped = dumped_header(5, 2)
    layout = json.loads(genesis_chain().genesis_layout or "")
    layout["V2"].update(
        shard_ids=[1, 3, 0, 2], id_to_index_map={"1": 0, "3": 1, "0": 2, "2": 3}, index_to_id_map={"0": 1, "1": 3, "2": 0, "3": 2}
    )
    with opened(dumped) as state_header, pytest.raises(IntegrityError):
        compute_state_header(state_header._named_row, HeaderChain("other", json.dumps(layout)), dumped.sync_hash, 2)


def test_no_layout_is_said() -> None:
    """A chain that nearcore does not know, with a genesis that names no layout."""
    dumped = dumped_header(5, 2)
    with opened(dumped) as state_header, pytest.raises(SourceError, match="shard layout"):
        compute_state_header(state_header._named_row, HeaderChain("other", None), dumped.sync_hash, 2)


def test_an_error_of_the_database_goes_through() -> None:
    """What the rows raise comes out as it is."""

    def read_row(asked: str, key: bytes) -> bytes | None:
        raise SourceError(problem="a file is damaged", where="000001.sst")

    with pytest.raises(SourceError, match="a file is damaged"):
        compute_state_header(read_row, genesis_chain(), dumped_header(5, 2).sync_hash, 2)


# Copied, computed, or why not


@pytest.mark.parametrize("epoch_height", EPOCH_HEIGHTS)
def test_the_nodes_own_comes_first(epoch_height: int) -> None:
    """The newest epoch's header is copied, the others' are computed."""
    dumped = dumped_header(epoch_height, 1)
    found = find_node_state_header(localnet_home(), dumped.context.chain_id, dumped.shard_uid, dumped.sync_hash)
    expected = HeaderOrigin.COPIED if epoch_height == CACHED_EPOCH_HEIGHT else HeaderOrigin.COMPUTED
    assert (found.data, found.origin, found.reason) == (dumped.data, expected, "")


def changed_home(tmp_path: Path, column: str, change: Callable[[bytes, bytes], bytes | None]) -> Path:
    """Return a copy of the node with every row of a column changed."""
    home = copied(localnet_home(), tmp_path)
    with RocksDbReader(home / "data", (column,)) as reader:
        rows = {key: change(key, row) for step in reader.scan(column, b"", None) for key, row in step}
    change_rows(home / "data", column, rows)
    return home


def test_a_damaged_header_of_the_node_is_computed_instead(tmp_path: Path) -> None:
    """What does not verify is not copied."""
    dumped = dumped_header(CACHED_EPOCH_HEIGHT, 2)
    home = changed_home(tmp_path, STATE_HEADERS, lambda key, row: row[:200] + bytes([row[200] ^ 1]) + row[201:])
    found = find_node_state_header(home, dumped.context.chain_id, dumped.shard_uid, dumped.sync_hash)
    assert (found.data, found.origin) == (dumped.data, HeaderOrigin.COMPUTED)


@pytest.mark.parametrize("column", [BLOCK, CHUNKS, INCOMING_RECEIPTS])
def test_a_node_that_has_dropped_rows_says_why_there_is_no_header(tmp_path: Path, column: str) -> None:
    """The reason holds no path: it is published in the manifest."""
    dumped = dumped_header(5, 2)
    home = changed_home(tmp_path, column, lambda key, row: None)
    found = find_node_state_header(home, dumped.context.chain_id, dumped.shard_uid, dumped.sync_hash)
    assert (found.data, found.origin) == (None, None)
    assert "none can be computed: the node " in found.reason
    assert str(tmp_path) not in found.reason


def test_without_the_wheel_there_is_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the node's own: it could not be verified."""
    monkeypatch.setitem(sys.modules, "statecast_kernel", None)
    dumped = dumped_header(CACHED_EPOCH_HEIGHT, 2)
    found = find_node_state_header(localnet_home(), dumped.context.chain_id, dumped.shard_uid, dumped.sync_hash)
    assert (found.data, found.origin) == (None, None)
    assert "native kernel" in found.reason
    with opened(dumped) as state_header, pytest.raises(InvalidInputError, match="native kernel"):
        state_header.compute()


def test_an_older_wheel_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that lacks the functions is as good as none, and the remedy is another."""
    module = type(sys)("statecast_kernel")
    monkeypatch.setitem(sys.modules, "statecast_kernel", module)
    with opened(dumped_header(6, 2)) as state_header, pytest.raises(StatecastError, match="older"):
        state_header.compute()


def test_the_layout_of_an_epoch_configuration_is_taken(tmp_path: Path) -> None:
    """A chain that was resharded has another layout than its genesis file says."""
    home = copied(localnet_home(), tmp_path)
    genesis = json.loads((home / "genesis.json").read_text())
    (home / "epoch_configs").mkdir()
    (home / "epoch_configs" / "74.json").write_text(json.dumps({"shard_layout": genesis["shard_layout"]}))
    (home / "genesis.json").write_text(json.dumps({**genesis, "shard_layout": {"V0": {"num_shards": 1, "version": 0}}}))
    dumped = dumped_header(4, 2)
    with opened(dumped, home) as state_header:
        assert state_header.compute() == dumped.data
