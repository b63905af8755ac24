"""The walk over the State column: the same records as flat state, every byte checked, whatever form the rows have."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.kernel.choice import choose_kernel
from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node.counted_value import find_payload
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.near.node.node_columns import STATE, STATE_SHARD_UID_MAPPING
from pipelines.near.node.node_store import NodeSource
from pipelines.near.node.rocksdb_reader import MERGE_DELIMITER, RocksDbReader, forget_readers
from pipelines.near.trie.trie_walk_source import StateWalk, StateWalkSource, choose_node_source
from pipelines.near.trie.walk_trie import split_by_memory_usage
from schemas.dataset.flat_state import VALUE_SCHEMA
from schemas.errors import InvalidInputError, MissingTrieValueError, SnapshotMismatchError, ValueMismatchError
from schemas.ids import ZERO_HASH, CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.trie_node import BranchNode, LeafNode, decode_trie_node
from tests.support.nodes import change_rows, context_file, localnet_home, new_database, node_a, node_b, node_facts
from tests.support.records import Pairs, pairs_of, record_sets
from tests.support.state_rows import SHARD_UID, context_at, node_of, state_column, state_rows, trie_entries, walk_source

ALL_KEYS = KeyRange(b"", None)
PAIRS: Pairs = sorted({b"\x00" + hashlib.sha256(bytes([n])).hexdigest()[: n % 9 + 1].encode(): bytes([n]) * n for n in range(200)}.items())


def records(source: NodeSource | StateWalkSource, shard: ShardContext, key_range: KeyRange = ALL_KEYS) -> pa.Table:
    """Read a key range as one table."""
    return pa.Table.from_batches(source.records(shard, key_range, 1 << 20)).combine_chunks()


def recomputed_root(table: pa.Table) -> CryptoHash:
    """Hash records to their state root."""
    kernel = choose_kernel("auto")
    return kernel.seal([kernel.build(table.to_batches(), (), None, None, keep_interior=False).edge]).state_root


def read_all(home: Path, state_root: CryptoHash) -> list[tuple[bytes, bytes]]:
    """Walk a made-up shard, referenced values included."""
    context = context_at(state_root)
    source = walk_source(home, context)
    shard = context.shards[0]
    batches = list(source.records(shard, ALL_KEYS, 1 << 12))
    hashes = sorted({value_hash for batch in batches for value_hash in batch["value_hash"].drop_null().to_pylist()})
    return pairs_of(batches, source.values(shard, hashes, 1 << 12))


def test_a_walk_gives_the_records_of_flat_state() -> None:
    """All shards of the real node's newest epoch."""
    context = epoch_context_from_node(localnet_home(), "6")
    for shard in context.shards:
        assert records(walk_source(localnet_home(), context), shard).equals(records(NodeSource(str(localnet_home()), context), shard))


@pytest.mark.parametrize("height", [3, 4, 5])
def test_a_walk_gives_older_epochs(height: int) -> None:
    """States of the real node that its flat state has left behind."""
    context = epoch_context_from_node(localnet_home(), str(height))
    for shard in context.shards:
        assert recomputed_root(records(walk_source(localnet_home(), context), shard)) == shard.state_root


def assert_all_roots_can_be_walked(home: Path) -> None:
    """Every root that the maker of a node's data names, pending merges and shards born by resharding included."""
    for name, facts in node_facts(home).items():
        for root in {*facts.get("roots", ()), facts["state_root"], facts.get("next_state_root", facts["state_root"])}:
            context = context_at(CryptoHash.from_base58(root), ShardUId.parse(name))
            assert recomputed_root(records(walk_source(home, context), context.shards[0])) == context.shards[0].state_root


def test_all_roots_of_node_a_can_be_walked() -> None:
    """A node whose rows have pending merges."""
    assert_all_roots_can_be_walked(node_a())


def test_all_roots_of_node_b_can_be_walked() -> None:
    """The larger node as well."""
    assert_all_roots_can_be_walked(node_b())


def test_a_walk_and_flat_state_agree_on_node_a() -> None:
    """Values over the inlining limit and a shard whose rows lie under its parent's uid."""
    context = context_file(node_a())
    for shard in context.shards:
        assert records(walk_source(node_a(), context), shard).equals(records(NodeSource(str(node_a()), context), shard))
        hashes = sorted(set(records(walk_source(node_a(), context), shard)["value_hash"].drop_null().to_pylist()))
        walked = pa.Table.from_batches(walk_source(node_a(), context).values(shard, hashes, 1 << 16), VALUE_SCHEMA)
        assert walked["value_hash"].to_pylist() == hashes
        assert [hashlib.sha256(value).digest() for value in walked["value"].to_pylist()] == hashes


