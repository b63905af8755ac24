"""A node's flat state: nearcore's own roots, parts and headers come out, and whatever is wrong with a node is named."""

from __future__ import annotations

import json
import pickle
import struct
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.native import is_available
from pipelines.kernel.trie_kernel import Kernel
from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node import flat_state_rows, node_store, state_column, value_rows
from pipelines.near.node.flat_state_location import FLAT_COLUMNS
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.near.node.node_columns import (
    FLAT_STATE,
    FLAT_STATE_CHANGES,
    FLAT_STATE_DELTA_METADATA,
    FLAT_STORAGE_STATUS,
    STATE,
    STATE_SHARD_UID_MAPPING,
)
from pipelines.near.node.node_home import read_node_home
from pipelines.near.node.node_store import NodeSource
from pipelines.near.node.rocksdb_reader import RocksDbReader, cached_reader, forget_readers
from schemas.dataset.flat_state_value import encode_inlined, encode_ref
from schemas.errors import (
    ColumnMissingError,
    FlatStorageNotReadyError,
    IntegrityError,
    InvalidInputError,
    SnapshotMismatchError,
    SnapshotNotFoundError,
    SourceError,
    ValueMismatchError,
)
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.borsh import BorshWriter
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.flat_storage import FlatBlock, encode_ready_status
from tests.support.native_wheel import can_verify
from tests.support.nodes import (
    LOCALNET_EPOCH_HEIGHT,
    NODES,
    change_rows,
    context_file,
    copied,
    drop_column,
    localnet,
    localnet_home,
    new_database,
    node_a,
    node_b,
    node_facts,
    snapshot_folder,
    tree,
)
from tests.support.records import pairs_of, parts_of

WHOLE = KeyRange(b"", None)
BATCH_BYTES = 1 << 20
S0 = ShardUId(version=3, shard_id=0)
S90 = ShardUId(version=4, shard_id=90)


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    """Return the kernel that roots are computed with."""
    return choose_kernel("auto")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy of node a's home."""
    return copied(node_a(), tmp_path)


def source_of(home: Path, context: str = "context.json") -> NodeSource:
    """Return the source of a fixture's home and context."""
    return NodeSource(str(home), context_file(home, context))


def records_of(
    source: NodeSource, shard: ShardContext, key_range: KeyRange = WHOLE, batch_bytes: int = BATCH_BYTES
) -> list[pa.RecordBatch]:
    """Return the record batches of a key range."""
    return list(source.records(shard, key_range, batch_bytes))


