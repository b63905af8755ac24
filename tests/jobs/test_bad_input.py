"""Bad input: each ends in its own error and exit code, in one line, and nothing is published that could be mistaken for good."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.sources.node_columns import FLAT_STATE, FLAT_STORAGE_STATUS, STATE
from schemas.errors import EXIT_CODES
from schemas.flat_state_value import encode_inlined
from schemas.ids import ShardUId
from tests.support.commands import Outcome, objects_in, statecast, statecast_process
from tests.support.nodes import change_rows, copied, drop_column, localnet_home, node_a, open_writable, snapshot_folder
from tests.support.published import produce, produce_localnet, produce_node_a, signing_key

S0 = ShardUId(version=3, shard_id=0).to_bytes()


def flat_rows(data: Path, prefix: bytes = S0) -> list[tuple[bytes, bytes]]:
    """Return the flat state rows of a shard, ascending."""
    database = open_writable(data)
    family = database.get_column_family(FLAT_STATE)
    rows = [(bytes(key), bytes(row)) for key, row in family.items(from_key=prefix) if bytes(key).startswith(prefix)]
    family.close()
    database.close()
    return rows


def databases(home: Path) -> tuple[Path, ...]:
    """Return both databases of a home: no test may end well because the other one was read."""
    return snapshot_folder(home), home / "data"


def produce_home(home: Path, to: Path, *options: object) -> Outcome:
    """Produce a changed copy of node a."""
    return produce(to, "--node-home", home, "--context", home / "context.json", "--num-parts", 3, *options)


def assert_refused(outcome: Outcome, kind: str, exit_code: int, to: Path, *words: str) -> None:
    """The error is of this kind, said in one line without a traceback, and nothing published looks good."""
    assert exit_code in EXIT_CODES
    assert outcome.code == exit_code, outcome.stderr
    document = outcome.document
    assert (document["message_type"], document["error"]["kind"], document["error"]["exit_code"]) == ("error", kind, exit_code)
    assert "Traceback" not in outcome.stderr
    assert outcome.error_line.startswith("error: ")
    assert document["error"]["message"] in outcome.error_line
    for word in words:
        assert word in outcome.error_line
    assert not [name for name in objects_in(to) if "manifest" in name or name.endswith("latest.json")]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy of node a's home."""
    return copied(node_a(), tmp_path)


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """A folder to publish to."""
    return tmp_path / "out"


# The node


def remove_databases(home: Path) -> None:
    """Leave config and nothing else."""
    shutil.rmtree(home / "data")


def remove_flat_state(home: Path) -> None:
    """Leave no flat state anywhere."""
    shutil.rmtree(home / "data" / "state_snapshot")
    change_rows(home / "data", FLAT_STORAGE_STATUS, {S0: None})


