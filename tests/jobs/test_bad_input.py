"""Bad nodes and contexts: each ends in its own error and exit code, in one line, and nothing is published that could be mistaken for good."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.near.node.node_columns import FLAT_STATE, FLAT_STORAGE_STATUS, STATE
from schemas.dataset.flat_state_value import encode_inlined
from schemas.ids import ShardUId
from tests.support.commands import Outcome, objects_in, statecast
from tests.support.nodes import change_rows, copied, drop_column, localnet_home, node_a, open_writable, snapshot_folder
from tests.support.published import produce, produce_localnet, produce_node_a
from tests.support.refusals import assert_refused

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
