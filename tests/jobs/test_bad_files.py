"""Bad files, places and keys: each ends in its own error and exit code, and nothing is published that could be mistaken for good."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import objects_in, statecast, statecast_process
from tests.support.nodes import localnet_home, node_a
from tests.support.published import produce, produce_node_a, signing_key
from tests.support.refusals import assert_refused


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """A folder to publish to."""
    return tmp_path / "out"


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
        # In the middle of the records' own bytes: metadata that is never read would change nothing.
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


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(to: Path, tmp_path: Path) -> None:
    """Denied is its own error."""
    to.mkdir(mode=0o500)
    home = node_a()
    outcome = statecast_process(
        *("produce", "--node-home", home, "--context", home / "context.json", "--to", to, "--signing-key", signing_key()),
        *("--work", f"file://{tmp_path / 'work'}", "--in-process", "--json"),
        # Root without its powers is a user like any.
        before=["setpriv", "--bounding-set=-all"] if os.geteuid() == 0 else [],
    )
    assert_refused(outcome, "store_denied", 30, to)


def test_a_place_that_is_not_writable_is_named() -> None:
    """A folder of the kernel's own file system refuses root too."""
    outcome = produce_node_a("/sys/kernel/statecast", "--no-preflight", "--json")
    assert outcome.code == 30, outcome.stderr
    assert outcome.document["error"]["kind"] in ("store_denied", "store")
    assert "/sys/kernel/statecast" in outcome.error_line


def test_a_file_in_the_place_of_the_folder_is_named(to: Path) -> None:
    """The destination is a file: the look before the run says so."""
    to.write_text("")
    outcome = produce_node_a(to, "--json")
    assert outcome.code == 2, outcome.stderr
    assert str(to) in outcome.error_line
    assert to.read_text() == ""


@pytest.mark.parametrize("url", ["ftp://host/folder", "", "s3://", "gs:///x"])
def test_a_destination_that_is_none_is_a_usage_error(url: str) -> None:
    """Unknown schemes, buckets without a name."""
    outcome = produce_node_a(url, "--json")
    assert outcome.code == 2, outcome.stderr
    assert outcome.document["error"]["kind"] == "invalid_input"


@pytest.mark.parametrize("url", ["gs://", "s3://", "az:///", "http://ex ample/x", "http://\u00b2/", "http://[::1/x", "ftp://[", "x" * 300])
@pytest.mark.parametrize("command", ["fetch", "check", "gc", "catalogue", "inspect"])
def test_a_place_to_read_that_is_none_is_a_usage_error(url: str, command: str, tmp_path: Path) -> None:
    """Not an epoch that is not there, nor a fault of a server; nothing is looked for in a folder named gs:."""
    options = {
        "fetch": ("--chain-id", "testnet", "--into", tmp_path / "into", "--insecure"),
        "gc": ("--keep-epochs", 2, "--plan"),
        "catalogue": ("--chain-id", "testnet"),
    }
    outcome = statecast(command, url, *options.get(command, ()))
    assert outcome.code == 2, outcome.stderr


@pytest.mark.parametrize(
    ("option", "place"),
    [
        ("--dataset", "http://h/x"),
        ("--dataset", "s3://"),
        ("--dataset", "x" * 300),
        ("--tables", "gs://"),
        ("--web-seed", "http://h:port/"),
        ("--tracker", "http://[::1/x"),
        ("--rpc", "http://ex ample/x"),
    ],
)
def test_a_plan_refuses_what_the_run_would_refuse(option: str, place: str, to: Path) -> None:
    """Before anything is read."""
    home = node_a()
    given = ("--node-home", home, "--context", home / "context.json", "--to", to, "--allow-unsigned")
    outcome = statecast("produce", *given, option, place, "--plan")
    assert outcome.code == 2, outcome.stderr


LONG = "x" * 5000


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", LONG),
        ("produce", "--from", f"genesis://{LONG}", "--to", "out", "--plan", "--allow-unsigned"),
        ("serve", LONG, "--listen", "127.0.0.1:0"),
        ("seed", "out", "--data", LONG, "--insecure", "--once"),
    ],
)
def test_a_path_that_can_be_none_is_a_usage_error(arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the system says when it is looked at."""
    monkeypatch.chdir(tmp_path)
    outcome = statecast(*arguments)
    assert outcome.code == 2 and "File name too long" in outcome.error_line, outcome.stderr


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
    assert_refused(outcome, "invalid_input", 2, to, str(key))
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
    assert_refused(outcome, "invalid_input", 2, to, "chmod 600")


def test_the_work_folders_damage_reaches_no_reader(tmp_path: Path, to: Path) -> None:
    """Files of an earlier run that were damaged since are noticed and made again, and the parts come out right.

    From a dataset, whose parts wait for their root, so that interiors lie there too.
    """
    work, dataset = tmp_path / "work", f"dataset://{tmp_path / 'state'}"
    context = node_a() / "context.json"
    exported = statecast("export", "--node-home", node_a(), "--context", context, "--shard-id", 0, "--to", dataset, "--in-process")
    assert exported.code == 0, exported.stderr
    assert produce(tmp_path / "first", "--from", dataset, "--num-parts", 3, "--keep-work", work=work).code == 0
    for pattern in ("interior-*", "edge-*", "boundary_nodes-*"):
        found = sorted(work.rglob(pattern))
        assert found, pattern
        damaged = bytearray(found[-1].read_bytes())
        damaged[len(damaged) // 2] ^= 1
        found[-1].write_bytes(damaged)
    outcome = produce(to, "--from", dataset, "--num-parts", 3, "--json", work=work)
    assert outcome.code == 0, outcome.stderr
    parts = {name: digest for name, digest in objects_in(to).items() if "/state_part_" in name}
    assert len(parts) == 3
    assert parts == {name: hashlib.sha256((tmp_path / "first" / name).read_bytes()).hexdigest() for name in parts}
