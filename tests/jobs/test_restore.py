"""``statecast restore``: parts become a dataset or a database again, with nothing under a final name that is not proved."""

from __future__ import annotations

import json
import random
import resource
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.dataset.arrow_dataset import list_shards
from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node.node_columns import FLAT_STATE, FLAT_STORAGE_STATUS, STATE, STATE_SHARD_UID_MAPPING
from pipelines.near.node.node_store import NodeSource
from pipelines.near.node.rocksdb_reader import MERGE_DELIMITER, RocksDbReader
from pipelines.restoring.rocksdb_writer import UNFINISHED_SUFFIX
from schemas.nearcore.epoch_context import parse_epoch_context
from schemas.nearcore.flat_storage import decode_flat_storage_status
from tests.support.commands import Outcome, epoch_folder, kill_when, objects_in, part_names, start_process, statecast
from tests.support.native_wheel import needs_headers
from tests.support.nodes import localnet, localnet_home, node_a, snapshot_folder
from tests.support.published import produce, produce_localnet, published_localnet, published_node_a, session_folder

NUM_PARTS = 5


@pytest.fixture(scope="module")
def parts() -> Path:
    """The localnet published in five parts a shard. It must not be changed."""
    folder = session_folder() / "localnet-in-five"
    outcome = produce_localnet(folder, "--num-parts", NUM_PARTS)
    assert outcome.code == 0, outcome.stderr
    return folder


def restore(parts: Path, to: str, *options: object) -> Outcome:
    """Run the command in this process, with JSON."""
    return statecast("restore", parts, "--to", to, "--in-process", "--json", *options)


def restored(parts: Path, to: str, *options: object) -> Outcome:
    """Run the command and expect it to end well."""
    outcome = restore(parts, to, *options)
    assert outcome.code == 0, outcome.stderr
    return outcome


@pytest.fixture(scope="module")
def database(parts: Path) -> Path:
    """The localnet's newest epoch as a database. It must not be changed."""
    home = session_folder() / "restored-localnet"
    restored(parts, f"rocksdb://{home}")
    return home


@pytest.fixture(scope="module")
def database_a() -> Path:
    """Node a's state as a database. It must not be changed."""
    home = session_folder() / "restored-node-a"
    restored(published_node_a(), f"rocksdb://{home}", "--context", node_a() / "context.json")
    return home


# what comes out


@needs_headers
def test_the_dataset_gives_the_same_parts_again(parts: Path, tmp_path: Path) -> None:
    """Records and referenced values: producing from the restored dataset publishes the same parts.

    Not the headers: what restore believes of one is far from all of it.
    """
    outcome = restored(parts, f"dataset://{tmp_path}/state")
    assert {row["root_proved"] for row in outcome.document["shards"]} == {True}
    again = produce(tmp_path / "again", "--from", f"dataset://{tmp_path}/state", "--num-parts", NUM_PARTS)
    assert again.code == 0, again.stderr
    assert [objects_in(tmp_path / "again")[name] for name in part_names(parts)] == [objects_in(parts)[name] for name in part_names(parts)]
    assert part_names(tmp_path / "again") == part_names(parts)
    assert [name for name in objects_in(parts) if name.endswith("/header")]
    assert not [name for name in objects_in(tmp_path / "again") if name.endswith("/header")]
    assert "state header missing, shard 3: the dataset's was not verified in full" in again.stdout


@needs_headers
def test_a_restored_header_is_kept_where_our_key_stands_behind_it(parts: Path, tmp_path: Path) -> None:
    """Produced back into the place that it was fetched from, by the same key: manifest and headers stay; another key is refused."""
    copy = tmp_path / "parts"
    shutil.copytree(parts, copy)
    restored(parts, f"dataset://{tmp_path}/state", "--shard-id", 3)
    (epoch_folder(copy) / "shard_id=3" / f"state_part_000002_of_{NUM_PARTS:06d}").unlink()
    before = objects_in(parts)
    options = (copy, "--from", f"dataset://{tmp_path}/state", "--num-parts", NUM_PARTS)
    refused = produce(*options, key="second")
    assert (refused.code, "can't stand behind" in refused.error_line) == (21, True)
    again = produce(*options)
    assert again.code == 0, again.stderr
    assert {name: data for name, data in objects_in(copy).items() if "/headers/" in name or "/statements/" in name} == {
        name: data for name, data in before.items() if "/headers/" in name or "/statements/" in name
    }