@pytest.mark.parametrize("target", [1, 5_000, 20_000, 10**9])
def test_key_ranges_are_adjacent_and_hold_everything(target: int) -> None:
    """Read one after the other they give what one read gives."""
    context = epoch_context_from_node(localnet_home(), "5")
    shard = context.shards[1]
    source = walk_source(localnet_home(), context)
    ranges = source.key_ranges(shard, target)
    assert ranges[0].begin == b""
    assert [left.end for left in ranges] == [*(right.begin for right in ranges[1:]), None]
    assert pa.concat_tables([records(source, shard, key_range) for key_range in ranges]).equals(records(source, shard))


def test_key_ranges_follow_the_memory_usage() -> None:
    """None is far over the target unless a single record is."""
    context = epoch_context_from_node(localnet_home(), "5")
    shard = context.shards[1]
    source = walk_source(localnet_home(), context)
    ranges = source.key_ranges(shard, 20_000)
    usage = source.root_memory_usage(shard)
    assert usage is not None
    assert usage // 40_000 <= len(ranges) <= usage // 5_000
    for key_range in ranges:
        table = records(source, shard, key_range)
        inlined = sum(length for length in table["value_length"].to_pylist() if length < 5_000)
        assert inlined < 40_000


@given(pairs=record_sets(), cuts=st.lists(st.binary(max_size=4), max_size=3))
def test_any_trie_comes_out_as_it_went_in(tmp_path_factory: pytest.TempPathFactory, pairs: Pairs, cuts: list[bytes]) -> None:
    """Keys that are prefixes of others, shared and empty values, key ranges that cut anywhere."""
    home, (root,) = node_of(tmp_path_factory.mktemp("node"), pairs)
    assert read_all(home, root) == list(pairs)
    context = context_at(root)
    begins = sorted({b"", *cuts})
    ranges = [KeyRange(begin, end) for begin, end in zip(begins, [*begins[1:], None], strict=True)]
    found = [
        key
        for key_range in ranges
        for batch in walk_source(home, context).records(context.shards[0], key_range, 1 << 20)
        for key in batch["key"]
    ]
    assert [key.as_py() for key in found] == [key for key, _ in pairs]


def test_an_empty_trie_has_no_record(tmp_path: Path) -> None:
    """Its root is zeros, and no row is looked for."""
    home, _ = node_of(tmp_path, PAIRS)
    assert read_all(home, ZERO_HASH) == []
    assert split_by_memory_usage(state_column(home), ZERO_HASH, 1000) == (ALL_KEYS,)
    assert walk_source(home, context_at(ZERO_HASH)).root_memory_usage(context_at(ZERO_HASH).shards[0]) == 0


# Other forms of State


