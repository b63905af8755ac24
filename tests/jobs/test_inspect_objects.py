"""inspect knows all that statecast writes; what it does not know is a usage error."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.commands import epoch_folder, statecast
from tests.support.nodes import localnet_home
from tests.support.published import published_localnet, session_folder


@lru_cache
def written() -> Path:
    """Return a folder with what commands leave beside a published epoch."""
    folder = session_folder() / "written"
    folder.mkdir()
    for command in (
        ("export", "--node-home", localnet_home(), "--to", f"dataset://{folder / 'dataset'}", "--shard-id", 0),
        ("tables", f"dataset://{folder / 'dataset'}", "--to", folder / "tables"),
        ("restore", published_localnet(), "--to", f"rocksdb://{folder / 'database'}", "--shard-id", 0),
    ):
        outcome = statecast(*command, "--in-process")
        assert outcome.code == 0, outcome.stderr
    proven = statecast("prove", "--node-home", localnet_home(), "--account", "near", "--out", folder / "proof")
    assert proven.code == 0, proven.stderr
    return folder


PUBLISHED = {
    "manifest.json": "manifest",
    "manifests/000001.json": "manifest",
    "statements/shard_id=0.json": "statement",
    "shard_id=0/state_part_000000_of_000001": "state_part",
    "headers/shard_id=0/header": "state_header",
    "torrents/shard_id=0.torrent": "torrent",
    "../../latest.json": "latest_pointer",
    "../../catalogue.json": "catalogue",
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("renamed", [False, True])
def test_each_published_object_is_shown(name: str, renamed: bool, tmp_path: Path) -> None:
    """Under its name and under any other; for people too."""
    file = (epoch_folder(published_localnet()) / name).resolve()
    if renamed:
        (tmp_path / "some file").write_bytes(file.read_bytes())
        file = tmp_path / "some file"
    outcome = statecast("inspect", file, "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.document["kind"] == PUBLISHED[name]
    assert statecast("inspect", file).code == 0


WRITTEN = {
    "dataset": "dataset",
    "tables": "tables",
    "database": "restored_database",
    "database/context.json": "epoch_context",
    "proof": "proof",
    "dataset/**/shard.json": "dataset_shard",
    "dataset/**/*.arrow": "record_batches",
    "tables/**/*.parquet": "record_batches",
    "tables/_epochs/*/tables.json": "tables_epoch",
    "tables/_epochs/*/*/tables.json": "tables_shard",
    "tables/_catalogue.json": "tables_catalogue",
}


@pytest.mark.parametrize("pattern", WRITTEN)
def test_each_result_of_a_command_is_shown(pattern: str) -> None:
    """Files and folders."""
    found = sorted(written().glob(pattern))[0]
    outcome = statecast("inspect", found, "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.document["kind"] == WRITTEN[pattern]
    assert statecast("inspect", found).code == 0
    if pattern == "database":
        assert outcome.document["epoch_height"] == 6 and outcome.document["shards"][0]["shard_uid"] == "s0.v0"


@pytest.mark.parametrize("content", [b"", b"hello", b"{}", b"[1]", b'{"payload": 1', b"PAR1", b"ARROW1", b"d3:abc", bytes(500), None])
def test_what_is_not_known_is_a_usage_error(content: bytes | None, tmp_path: Path) -> None:
    """A file of another kind or a folder, without a word about damage: it was never right."""
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    outcome = statecast("inspect", tmp_path if content is None else tmp_path / "file")
    assert (outcome.code, "inspect does not know what this is" in outcome.error_line) == (2, True), outcome.stderr


def test_a_damaged_object_under_its_own_name_is_still_damaged(tmp_path: Path) -> None:
    """The name says what it should be."""
    name = epoch_folder(published_localnet()).relative_to(published_localnet()) / "manifest.json"
    file = tmp_path / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"{}")
    assert statecast("inspect", file).code == 21


def test_record_batches_are_counted_and_not_decompressed(tmp_path: Path) -> None:
    """One says that it takes a terabyte: it may as well be true, of a file of some kilobytes."""
    batch = pa.record_batch([pa.array([b"a", b"b"], pa.binary()), pa.array([bytes(999_983), b""], pa.binary())], names=["key", "value"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    data = sink.getvalue().to_pybytes()
    said = (999_983).to_bytes(8, "little")
    assert data.count(said) == 1
    (tmp_path / "file").write_bytes(data.replace(said, (1 << 40).to_bytes(8, "little")))
    outcome = statecast("inspect", tmp_path / "file", "--json")
    assert outcome.code == 0, outcome.stderr
    assert (outcome.document["records"], outcome.document["columns"]) == (2, ["key", "value"])


@pytest.mark.parametrize(
    "content",
    [
        b"PAR1" + b"x" * 99,
        b"ARROW1\0\0" + b"\xff" * 99,
        b"ARROW1\0\0",
        b"ARROW1\0\0" + b"\xff\xff\xff\xff" + bytes(4),
        b"ARROW1\0\0" + b"x" * 99,
    ],
)
def test_a_damaged_file_of_record_batches_is_nothing_known(content: bytes, tmp_path: Path) -> None:
    """It is cut, or something else stands where its columns should."""
    (tmp_path / "file").write_bytes(content)
    assert statecast("inspect", tmp_path / "file").code == 2


NESTED = b"[]," * (1 << 20) + b"[]]}"


@pytest.mark.parametrize(
    ("name", "start"), [("document.json", b'{"a": ['), ("envelope.json", b'{"payload": "", "a": ['), ("deep.json", b"{" * 100_000)]
)
def test_json_that_unfolds_is_refused_before_it_is_parsed(name: str, start: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bytes of it would be seventy of memory."""
    (tmp_path / name).write_bytes(start + NESTED)
    monkeypatch.setattr("json.loads", lambda *_args, **_options: pytest.fail("parsed"))
    outcome = statecast("inspect", tmp_path / name)
    assert (outcome.code, "objects and lists" in outcome.stderr) == (2, True), outcome.stderr


@pytest.mark.parametrize("note", [b'{"shards": [' + NESTED, b'{"shards": [{"records": NaN}]}', b'{"shards": [{}]}', b'{"shards": [1]}'])
def test_a_damaged_note_of_a_restoration_is_a_usage_error(note: bytes, tmp_path: Path) -> None:
    """Nothing of it is shown as if it were one."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/CURRENT").touch()
    (tmp_path / "context.json").write_bytes(b"{}")
    (tmp_path / "restore.json").write_bytes(note)
    outcome = statecast("inspect", tmp_path)
    assert (outcome.code, "note of the restoration" in outcome.stderr) == (2, True), outcome.stderr