def test_the_dataset_holds_each_referenced_value_once(parts: Path, tmp_path: Path) -> None:
    """And nothing of what was only kept meanwhile."""
    restored(parts, f"dataset://{tmp_path}/state")
    for shard in list_shards(f"{tmp_path}/state"):
        assert shard.summary.verified_state_root == shard.summary.shard.state_root
        records = [batch for index in range(len(shard.summary.files)) for batch in shard.read_file(index)]
        wanted = {value_hash for batch in records for value_hash in batch.column(3).drop_null().to_pylist()}
        assert sum(file.values for file in (*shard.summary.values_files, *shard.summary.shared_values_files)) == len(wanted)
        assert sum(batch.num_rows for batch in shard.read_values(records)) == len(wanted)
    assert not list((tmp_path / "state").rglob("*.values.arrow"))


def test_the_database_gives_the_same_parts_again(parts: Path, database: Path, tmp_path: Path) -> None:
    """Read as a node's home, with the context that lies beside it. Headers are not: without blocks nothing can verify them."""
    again = produce(tmp_path / "again", "--node-home", database, "--context", database / "context.json", "--num-parts", NUM_PARTS)
    assert again.code == 0, again.stderr
    wanted = [name for name in objects_in(parts) if "/state_part_" in name]
    assert len(wanted) == 4 * NUM_PARTS
    assert [objects_in(tmp_path / "again").get(name) for name in wanted] == [objects_in(parts)[name] for name in wanted]
    assert not [name for name in objects_in(tmp_path / "again") if name.endswith("/header")]
    assert "state header missing, shard 3: " in again.stdout


def test_the_database_names_its_root_nodes(database: Path) -> None:
    """The State column has the node of each state root, with the memory usage that the node itself has."""
    context = parse_epoch_context((database / "context.json").read_bytes(), "context.json")
    ours, nodes = NodeSource(str(database), context), NodeSource(str(localnet_home()), context)
    for shard in context.shards:
        assert ours.root_memory_usage(shard) == nodes.root_memory_usage(shard) is not None