def test_rows_without_counts_in_a_cold_store(tmp_path: Path) -> None:
    """An archival node's cold store has the bare payloads; the hot store has the newest rows alone."""
    root, entries = trie_entries(PAIRS)
    hot = state_rows(entries[: len(entries) // 3])
    new_database(tmp_path / "data", {STATE: hot, STATE_SHARD_UID_MAPPING: {}})
    new_database(tmp_path / "cold", {STATE: state_rows(entries[len(entries) // 4 :], count=b"")})
    (tmp_path / "config.json").write_text(json.dumps({"cold_store": {"path": "cold"}}))
    assert read_all(tmp_path, root) == list(PAIRS)


def test_a_database_without_the_uid_mapping(tmp_path: Path) -> None:
    """Older than resharding by mapping."""
    root, entries = trie_entries(PAIRS)
    new_database(tmp_path / "data", {STATE: state_rows(entries)})
    assert read_all(tmp_path, root) == list(PAIRS)


def test_a_childs_rows_may_lie_under_both_uids(tmp_path: Path) -> None:
    """The parent's by the mapping, and its own."""
    parent = ShardUId(version=3, shard_id=9)
    root, entries = trie_entries(PAIRS)
    rows = {**state_rows(entries[::2], parent.to_bytes()), **state_rows(entries[1::2])}
    new_database(tmp_path / "data", {STATE: rows, STATE_SHARD_UID_MAPPING: {SHARD_UID.to_bytes(): parent.to_bytes()}})
    assert read_all(tmp_path, root) == list(PAIRS)


# Damage


def node_rows(home: Path, shard: ShardContext) -> tuple[list[bytes], list[bytes]]:
    """Return the hashes of a shard's nodes below the root, branches apart from leaves."""
    branches, leaves = [], []
    with RocksDbReader(home / "data", (STATE,)) as reader:
        queue = [bytes(shard.state_root or b"")]
        while queue:
            wanted = queue.pop()
            payload = find_payload(reader.get(STATE, shard.shard_uid.to_bytes() + wanted) or b"", wanted, MERGE_DELIMITER)
            assert payload is not None
            node = decode_trie_node(payload).node
            if isinstance(node, LeafNode):
                leaves.append(wanted)
            elif isinstance(node, BranchNode):
                branches.append(wanted)
                queue += node.children.values()
            else:
                queue.append(node.child)
    return branches, leaves


@pytest.mark.parametrize("kind", ["branch", "leaf", "root"])
@pytest.mark.parametrize("damage", ["deleted", "changed"])
def test_a_damaged_node_is_named(home: Path, kind: str, damage: str) -> None:
    """By its hash and prefix; a missing row and a changed one are told apart."""
    context = epoch_context_from_node(home, "5")
    shard = context.shards[2]
    branches, leaves = node_rows(home, shard)
    wanted = {"branch": branches[3], "leaf": leaves[5], "root": bytes(shard.state_root or b"")}[kind]
    change_rows(home / "data", STATE, {shard.shard_uid.to_bytes() + wanted: None if damage == "deleted" else b"\3" * 60})
    with pytest.raises(MissingTrieValueError) as caught:
        records(walk_source(home, context), shard)
    problem = "is not in the State column" if damage == "deleted" else "does not hash to it"
    assert problem in caught.value.problem
    assert str(CryptoHash(wanted)) in caught.value.problem
    assert "prefix" in caught.value.problem
    assert str(shard.shard_uid) in caught.value.where


@pytest.mark.parametrize("damage", ["deleted", "changed"])
def test_a_damaged_value_is_named_by_its_key(home: Path, damage: str) -> None:
    """An inlined value of the real node."""
    context = epoch_context_from_node(home, "5")
    shard = context.shards[2]
    table = records(walk_source(home, context), shard)
    row = next(row for row, value in enumerate(table["value"].to_pylist()) if value)
    key, value = table["key"][row].as_py(), table["value"][row].as_py()
    database_key = shard.shard_uid.to_bytes() + hashlib.sha256(value).digest()
    forget_readers()
    change_rows(home / "data", STATE, {database_key: None if damage == "deleted" else value + b"?" + bytes(8)})
    with pytest.raises(ValueMismatchError) as caught:
        records(walk_source(home, context), shard)
    assert key.hex() in caught.value.where


def test_a_damaged_node_at_the_top_stops_the_split(home: Path) -> None:
    """Already the planning names it."""
    context = epoch_context_from_node(home, "5")
    shard = context.shards[2]
    change_rows(home / "data", STATE, {shard.shard_uid.to_bytes() + bytes(shard.state_root or b""): None})
    with pytest.raises(MissingTrieValueError, match=r"\(root\)"):
        walk_source(home, context).key_ranges(shard, 1000)


def test_a_missing_long_value_is_refused(tmp_path: Path) -> None:
    """Values by reference are read apart from the records."""
    long = b"x" * 5000
    home, (root,) = node_of(tmp_path, [(b"a", long), (b"b", b"2")])
    shard = context_at(root).shards[0]
    change_rows(home / "data", STATE, {SHARD_UID.to_bytes() + hashlib.sha256(long).digest(): None})
    with pytest.raises(ValueMismatchError):
        list(walk_source(home, context_at(root)).values(shard, [hashlib.sha256(long).digest()], 1 << 20))


# When to walk


def chosen(home: Path, context: EpochContext, state_walk: StateWalk) -> tuple[ShardUId, ...]:
    """Return which shards would be walked."""
    source = choose_node_source(NodeSource(str(home), context), state_walk)
    return source.walked if isinstance(source, StateWalkSource) else ()


def test_only_shards_without_flat_state_of_the_block_are_walked() -> None:
    """The newest epoch is read from its snapshot, an older one from State."""
    newest, older = (epoch_context_from_node(localnet_home(), height) for height in ("6", "4"))
    every = tuple(shard.shard_uid for shard in newest.shards)
    assert chosen(localnet_home(), newest, StateWalk.AUTO) == ()
    assert chosen(localnet_home(), older, StateWalk.AUTO) == every
    assert chosen(localnet_home(), newest, StateWalk.ALWAYS) == every
    assert chosen(localnet_home(), older, StateWalk.NEVER) == ()


def test_a_node_without_the_root_keeps_its_own_complaint() -> None:
    """A walk that can't begin is not tried."""
    older = epoch_context_from_node(localnet_home(), "4")
    shard = older.shards[0]
    unknown = context_at(CryptoHash(b"\7" * 32), shard.shard_uid, shard.flat_head_target)
    source = choose_node_source(NodeSource(str(localnet_home()), unknown), StateWalk.AUTO)
    with pytest.raises(SnapshotMismatchError):
        source.key_ranges(unknown.shards[0], 1000)


def test_a_walk_needs_the_state_root() -> None:
    """There is nothing to begin from without it."""
    context = EpochContext("test", 7, ZERO_HASH, ZERO_HASH, 82, (ShardContext(SHARD_UID, None),))
    with pytest.raises(InvalidInputError, match="state root"):
        choose_node_source(NodeSource(str(localnet_home()), context), StateWalk.ALWAYS)