def cut_table_files(home: Path) -> None:
    """Cut every table file of both databases in half, as an interrupted copy does."""
    for folder in databases(home):
        for file in folder.glob("*.sst"):
            # The hard links between the two must not be cut twice.
            half = file.read_bytes()[: max(1, file.stat().st_size // 2)]
            file.unlink()
            file.write_bytes(half)


def lose_table_files(home: Path) -> None:
    """Remove the table files of both databases."""
    for folder in databases(home):
        for file in folder.glob("*.sst"):
            file.unlink()


def drop_flat_state_column(home: Path) -> None:
    """Remove the column family of the flat state."""
    for folder in databases(home):
        drop_column(folder, FLAT_STATE)


def status_not_ready(home: Path) -> None:
    """Set the flat storage status to Disabled."""
    for folder in databases(home):
        change_rows(folder, FLAT_STORAGE_STATUS, {S0: b"\x00"})


def change_record(home: Path) -> None:
    """Change one record's value."""
    for folder in databases(home):
        rows = flat_rows(folder)
        change_rows(folder, FLAT_STATE, {rows[len(rows) // 2][0]: encode_inlined(b"changed")})


def drop_record(home: Path) -> None:
    """Remove one record."""
    for folder in databases(home):
        rows = flat_rows(folder)
        change_rows(folder, FLAT_STATE, {rows[len(rows) // 3][0]: None})


def add_record(home: Path) -> None:
    """Add one record."""
    for folder in databases(home):
        change_rows(folder, FLAT_STATE, {S0 + b"\x00added.near": encode_inlined(b"value")})


def spoil_record(home: Path) -> None:
    """Leave bytes in a row that are no flat state value."""
    for folder in databases(home):
        rows = flat_rows(folder)
        change_rows(folder, FLAT_STATE, {rows[0][0]: b"\x09rubbish"})


def referenced_hash(home: Path) -> bytes:
    """Return the hash of a value that some record of shard 0 refers to: variant 0 of FlatStateValue, length, hash."""
    return next(row[5:37] for _, row in flat_rows(snapshot_folder(home)) if row[0] == 0)


def state_key(home: Path) -> bytes:
    """Return the State row of a referenced value."""
    return S0 + referenced_hash(home)


def lose_value(home: Path) -> None:
    """Remove a referenced value."""
    change_rows(home / "data", STATE, {state_key(home): None})


def change_value(home: Path) -> None:
    """Put other bytes of the same count in the place of a referenced value."""
    change_rows(home / "data", STATE, {state_key(home): b"x" * 5000 + (1).to_bytes(4, "little")})


NODE_DAMAGE: list[tuple[Callable[[Path], None], str, int]] = [
    (remove_databases, "source", 10),
    (remove_flat_state, "snapshot_not_found", 10),
    (cut_table_files, "source", 10),
    (lose_table_files, "source", 10),
    (drop_flat_state_column, "column_missing", 10),
    (status_not_ready, "flat_storage_not_ready", 10),
    (change_record, "state_root_mismatch", 20),
    (drop_record, "state_root_mismatch", 20),
    (add_record, "state_root_mismatch", 20),
    (spoil_record, "integrity", 20),
    (lose_value, "value_mismatch", 20),
    (change_value, "value_mismatch", 20),
]


@pytest.mark.parametrize(("damage", "kind", "exit_code"), [pytest.param(*case, id=case[0].__name__) for case in NODE_DAMAGE])
def test_a_damaged_node_is_refused(home: Path, to: Path, damage: Callable[[Path], None], kind: str, exit_code: int) -> None:
    """Nothing of the damaged shard is published, not even a part."""
    damage(home)
    outcome = produce_home(home, to, "--json", "--shard-id", 0, "--state-walk", "never")
    assert_refused(outcome, kind, exit_code, to)
    assert objects_in(to) == {}


def test_a_damaged_shard_leaves_no_manifest_over_the_good_ones(home: Path, to: Path) -> None:
    """The parts of the other shards may be there already; each validates, and no manifest or pointer speaks for them."""
    change_record(home)
    outcome = produce_home(home, to, "--json")
    assert_refused(outcome, "state_root_mismatch", 20, to, "s0.v3")
    assert not [name for name in objects_in(to) if "shard_id=0" in name]


def test_a_mended_node_is_read_anew(home: Path, to: Path, tmp_path: Path) -> None:
    """After a refused run, a run with the same work folder goes right once the node is right."""
    change_record(home)
    work = tmp_path / "work"
    refused = produce(to, "--node-home", home, "--context", home / "context.json", "--num-parts", 3, work=work)
    assert refused.code == 20
    mended = produce_node_a(to, "--num-parts", 3, work=work)
    assert mended.code == 0, mended.stderr
    assert statecast("check", to, "--in-process").code == 0


def test_a_lock_file_is_no_error(home: Path, to: Path) -> None:
    """A database that a node holds open is read all the same, and its files stay as they are."""
    database = open_writable(home / "data")
    try:
        outcome = produce_home(home, to)
    finally:
        database.close()
    assert outcome.code == 0, outcome.stderr


# The epoch and its context


def test_an_unknown_epoch_is_not_there(to: Path) -> None:
    """An epoch id and a height that the node does not know."""
    for selector in (("--epoch", "999"), ("--epoch-id", "11111111111111111111111111111112")):
        assert_refused(produce_localnet(to, *selector, "--json"), "epoch_not_ready", 11, to)


def test_an_epoch_whose_snapshot_is_gone_is_refused(to: Path) -> None:
    """An older epoch that the node still knows, but has no flat state of, when the State column is not to be walked."""
    outcome = produce_localnet(to, "--epoch", "5", "--json", "--state-walk", "never")
    assert outcome.code in (10, 11)
    assert_refused(outcome, outcome.document["error"]["kind"], outcome.code, to)


def changed_context(folder: Path, **fields: object) -> Path:
    """Write node a's context with some fields changed."""
    document = json.loads((node_a() / "context.json").read_text())
    file = folder / "context.json"
    file.write_text(json.dumps({**document, **fields}))
    return file


@pytest.mark.parametrize(
    ("fields", "kind", "exit_code"),
    [
        ({"prev_block_hash": "11111111111111111111111111111112"}, "snapshot_mismatch", 10),
        ({"epoch_height": -1}, "invalid_input", 2),
        ({"chain_id": "no/chain"}, "invalid_input", 2),
        ({"shards": []}, "invalid_input", 2),
        (
            {"shards": [{"shard_id": 0, "shard_uid": "s0.v3", "state_root": "37sdXjmBZLrU5AjEUiiuYDWCb3EA4XHLV9L743XKLrBn"}]},
            "state_root_mismatch",
            20,
        ),
        ({"shards": [{"shard_id": 7, "shard_uid": "s7.v3", "state_root": None}]}, "snapshot_not_found", 10),
    ],
)
def test_a_wrong_context_is_refused(tmp_path: Path, to: Path, fields: dict[str, object], kind: str, exit_code: int) -> None:
    """A block that can't be reached, values of the wrong form, a root of another shard, a shard that is not there."""
    context = changed_context(tmp_path, **fields)
    outcome = produce(to, "--node-home", node_a(), "--context", context, "--json", "--state-walk", "never")
    assert_refused(outcome, kind, exit_code, to)
    assert objects_in(to) == {}


def test_a_context_that_contradicts_the_node_is_refused(tmp_path: Path, to: Path) -> None:
    """The real node knows its chain id."""
    outcome = produce(to, "--node-home", localnet_home(), "--context", changed_context(tmp_path), "--json")
    assert_refused(outcome, "invalid_input", 2, to, "chain")


def test_a_context_that_is_no_json_is_refused(tmp_path: Path, to: Path) -> None:
    """The file is named."""
    (tmp_path / "context.json").write_text("{")
    outcome = produce(to, "--node-home", node_a(), "--context", tmp_path / "context.json", "--json")
    assert_refused(outcome, "invalid_input", 2, to, "context.json")


# Files


@pytest.mark.parametrize(
    "lines",
    [
        '{"key": "61", "value": "00"}\n{"key": "61", "value": "01"}\n',
        '{"key": "61", "value": "00"}\nnonsense\n',
        '{"key": "6", "value": "00"}\n',
        '{"key": "61"}\n',
        '["61", "00"]\n',
    ],
)
def test_bad_records_are_refused(tmp_path: Path, to: Path, lines: str) -> None:
    """A key twice, a line that is no JSON, half a byte, a field missing, no object."""
    (tmp_path / "records.jsonl").write_text(lines)
    outcome = produce(to, "--from", f"records://{tmp_path / 'records.jsonl'}", "--json")
    assert_refused(outcome, "source", 10, to, "records.jsonl")
    assert objects_in(to) == {}


def test_a_records_file_of_another_state_is_refused(tmp_path: Path, to: Path) -> None:
    """With a context that knows the root, the records must hash to it."""
    (tmp_path / "records.jsonl").write_text('{"key": "61", "value": "00"}\n')
    outcome = produce(
        to,
        *("--from", f"records://{tmp_path / 'records.jsonl'}", "--context", node_a() / "context.json", "--shard-id", 0, "--json"),
    )
    assert_refused(outcome, "state_root_mismatch", 20, to)
    assert objects_in(to) == {}


@pytest.mark.parametrize("text", ["", "{", '{"chain_id": "x"}', '{"chain_id": "x", "records": [{"Nonsense": 1}]}', "[]"])
def test_a_bad_genesis_is_refused(tmp_path: Path, to: Path, text: str) -> None:
    """Cut off, without records, with a record that is none."""
    (tmp_path / "genesis.json").write_text(text)
    outcome = produce(to, "--from", f"genesis://{tmp_path / 'genesis.json'}", "--json")
    assert_refused(outcome, "source", 10, to, "genesis.json")


def exported(tmp_path: Path, file_format: str = "ipc") -> Path:
    """Export shard 0 of node a."""
    folder = tmp_path / "dataset"
    outcome = statecast(
        *("export", "--node-home", node_a(), "--context", node_a() / "context.json", "--shard-id", 0),
        *("--to", f"dataset://{folder}", "--format", file_format, "--in-process"),
    )
    assert outcome.code == 0, outcome.stderr
    return folder


@pytest.mark.parametrize("file_format", ["ipc", "parquet"])
@pytest.mark.parametrize("folder_name", ["flat_state", "values"])
@pytest.mark.parametrize("damage", ["truncate", "remove", "flip", "zero"])
def test_a_damaged_dataset_is_refused(tmp_path: Path, to: Path, file_format: str, folder_name: str, damage: str) -> None:
    """A file cut off, gone, with a byte changed or full of zeros, records or values: no part of it is published, and it is left alone."""
    dataset = exported(tmp_path, file_format)
    file = next(path for path in sorted(dataset.rglob("*")) if path.is_file() and path.parent.name == folder_name)
    data = bytearray(file.read_bytes())
    if damage == "truncate":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "remove":
        file.unlink()
    elif damage == "zero":
        file.write_bytes(bytes(len(data)))
    else:
        # In the middle of the records' own bytes: metadata that nobody reads would change nothing.
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)
    before = objects_in(dataset)
    outcome = produce(to, "--from", f"dataset://{dataset}", "--json")
    if damage != "flip":
        assert_refused(outcome, "dataset", 10, to, file.name)
    else:
        assert outcome.code in (10, 20), outcome.stderr
        assert_refused(outcome, outcome.document["error"]["kind"], outcome.code, to)
    assert objects_in(to) == {}
    assert objects_in(dataset) == before


def test_a_dataset_with_a_changed_summary_is_refused(tmp_path: Path, to: Path) -> None:
    """shard.json cut off, and a folder without one."""
    dataset = exported(tmp_path)
    (summary,) = dataset.rglob("shard.json")
    summary.write_bytes(summary.read_bytes()[:100])
    assert_refused(produce(to, "--from", f"dataset://{dataset}", "--json"), "dataset", 10, to, "shard.json")
    summary.unlink()
    assert_refused(produce(to, "--from", f"dataset://{dataset}", "--json"), "dataset", 10, to)


# The destination


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    """Let no file of this process grow over 64 KiB: writing more fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("file_size_limit")
def test_a_full_disk_is_named(to: Path, tmp_path: Path) -> None:
    """The store is full in the middle of a run: its own error, no manifest, and no half-written object."""
    outcome = produce_node_a(to, "--json", work=tmp_path / "work")
    assert_refused(outcome, "store_full", 30, to)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == 64 << 10] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(to: Path) -> None:
    """Denied is its own error."""
    to.mkdir(mode=0o500)
    assert_refused(produce_node_a(to, "--json"), "store_denied", 30, to)


def test_a_place_that_nobody_may_write_is_named() -> None:
    """A folder of the kernel's own file system refuses root too."""
    outcome = produce_node_a("/sys/kernel/statecast", "--json")
    assert outcome.code == 30, outcome.stderr
    assert outcome.document["error"]["kind"] in ("store_denied", "store")
    assert "/sys/kernel/statecast" in outcome.error_line


def test_a_file_in_the_place_of_the_folder_is_named(to: Path) -> None:
    """The destination is a file."""
    to.write_text("")
    outcome = produce_node_a(to, "--json")
    assert outcome.code == 30, outcome.stderr
    assert str(to) in outcome.error_line
    assert to.read_text() == ""


@pytest.mark.parametrize("url", ["ftp://host/folder", "", "s3://", "gs:///x"])
def test_a_destination_that_is_none_is_a_usage_error(url: str) -> None:
    """Schemes that nobody knows, buckets without a name."""
    outcome = produce_node_a(url, "--json")
    assert outcome.code == 2, outcome.stderr
    assert outcome.document["error"]["kind"] == "invalid_input"


# Keys


@pytest.mark.parametrize("text", ["", "{}", '{"public_key": "ed25519:x", "secret_key": "ed25519:y"}'])
def test_a_bad_signing_key_is_refused_before_any_work(tmp_path: Path, to: Path, text: str) -> None:
    """And its content is never shown."""
    key = tmp_path / "key.json"
    key.write_text(text)
    key.chmod(0o600)
    outcome = statecast(
        *("produce", "--node-home", node_a(), "--context", node_a() / "context.json", "--to", to, "--signing-key", key),
        *("--work", tmp_path / "work", "--in-process", "--json"),
    )
    assert_refused(outcome, "signature", 21, to, str(key))
    assert not (tmp_path / "work").exists()


def test_without_a_key_nothing_is_published(tmp_path: Path, to: Path) -> None:
    """Unsigned is an option that must be asked for."""
    outcome = statecast_process(
        *("produce", "--node-home", node_a(), "--context", node_a() / "context.json", "--to", to, "--in-process", "--json"),
        environment={"HOME": str(tmp_path)},
    )
    assert_refused(outcome, "invalid_input", 2, to, "--allow-unsigned")
    assert objects_in(to) == {}


def test_a_signing_key_that_others_can_read_is_refused(tmp_path: Path, to: Path) -> None:
    """Mode 0644 is too open for a key."""
    key = tmp_path / "key.json"
    key.write_bytes(signing_key().read_bytes())
    key.chmod(0o644)
    outcome = statecast("produce", "--node-home", localnet_home(), "--to", to, "--signing-key", key, "--in-process", "--json")
    assert_refused(outcome, "signature", 21, to, "chmod 600")


def test_the_work_folders_damage_reaches_no_reader(tmp_path: Path, to: Path) -> None:
    """Interiors of an earlier run that were damaged since are found before any part of them is put."""
    work = tmp_path / "work"
    assert produce_node_a(tmp_path / "first", "--num-parts", 3, "--keep-work", "--shard-id", 0, work=work).code == 0
    interiors = [path for path in work.rglob("interior-*")]
    assert len(interiors) == 3
    damaged = bytearray(interiors[1].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    interiors[1].write_bytes(damaged)
    outcome = produce_node_a(to, "--num-parts", 3, "--shard-id", 0, "--json", work=work)
    assert outcome.code == 20, outcome.stderr
    assert "in that folder is damaged: delete it" in outcome.error_line
    names = objects_in(to)
    good = {name: hashlib.sha256((tmp_path / "first" / name).read_bytes()).hexdigest() for name in names}
    assert names == good
    assert not [name for name in names if "manifest" in name]