def rows_of(reader: RocksDbReader, column: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """Yield the rows of a column below a prefix."""
    for rows in reader.scan(column, prefix, prefix + b"\xff" * 4000):
        yield from rows


def test_flat_state_rows_are_the_snapshots_own(database: Path) -> None:
    """Byte for byte, every row of every shard."""
    with RocksDbReader(snapshot_folder(localnet_home()), (FLAT_STATE,)) as node, RocksDbReader(database / "data", (FLAT_STATE,)) as ours:
        assert list(rows_of(ours, FLAT_STATE)) == list(rows_of(node, FLAT_STATE))


def test_the_flat_head_is_the_snapshots(database: Path) -> None:
    """FlatStorageStatus is Ready at the block that the state root belongs to."""
    with (
        RocksDbReader(snapshot_folder(localnet_home()), (FLAT_STORAGE_STATUS,)) as node,
        RocksDbReader(database / "data", (FLAT_STORAGE_STATUS,)) as ours,
    ):
        heads = [
            {key: decode_flat_storage_status(row, "").flat_head for key, row in rows_of(reader, FLAT_STORAGE_STATUS)}
            for reader in (node, ours)
        ]
    assert {key: head.hash for key, head in heads[0].items() if head} == {key: head.hash for key, head in heads[1].items() if head}


def merged(row: bytes) -> tuple[bytes, int]:
    """Return payload and count of a node's row, pending operands joined."""
    operands = [operand for operand in row.split(MERGE_DELIMITER) if operand]
    payload = next((operand[:-8] for operand in operands if len(operand) > 8), b"")
    return payload, sum(struct.unpack("<q", operand[-8:])[0] for operand in operands)


def test_reference_counts_are_nearcores(database_a: Path) -> None:
    """Each row of State has nearcore's payload and, its pending operands joined, exactly nearcore's count.

    The shard that was born by resharding keeps its rows under its parent's prefix at the node, and under its own here: there the sum
    of the two is the node's.
    """
    with (
        RocksDbReader(node_a() / "data", (STATE, STATE_SHARD_UID_MAPPING)) as node,
        RocksDbReader(database_a / "data", (STATE,)) as ours,
    ):
        counts: Counter[bytes] = Counter()
        for key, row in rows_of(ours, STATE):
            node_key = (node.get(STATE_SHARD_UID_MAPPING, key[:8]) or key[:8]) + key[8:]
            row_of_node = node.get(STATE, node_key)
            assert row_of_node is not None
            assert merged(row_of_node)[0] == row[:-8]
            counts[node_key] += struct.unpack("<q", row[-8:])[0]
        assert len(counts) > 3000
        assert {key: merged(node.get(STATE, key) or b"")[1] for key in counts} == counts


def test_reference_counts_are_never_above_those_of_a_running_chain(database: Path) -> None:
    """A real node keeps several roots, whose references come on top; nearly all rows are of one root alone and agree."""
    equal, all_rows = 0, 0
    with RocksDbReader(localnet_home() / "data", (STATE,)) as node, RocksDbReader(database / "data", (STATE,)) as ours:
        for key, row in rows_of(ours, STATE):
            payload, count = merged(node.get(STATE, key) or b"")
            references = struct.unpack("<q", row[-8:])[0]
            assert (payload, references <= count) == (row[:-8], True)
            equal += references == count
            all_rows += 1
    assert equal > 0.98 * all_rows


# input without a manifest


def test_a_dump_of_neards_needs_a_context(tmp_path: Path) -> None:
    """nearcore's own dumper writes no manifest, so the roots must be given."""
    outcome = restore(localnet() / "dump", f"dataset://{tmp_path}/state", "--epoch", 6)
    assert (outcome.code, outcome.document["error"]["kind"]) == (2, "invalid_input")
    context = epoch_context_from_node(localnet_home(), "6")
    (tmp_path / "context.json").write_text(json.dumps(context.to_json()))
    done = restored(localnet() / "dump", f"dataset://{tmp_path}/state", "--epoch", 6, "--context", tmp_path / "context.json")
    assert [row["state_root"] for row in done.document["shards"]] == [str(shard.state_root) for shard in context.shards]


def test_one_shard_is_restored_by_options_alone(tmp_path: Path) -> None:
    """State root, shard uid, sync hash and protocol version are all that has to be known."""
    shard = epoch_context_from_node(localnet_home(), "6").shard(3)
    options = ("--epoch", 6, "--shard-id", 3, "--shard-uid", shard.shard_uid, "--sync-hash", "1" * 32, "--protocol-version", 74)
    done = restored(localnet() / "dump", f"rocksdb://{tmp_path}/state", *options, "--state-root", shard.state_root)
    (row,) = done.document["shards"]
    assert (row["state_root"], row["root_proved"]) == (str(shard.state_root), False)
    wrong = restore(localnet() / "dump", f"rocksdb://{tmp_path}/other", *options, "--state-root", "1" * 31 + "2")
    assert (wrong.code, wrong.document["error"]["kind"]) == (20, "state_root_mismatch")
    assert not (tmp_path / "other").exists()


# what is refused


def damaged(tmp_path: Path, source: Path, shard_id: int, part: int) -> Path:
    """Return a copy of published parts with one byte of one part changed."""
    copy = tmp_path / "parts"
    shutil.copytree(source, copy)
    (path,) = (epoch_folder(copy) / f"shard_id={shard_id}").glob(f"state_part_{part:06d}_of_*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return copy


@pytest.mark.parametrize("scheme", ["dataset", "rocksdb"])
@pytest.mark.parametrize("signed", [True, False])
def test_a_damaged_part_is_refused_by_name(parts: Path, tmp_path: Path, scheme: str, signed: bool) -> None:
    """By its digest where a manifest has it, else by the trie; and nothing gets a final name."""
    copy = damaged(tmp_path, parts, 1, 3)
    options: tuple[object, ...] = ()
    if not signed:
        (epoch_folder(copy) / "manifest.json").unlink()
        (tmp_path / "context.json").write_text(json.dumps(epoch_context_from_node(localnet_home(), "6").to_json()))
        options = ("--context", tmp_path / "context.json")
    outcome = restore(copy, f"{scheme}://{tmp_path}/state", "--shard-id", 1, *options)
    assert outcome.code == 20, outcome.stderr
    assert "state_part_000003_of_000005" in outcome.document["error"]["message"]
    assert not list((tmp_path / "state").rglob("shard.json"))
    assert scheme == "dataset" or not (tmp_path / "state").exists()


def test_a_missing_part_is_named(parts: Path, tmp_path: Path) -> None:
    """Before anything is written."""
    copy = tmp_path / "parts"
    shutil.copytree(parts, copy)
    (epoch_folder(copy) / "shard_id=2" / "state_part_000004_of_000005").unlink()
    outcome = restore(copy, f"rocksdb://{tmp_path}/state")
    assert (outcome.code, outcome.document["error"]["kind"]) == (30, "object_not_found")
    assert "1 of the 5 parts of shard s2.v0 are missing, among them 4" in outcome.document["error"]["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts"]


def test_shards_that_were_not_fetched_are_left_out_and_said(parts: Path, tmp_path: Path) -> None:
    """A folder with one shard of four restores that one."""
    copy = tmp_path / "parts"
    shutil.copytree(parts, copy)
    for shard_id in (0, 2, 3):
        shutil.rmtree(epoch_folder(copy) / f"shard_id={shard_id}")
    outcome = restored(copy, f"dataset://{tmp_path}/state")
    assert [row["shard_uid"] for row in outcome.document["shards"]] == ["s1.v0"]
    assert outcome.document["absent_shard_ids"] == [0, 2, 3]


def test_a_folder_that_is_there_is_left_alone(parts: Path, tmp_path: Path) -> None:
    """Whatever it holds."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "mine").touch()
    outcome = restore(parts, f"rocksdb://{tmp_path}/state")
    assert (outcome.code, outcome.document["error"]["kind"]) == (30, "object_exists")
    assert [path.name for path in tmp_path.rglob("*")] == ["state", "mine"]


def test_a_finished_restore_is_not_done_again(database: Path, parts: Path) -> None:
    """The same command finds its own result."""
    before = objects_in(database)
    restored(parts, f"rocksdb://{database}")
    assert objects_in(database) == before


@pytest.mark.parametrize("file_bytes_max", [8 << 10, 70 << 10, 110 << 10])
def test_a_disk_that_fills_up_is_said_and_gone_on_from(parts: Path, database: Path, tmp_path: Path, file_bytes_max: int) -> None:
    """Files may not grow further, wherever it happens: a typed error, no final name, and a rerun that has room ends right."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, limits[1]))
    try:
        outcome = restore(parts, f"rocksdb://{tmp_path}/state")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (outcome.code, outcome.document["error"]["kind"]) == (30, "store_full")
    assert not (tmp_path / "state").exists()
    assert_ends_right(parts, database, tmp_path)


# killed


MOMENTS = {
    "a part is applied": ".state.restoring/shard_uid=*/part-000002.json",
    "a bucket is merged": ".state.restoring/shard_uid=*/state-0000.json",
    "the database is made": ".state.restoring/home-*/data/CURRENT",
    "the database is proved": ".state.restoring/home-*/restore.json",
    "the database has its name": "state/restore.json",
}
"""What has just happened when the process is killed, and the file that shows it."""


def assert_nothing_half_written(folder: Path) -> None:
    """No file of the work folder has its name before it is whole, and the database has no name before it is proved."""
    assert not (folder / "state").exists() or (folder / "state" / "restore.json").exists()
    for summary in folder.glob(".state.restoring/shard_uid=*/*.json"):
        json.loads(summary.read_text())


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_restore_is_gone_on_with(parts: Path, database: Path, tmp_path: Path, moment: str) -> None:
    """SIGKILL as soon as a step has left its file, then the same command again."""
    process = start_restore(parts, tmp_path)
    kill_when(process, lambda: next(tmp_path.glob(MOMENTS[moment]), None) is not None)
    assert_nothing_half_written(tmp_path)
    assert_ends_right(parts, database, tmp_path)


def start_restore(parts: Path, folder: Path) -> subprocess.Popen[str]:
    """Start a restore in a process of its own."""
    return start_process("restore", parts, "--to", f"rocksdb://{folder}/state", "--in-process")


def assert_ends_right(parts: Path, database: Path, folder: Path) -> None:
    """The same command ends with the same rows as an undisturbed run, and leaves nothing else."""
    restored(parts, f"rocksdb://{folder}/state")
    assert sorted(path.name for path in folder.iterdir()) == ["state"]
    assert not list(folder.rglob(f"*{UNFINISHED_SUFFIX}"))
    columns = (FLAT_STATE, STATE, FLAT_STORAGE_STATUS)
    with RocksDbReader(folder / "state" / "data", columns) as found, RocksDbReader(database / "data", columns) as expected:
        for column in columns:
            assert list(rows_of(found, column)) == list(rows_of(expected, column))


@pytest.mark.slow
def test_a_restore_killed_at_any_time_is_gone_on_with(parts: Path, database: Path, tmp_path: Path) -> None:
    """Ten kills at random times within one restore."""
    chance = random.Random(4)
    for _ in range(10):
        process = start_restore(parts, tmp_path)
        try:
            process.communicate(timeout=chance.uniform(0.5, 3.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        assert_nothing_half_written(tmp_path)
    assert_ends_right(parts, database, tmp_path)


def test_a_killed_dataset_is_gone_on_with(parts: Path, tmp_path: Path) -> None:
    """The dataset of a run that was killed is the one of an undisturbed run."""
    process = start_process("restore", parts, "--to", f"dataset://{tmp_path}/state", "--in-process")
    kill_when(process, lambda: next((tmp_path / "state").rglob("range-000003.json"), None) is not None)
    restored(parts, f"dataset://{tmp_path}/state")
    restored(parts, f"dataset://{tmp_path}/whole")
    assert objects_in(tmp_path / "state") == objects_in(tmp_path / "whole")


@pytest.mark.slow
def test_restoring_on_ray_leaves_the_same_rows(parts: Path, database: Path, tmp_path: Path) -> None:
    """Tasks pass through Ray's workers as they are."""
    outcome = statecast("restore", parts, "--to", f"rocksdb://{tmp_path}/state", "--json", "--workers", 2)
    assert outcome.code == 0, outcome.stderr
    with RocksDbReader(tmp_path / "state" / "data", (STATE,)) as found, RocksDbReader(database / "data", (STATE,)) as expected:
        assert list(rows_of(found, STATE)) == list(rows_of(expected, STATE))


def test_an_empty_shard_is_restored_as_empty(tmp_path: Path) -> None:
    """No parts, no rows, the root of zeros."""
    copy = tmp_path / "parts"
    shutil.copytree(published_localnet(), copy)
    folder = epoch_folder(copy)
    context = epoch_context_from_node(localnet_home(), "6").to_json()
    context["shards"][0]["state_root"] = "1" * 32
    (tmp_path / "context.json").write_text(json.dumps(context))
    (folder / "manifest.json").unlink()
    shutil.rmtree(folder / "shard_id=0")
    shutil.rmtree(folder / "headers" / "shard_id=0")
    for to in (f"rocksdb://{tmp_path}/state", f"dataset://{tmp_path}/dataset"):
        (row,) = restored(copy, to, "--shard-id", 0, "--context", tmp_path / "context.json").document["shards"]
        assert (row["records"], row["memory_usage"], row["num_parts"]) == (0, 0, 0)