def values_of(source: NodeSource, shard: ShardContext, records: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Return the values that records refer to."""
    hashes = sorted({value_hash for batch in records for value_hash in batch["value_hash"].to_pylist() if value_hash is not None})
    return list(source.values(shard, hashes, BATCH_BYTES))


def state_root(kernel: Kernel, source: NodeSource, shard: ShardContext) -> CryptoHash:
    """Return the root that a shard's records hash to."""
    records = records_of(source, shard)
    values = values_of(source, shard, records)
    return kernel.seal([kernel.build(records, values, None, None, keep_interior=False).edge]).state_root


def first_shard(source: NodeSource) -> ShardContext:
    """Return shard 0."""
    return source.context.shard(0)


# nearcore's own results


@pytest.mark.parametrize(("context", "next_"), [("context.json", ""), ("context-next.json", "next_")])
def test_node_a_gives_nearcores_roots(kernel: Kernel, context: str, next_: str) -> None:
    """At the flat head and one block later the records hash to the state roots, the resharded shard's too."""
    source = source_of(node_a(), context)
    facts = node_facts(node_a())
    for shard in source.context.shards:
        assert state_root(kernel, source, shard) == shard.state_root
        assert source.root_memory_usage(shard) == facts[str(shard.shard_uid)][f"{next_}memory_usage"]


def test_node_b_gives_nearcores_roots(kernel: Kernel) -> None:
    """The larger node as well."""
    for context in ("context.json", "context-next.json"):
        source = source_of(node_b(), context)
        for shard in source.context.shards:
            assert state_root(kernel, source, shard) == shard.state_root


def test_node_a_gives_nearcores_parts(kernel: Kernel) -> None:
    """The parts that nearcore made of these shards have the same bytes."""
    source = source_of(node_a())
    golden = json.loads((NODES / "node-a.golden.json").read_text())
    assert len(golden) == 12
    for expected in golden:
        shard = source.context.shard(ShardUId.parse(expected["shard_uid"]).shard_id)
        records = records_of(source, shard)
        pairs = pairs_of(records, values_of(source, shard, records))
        parts = parts_of(kernel, pairs, expected["num_parts"]).parts
        assert [sha256(part).hexdigest() for part in parts] == [part["sha256"] for part in expected["parts"]]


def test_the_localnet_gives_the_parts_and_headers_of_its_own_dumper(kernel: Kernel) -> None:
    """From a real node's database alone: context, records, parts and headers equal what neard wrote."""
    context = epoch_context_from_node(localnet_home())
    source = NodeSource(str(localnet_home()), context)
    (dump,) = (localnet() / "dump").glob(f"*/epoch_height={LOCALNET_EPOCH_HEIGHT}/epoch_id={context.epoch_id}")
    for shard in context.shards:
        records = records_of(source, shard)
        parts = parts_of(kernel, pairs_of(records, values_of(source, shard, records)), 1)
        assert bytes(parts.parts[0]) == (dump / f"shard_id={shard.shard_id}" / "state_part_000000_of_000001").read_bytes()
        assert parts.memory_usage == source.root_memory_usage(shard)
        if can_verify():
            header = (dump / "headers" / f"shard_id={shard.shard_id}" / "header").read_bytes()
            assert source.state_header(shard, context.sync_hash).data == header


# ranges and batches


@settings(max_examples=15)
@given(target=st.integers(1_000, 400_000), batch_bytes=st.integers(500, 100_000))
def test_ranges_tile_the_shard(target: int, batch_bytes: int) -> None:
    """However a shard is cut, its ranges together have the records of the whole, in order."""
    source = source_of(node_a(), "context-next.json")
    shard = first_shard(source)
    ranges = source.key_ranges(shard, target)
    assert ranges[0].begin == b""
    assert ranges[-1].end is None
    assert all(left.end == right.begin for left, right in pairwise(ranges))
    batches = [batch for key_range in ranges for batch in records_of(source, shard, key_range, batch_bytes)]
    assert pa.Table.from_batches(batches).equals(pa.Table.from_batches(records_of(source, shard)))
    for batch in batches:
        size = sum(len(row["key"]) + len(row["value"] or b"") for row in batch.to_pylist())
        assert batch.num_rows == 1 or size <= batch_bytes


def test_a_small_target_gives_many_ranges() -> None:
    """Work can be shared out even where one file holds the whole shard."""
    source = source_of(node_a())
    assert len(source.key_ranges(first_shard(source), 10_000)) > 5


def test_changes_reach_every_range(kernel: Kernel) -> None:
    """The delta inserts, changes and deletes; each change lands in one range, also before the first and after the last record."""
    now, later = source_of(node_a()), source_of(node_a(), "context-next.json")
    before = dict(pairs_of(records_of(now, first_shard(now)), values_of(now, first_shard(now), records_of(now, first_shard(now)))))
    records = records_of(later, first_shard(later))
    after = dict(pairs_of(records, values_of(later, first_shard(later), records)))
    assert after.keys() - before.keys()
    assert before.keys() - after.keys()
    assert any(before[key] != after[key] for key in before.keys() & after.keys())


@pytest.mark.parametrize("context", ["context.json", "context-next.json"])
def test_native_code_reads_the_same(context: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same batches of records and of values, and the same keys and lengths, whether changes lie over the rows or not."""
    source, read = source_of(node_a(), context), []
    shard = first_shard(source)
    for available in (is_available(), False):
        for module in (flat_state_rows, value_rows):
            monkeypatch.setattr(module, "is_available", lambda available=available: available)
        records = records_of(source, shard, batch_bytes=5000)
        hashes = [value_hash for batch in records for value_hash in batch["value_hash"].drop_null().to_pylist()]
        shapes = pa.Table.from_batches(source.shapes(shard, WHOLE, 5000))
        assert shapes.equals(pa.Table.from_batches(records).select(["key", "value_length"]))
        read.append((records, list(source.values(shard, list(dict.fromkeys(hashes)), 5000))))
    assert read[0] == read[1]
    assert len(read[0][0]) > 3
    assert len(read[0][1]) > 3


def test_a_source_is_picklable_and_reads_the_same() -> None:
    """It travels to another process as a value."""
    source = source_of(node_a())
    again = pickle.loads(pickle.dumps(source))
    assert again == source
    assert pa.Table.from_batches(records_of(again, first_shard(again))).equals(
        pa.Table.from_batches(records_of(source, first_shard(source)))
    )


def test_reading_everything_changes_nothing_in_the_home(home: Path) -> None:
    """Names, sizes and times of all files are the same before and after."""
    before = tree(home)
    source = source_of(home, "context-next.json")
    for shard in source.context.shards:
        source.key_ranges(shard, 10_000)
        values_of(source, shard, records_of(source, shard))
        source.state_header(shard, source.context.sync_hash)
        source.root_memory_usage(shard)
        source.fingerprint(shard)
    assert tree(home) == before


def test_a_read_limit_is_charged_for_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, rows and values count."""

    class Counting:
        spent = 0

        def book_passed(self, amount: int) -> float:
            self.spent += amount
            return 0.0

    limit = Counting()
    for module in (node_store, state_column):
        monkeypatch.setattr(module, "process_read_limit", lambda bytes_per_s: limit)
    source = NodeSource(str(node_a()), context_file(node_a()), read_limit_bytes_per_s=1_000_000)
    records = records_of(source, first_shard(source))
    scanned = limit.spent
    assert scanned > sum(len(row["key"]) + len(row["value"] or b"") for batch in records for row in batch.to_pylist())
    values_of(source, first_shard(source), records)
    assert limit.spent > scanned


# where the flat state is taken from


def test_without_a_snapshot_the_hot_store_is_read(home: Path, kernel: Kernel) -> None:
    """A hot store whose flat head is the wanted block will do."""
    snapshots = home / "data" / "state_snapshot"
    snapshots.rename(home / "elsewhere")
    source = source_of(home)
    assert state_root(kernel, source, first_shard(source)) == first_shard(source).state_root


def test_a_half_written_snapshot_is_passed_over(home: Path, kernel: Kernel) -> None:
    """A folder that is no database yet does not hide the hot store."""
    (snapshot_folder(home) / "CURRENT").unlink()
    source = source_of(home)
    assert state_root(kernel, source, first_shard(source)) == first_shard(source).state_root


def test_a_head_that_is_past_the_wanted_block_is_a_mismatch(home: Path) -> None:
    """A flat state never goes back; both places are named."""
    moved = encode_ready_status(FlatBlock(CryptoHash(b"\7" * 32), 2000, CryptoHash(bytes(32))))
    for data in (home / "data", snapshot_folder(home)):
        change_rows(data, FLAT_STORAGE_STATUS, {S0.to_bytes(): moved})
    source = source_of(home)
    with pytest.raises(SnapshotMismatchError, match=r"height 2000.*height 2000") as caught:
        source.key_ranges(first_shard(source), 1 << 20)
    assert str(snapshot_folder(home)) in str(caught.value)
    assert str(first_shard(source).flat_head_target) in str(caught.value)


def test_a_context_of_another_block_is_a_mismatch() -> None:
    """A block that no delta leads to can't be reached."""
    source = source_of(node_a())
    shard = replace(first_shard(source), flat_head_target=CryptoHash(b"\x09" * 32))
    with pytest.raises(SnapshotMismatchError, match="can't be reached"):
        records_of(source, shard)


def test_a_context_without_the_block_is_refused() -> None:
    """Which block is meant is not guessed."""
    source = source_of(node_a())
    with pytest.raises(InvalidInputError, match="prev_block_hash"):
        records_of(source, replace(first_shard(source), flat_head_target=None))


@pytest.mark.parametrize("status", [0, 1, 2, 4, 9], ids=["Disabled", "Empty", "Creation", "Resharding", "unknown"])
def test_flat_storage_that_is_not_ready_is_named(home: Path, status: int) -> None:
    """While a node builds its flat storage there is nothing to read."""
    for data in (home / "data", snapshot_folder(home)):
        change_rows(data, FLAT_STORAGE_STATUS, {S0.to_bytes(): bytes([status, 0, 0])})
    source = source_of(home)
    with pytest.raises(FlatStorageNotReadyError, match=r"s0\.v3"):
        source.key_ranges(first_shard(source), 1 << 20)


def test_a_shard_that_the_node_does_not_track_is_not_found() -> None:
    """No flat state of it is anywhere."""
    source = source_of(node_a())
    shard = replace(first_shard(source), shard_uid=ShardUId(version=3, shard_id=77))
    with pytest.raises(SnapshotNotFoundError, match=r"s77\.v3"):
        source.key_ranges(shard, 1 << 20)


@pytest.mark.parametrize("column", [FLAT_STATE_DELTA_METADATA, FLAT_STATE_CHANGES])
def test_a_missing_delta_is_a_mismatch(home: Path, column: str) -> None:
    """Neither its metadata nor its changes may be missing."""
    source = source_of(home, "context-next.json")
    target = first_shard(source).flat_head_target
    assert target is not None
    for data in (home / "data", snapshot_folder(home)):
        change_rows(data, column, {S0.to_bytes() + target: None})
    with pytest.raises(SnapshotMismatchError, match=str(target)):
        records_of(source, first_shard(source))


def add_block(data: Path, block: FlatBlock, previous: tuple[CryptoHash, int] | None, changes: dict[bytes, bytes | None]) -> None:
    """Write the delta of one more block of shard 0."""
    key = S0.to_bytes() + block.hash
    tail = b"\0" if previous is None else b"\1" + previous[0] + struct.pack("<Q", previous[1])
    change_rows(data, FLAT_STATE_DELTA_METADATA, {key: encode_ready_status(block)[1:] + tail})
    if previous is None:
        writer = BorshWriter().u32(len(changes))
        for trie_key, row in changes.items():
            writer.byte_vec(trie_key).option(row, writer.fixed)
        change_rows(data, FLAT_STATE_CHANGES, {key: writer.to_bytes()})


def test_later_blocks_win_and_blocks_without_changes_are_passed_over(home: Path) -> None:
    """Three blocks after the head: the first changes a key, the second the same key again, the third nothing."""
    now, later = source_of(node_a()), source_of(node_a(), "context-next.json")
    before = {row["key"]: row["value"] for batch in records_of(now, first_shard(now)) for row in batch.to_pylist()}
    after = {row["key"]: row["value"] for batch in records_of(later, first_shard(later)) for row in batch.to_pylist()}
    twice = next(key for key in after if key in before and before[key] != after[key])
    deleted = next(key for key in after if key not in before)
    first = first_shard(later).flat_head_target
    assert first is not None
    second, third = CryptoHash(b"\2" * 32), CryptoHash(b"\3" * 32)
    data = snapshot_folder(home)
    add_block(data, FlatBlock(second, 1002, first), None, {twice: encode_inlined(b"again"), deleted: None, b"\xee": encode_inlined(b"new")})
    add_block(data, FlatBlock(third, 1003, second), (second, 1002), {})
    shard = replace(first_shard(now), flat_head_target=third)
    found = {row["key"]: row["value"] for batch in records_of(source_of(home), shard) for row in batch.to_pylist()}
    expected = {**after, twice: b"again", b"\xee": b"new"}
    del expected[deleted]
    assert found == expected
    assert list(found) == sorted(found)


def test_a_block_without_changes_since_the_head_needs_no_delta(home: Path) -> None:
    """The last block with changes may be the head or lie before it."""
    now = source_of(node_a())
    block = CryptoHash(b"\4" * 32)
    add_block(snapshot_folder(home), FlatBlock(block, 1005, CryptoHash(b"\5" * 32)), (CryptoHash(b"\6" * 32), 900), {})
    found = records_of(source_of(home), replace(first_shard(now), flat_head_target=block))
    assert pa.Table.from_batches(found).equals(pa.Table.from_batches(records_of(now, first_shard(now))))


def test_a_dropped_column_is_named(home: Path) -> None:
    """Without the FlatState column in either place there is nothing to read."""
    for data in (home / "data", snapshot_folder(home)):
        drop_column(data, FLAT_STATE)
    source = source_of(home)
    with pytest.raises(ColumnMissingError, match="FlatState"):
        records_of(source, first_shard(source))


def test_a_home_without_a_database_is_named(tmp_path: Path) -> None:
    """The node's home is expected, not a folder inside it."""
    with pytest.raises(SourceError, match="no database folder"):
        read_node_home(tmp_path)
    with pytest.raises(SourceError, match="not a folder"):
        read_node_home(tmp_path / "nowhere")


def test_a_newer_block_is_seen_through_an_open_handle(home: Path, kernel: Kernel) -> None:
    """When the wanted block came after the database was opened, it is opened again."""
    (home / "data" / "state_snapshot").rename(home / "elsewhere")
    later = source_of(home, "context-next.json")
    target = first_shard(later).flat_head_target
    assert target is not None
    key = S0.to_bytes() + target
    with RocksDbReader(home / "data", (FLAT_STATE_DELTA_METADATA,)) as reader:
        metadata = reader.get(FLAT_STATE_DELTA_METADATA, key)
    change_rows(home / "data", FLAT_STATE_DELTA_METADATA, {key: None})
    with pytest.raises(SnapshotMismatchError):
        records_of(later, first_shard(later))
    change_rows(home / "data", FLAT_STATE_DELTA_METADATA, {key: metadata})
    assert state_root(kernel, later, first_shard(later)) == first_shard(later).state_root


# rows that are not as they should be


def some_key(source: NodeSource, *, is_reference: bool) -> tuple[bytes, bytes]:
    """Return key and value hash of a record."""
    rows = [row for batch in records_of(source, first_shard(source)) for row in batch.to_pylist()]
    row = next(row for row in rows if (row["value"] is None) == is_reference)
    return row["key"], row["value_hash"] or sha256(row["value"]).digest()


def test_a_changed_value_gives_another_root(home: Path, kernel: Kernel) -> None:
    """What flat state says is not trusted: the root tells."""
    source = source_of(home)
    fingerprint = source.fingerprint(first_shard(source))
    key, _ = some_key(source, is_reference=False)
    change_rows(snapshot_folder(home), FLAT_STATE, {S0.to_bytes() + key: encode_inlined(b"changed")})
    cached_reader(snapshot_folder(home), FLAT_COLUMNS, reopen=True)
    assert state_root(kernel, source, first_shard(source)) != first_shard(source).state_root
    assert source.fingerprint(first_shard(source)) != fingerprint


@pytest.mark.parametrize(
    "row",
    [b"", b"\1", b"\1\5\0\0\0abc", b"\2\0\0\0\0", b"\0\1\0\0\0" + bytes(31), encode_ref(2**31, bytes(32)), encode_inlined(bytes(4001))],
    ids=["empty", "tag alone", "truncated", "unknown tag", "short hash", "huge reference", "inlined over the limit"],
)
def test_a_row_that_is_no_value_names_its_key(home: Path, row: bytes) -> None:
    """Malformed flat state is an integrity error, never a wrong record."""
    source = source_of(home)
    key, _ = some_key(source_of(node_a()), is_reference=False)
    change_rows(snapshot_folder(home), FLAT_STATE, {S0.to_bytes() + key: row})
    with pytest.raises(IntegrityError, match=key.hex()):
        records_of(source, first_shard(source))


def test_a_short_value_that_is_kept_by_reference_is_inlined(home: Path, kernel: Kernel) -> None:
    """Nodes of before the inlining have such rows; the records come out as always."""
    source = source_of(home)
    rows = [row for batch in records_of(source_of(node_a()), first_shard(source)) for row in batch.to_pylist() if row["value"]][:20]
    references = {S0.to_bytes() + row["key"]: encode_ref(row["value_length"], sha256(row["value"]).digest()) for row in rows}
    change_rows(snapshot_folder(home), FLAT_STATE, references)
    assert state_root(kernel, source, first_shard(source)) == first_shard(source).state_root
    expected = records_of(source_of(node_a()), first_shard(source))
    assert pa.Table.from_batches(records_of(source, first_shard(source))).equals(pa.Table.from_batches(expected))


def test_a_missing_value_is_named(home: Path) -> None:
    """A row of State that is gone is never an empty value."""
    source = source_of(home)
    _, value_hash = some_key(source_of(node_a()), is_reference=True)
    change_rows(home / "data", STATE, {S0.to_bytes() + value_hash: None})
    with pytest.raises(ValueMismatchError, match=value_hash.hex()):
        list(source.values(first_shard(source), [value_hash], BATCH_BYTES))


def test_a_changed_value_in_state_is_refused(home: Path) -> None:
    """Values are checked by their hash."""
    source = source_of(home)
    _, value_hash = some_key(source_of(node_a()), is_reference=True)
    change_rows(home / "data", STATE, {S0.to_bytes() + value_hash: b"another value" + struct.pack("<q", 1)})
    with pytest.raises(ValueMismatchError, match=value_hash.hex()):
        list(source.values(first_shard(source), [value_hash], BATCH_BYTES))


def test_values_of_a_resharded_shard_lie_under_its_parent(home: Path) -> None:
    """A child's rows are found through the mapping of shard uids, and nowhere else."""
    source = source_of(home)
    shard = source.context.shard(90)
    facts = node_facts(node_a())[str(S90)]
    assert (shard.shard_uid, facts["state_prefix_of"]) == (S90, str(S0))
    assert shard.state_root is not None
    change_rows(home / "data", STATE, {S90.to_bytes() + shard.state_root: None})
    assert source.root_memory_usage(shard) == facts["memory_usage"]
    change_rows(home / "data", STATE, {S0.to_bytes() + shard.state_root: None})
    cached_reader(home / "data", (STATE, STATE_SHARD_UID_MAPPING), reopen=True)
    assert source.root_memory_usage(shard) is None


def test_values_that_only_the_cold_store_has_are_found(home: Path) -> None:
    """An archival node's cold store has bare payloads, without a count."""
    source = source_of(home)
    _, value_hash = some_key(source_of(node_a()), is_reference=True)
    (value,) = (value for batch in source.values(first_shard(source), [value_hash], BATCH_BYTES) for value in batch["value"].to_pylist())
    change_rows(home / "data", STATE, {S0.to_bytes() + value_hash: None})
    new_database(home / "cold", {STATE: {S0.to_bytes() + value_hash: value}, STATE_SHARD_UID_MAPPING: {}})
    (home / "config.json").write_text('{"cold_store": {"path": "cold"}} // nearcore allows comments')
    cached_reader(home / "data", (STATE, STATE_SHARD_UID_MAPPING), reopen=True)
    assert [batch["value"].to_pylist() for batch in source.values(first_shard(source), [value_hash], BATCH_BYTES)] == [[value]]


def some_value(home: Path) -> list[list[bytes]]:
    """Read one referenced value of a home."""
    source = source_of(home)
    _, value_hash = some_key(source_of(node_a()), is_reference=True)
    return [batch["value"].to_pylist() for batch in source.values(first_shard(source), [value_hash], BATCH_BYTES)]


def test_a_database_of_before_the_uid_mapping_has_a_prefix_a_shard(home: Path) -> None:
    """For values and root nodes too."""
    shard = first_shard(source_of(home))
    before = some_value(home), source_of(home).root_memory_usage(shard)
    drop_column(home / "data", STATE_SHARD_UID_MAPPING)
    forget_readers()
    assert (some_value(home), source_of(home).root_memory_usage(shard)) == before


@pytest.mark.parametrize("cold", [None, {}, {STATE: {}}])
def test_what_a_cold_store_lacks_is_no_error_of_the_hot_one(home: Path, cold: dict[str, dict[bytes, bytes]] | None) -> None:
    """It may not be there yet, or have none of the column families."""
    before = some_value(home)
    (home / "config.json").write_text('{"cold_store": {"path": "cold"}}')
    if cold is not None:
        new_database(home / "cold", cold)
    forget_readers()
    assert some_value(home) == before


def test_a_cold_store_is_not_opened_for_what_the_hot_one_has(home: Path) -> None:
    """It may lie on a disk that is slow, or in use."""
    before = some_value(home)
    (home / "config.json").write_text('{"cold_store": {"path": "cold"}}')
    (home / "cold").mkdir()
    (home / "cold" / "CURRENT").write_text("MANIFEST-000001\n")
    forget_readers()
    assert some_value(home) == before
    with pytest.raises(SourceError, match="MANIFEST-000001"):
        list(source_of(home).values(first_shard(source_of(home)), [b"\7" * 32], BATCH_BYTES))


def test_a_root_node_that_is_not_there_is_none() -> None:
    """Nothing is guessed where the node has no such root, or no root is given."""
    source = source_of(node_a())
    assert source.root_memory_usage(replace(first_shard(source), state_root=CryptoHash(b"\5" * 32))) is None
    assert source.root_memory_usage(replace(first_shard(source), state_root=None)) is None
    assert source.root_memory_usage(replace(first_shard(source), state_root=CryptoHash(bytes(32)))) == 0


def test_an_empty_shard_has_one_range_and_no_records(home: Path) -> None:
    """A shard with a flat head and no rows is read as empty."""
    head = context_file(home).shards[0].flat_head_target
    assert head is not None
    empty = ShardUId(version=3, shard_id=70)
    ready = encode_ready_status(FlatBlock(head, 1000, CryptoHash(bytes(32))))
    change_rows(snapshot_folder(home), FLAT_STORAGE_STATUS, {empty.to_bytes(): ready})
    source = source_of(home)
    shard = ShardContext(empty, CryptoHash(bytes(32)), head)
    assert source.key_ranges(shard, 1 << 20) == (WHOLE,)
    assert records_of(source, shard) == []


def test_it_says_what_it_reads() -> None:
    """The line for people names the node and the epoch."""
    context: EpochContext = context_file(node_a())
    assert "epoch 41 of fixture-a" in NodeSource("/somewhere", context).describe()
