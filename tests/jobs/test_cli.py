"""The command line itself: help, exit codes, JSON, plans, reruns."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import cli
from jobs.common_options import COMMON
from pipelines.near.node.node_columns import EPOCH_INFO, FLAT_STORAGE_STATUS, STATE
from pipelines.near.node.rocksdb_reader import RocksDbReader
from schemas.errors import EXIT_CODES, EpochNotReadyError
from schemas.ids import CryptoHash, ShardUId
from tests.support.commands import epoch_folder, lasting_objects_in, objects_in, statecast, statecast_process
from tests.support.native_wheel import needs_headers
from tests.support.nodes import change_rows, copied, localnet, localnet_home, node_a, snapshot_folder, tree
from tests.support.published import produce, produce_localnet, produce_node_a, public_key, published_localnet, published_node_a, signing_key

COMMANDS = ("produce", "export", "check", "inspect", "keygen")


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_names_every_exit_code(command: tuple[str, ...]) -> None:
    """The help of the command and of each subcommand ends well and explains all exit codes."""
    outcome = statecast(*command, "--help")
    assert outcome.code == 0
    text = " ".join(outcome.stdout.split())
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in text


def test_the_help_lists_every_command() -> None:
    """What there is can be found, with the first paragraph of its own help, and what there is not is an error."""
    text = " ".join(statecast("--help").stdout.split())
    for name in cli.command_names():
        first, *_ = str(cli.load_command(name).help).split("\n\n")
        assert f"{name} {' '.join(first.split())}" in text
    assert "No such command 'nope'" in statecast("nope").stderr


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("help",)])
def test_what_shows_only_words_imports_no_library_of_data(arguments: tuple[str, ...]) -> None:
    """Or it takes seconds of the user's time."""
    shown = "import sys; from jobs.cli import run; run(sys.argv[1:]); heavy = {'ray', 'pyarrow', 'numpy', 'structlog'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    done = subprocess.run([sys.executable, "-c", shown, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", cli.command_names())
def test_common_options_come_first_in_every_commands_help(name: str) -> None:
    """In one order for all commands and in one panel, what must be given among them; each other option has a panel that says what it is about."""
    options = [parameter for parameter in cli.load_command(name).params if parameter.param_type_name == "option"]
    first = [option for option in options if getattr(option, "rich_help_panel", None) is None]
    names = [next(text for text in option.opts if text.startswith("--")) for option in first]
    assert options[: len(first)] == first
    places = [COMMON.index(one) for one in names if one in COMMON]
    assert places == sorted(places)
    assert {one for option in options for one in option.opts if one in COMMON or option.required} <= {
        text for option in first for text in option.opts
    }
    shown = re.findall(r"^│ \*? *(--[a-z-]+)", statecast(name, "--help").stdout, re.MULTILINE)
    assert shown[: len(names) + 1] == [*names, "--help"]


def test_help_is_a_word_too() -> None:
    """`statecast help X` is `statecast X --help`."""
    assert statecast("help").stdout == statecast("--help").stdout
    assert statecast("help", "keygen").stdout == statecast("keygen", "--help").stdout
    assert "readable by you alone" in statecast("help", "keygen").stdout


@pytest.mark.parametrize("module", ["jobs.cli", "statecast"])
def test_the_command_line_can_be_run_as_a_module(module: str) -> None:
    """It does what the command does, with its exit codes."""
    done = subprocess.run([sys.executable, "-m", module, "catalogue", "/nowhere"], capture_output=True, text=True, check=False)
    assert (done.returncode, "no chain is published there" in done.stderr) == (EpochNotReadyError.exit_code, True)


def test_the_module_of_a_command_is_no_program() -> None:
    """It would do nothing and end well."""
    done = subprocess.run([sys.executable, "-m", "jobs.keygen"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "statecast COMMAND" in done.stderr


def test_the_version_is_printed() -> None:
    """And nothing else."""
    outcome = statecast("--version")
    assert (outcome.code, len(outcome.stdout.split())) == (0, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("produce",),
        ("produce", "--to", "x", "--bogus"),
        ("produce", "--to", "x"),
        ("produce", "--to", "x", "--node-home", "h", "--from", "records://r"),
        ("produce", "--to", "x", "--node-home", "h", "--num-parts", "0"),
        ("produce", "--to", "x", "--node-home", "h", "--encoding", "v9"),
        ("produce", "--to", "x", "--node-home", "h", "--epoch", "1", "--epoch-id", "2"),
        ("produce", "--to", "x", "--from", "ftp://x"),
        ("produce", "--to", "x", "--from", "records://r", "--read-limit", "1MB"),
        ("produce", "--to", "x", "--node-home", "h", "--kernel", "abacus"),
        ("check",),
        ("check", "x", "--trust-threshold", "2"),
        ("check", "x", "--trust-key", "ed25519:short"),
        ("inspect", "/no/such/file"),
    ],
)
def test_wrong_usage_exits_with_2_and_one_json_object(arguments: tuple[str, ...]) -> None:
    """No traceback, and a program that asked for JSON gets its one object."""
    outcome = statecast(*arguments, *(["--json"] if arguments and arguments[0] in COMMANDS else []))
    assert outcome.code == 2, outcome.stderr
    assert "Traceback" not in outcome.stderr
    if arguments and arguments[0] in COMMANDS:
        assert outcome.document["error"]["exit_code"] == 2
        assert outcome.document["error"]["message"]


def test_an_unexpected_error_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of our own exits with 1, without a traceback unless it is asked for."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(cli, "app", fail)
    outcome = statecast("check", "x", "--json")
    assert outcome.code == 1
    assert outcome.document["error"]["kind"] == "unexpected"
    assert len(outcome.stderr.splitlines()) == 1
    monkeypatch.setenv("STATECAST_TRACEBACK", "1")
    assert "Traceback" in statecast("check", "x").stderr


def test_an_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says that nothing is lost."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupt)
    outcome = statecast("produce", "--json")
    assert outcome.code == 130
    assert outcome.document["error"]["kind"] == "interrupted"
    assert "nothing is lost" in outcome.error_line


def test_a_plan_says_everything_and_does_nothing(tmp_path: Path) -> None:
    """The number of parts comes from the root node's memory usage; neither the node nor any folder is touched."""
    before = tree(localnet_home())
    outcome = produce_localnet(tmp_path / "out", "--plan", "--json", work=tmp_path / "work")
    assert outcome.code == 0, outcome.stderr
    document = outcome.document
    assert document["message_type"] == "plan"
    assert [(shard["shard_id"], shard["num_parts"]) for shard in document["shards"]] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert all(shard["memory_usage"] and shard["state_root"] for shard in document["shards"])
    assert list(tmp_path.iterdir()) == []
    assert tree(localnet_home()) == before


def test_a_plan_for_people(tmp_path: Path) -> None:
    """A table of the shards, also of records whose number of parts is known only after reading."""
    (tmp_path / "records.jsonl").write_text('{"key": "61", "value": "00"}\n')
    outcome = produce(tmp_path / "out", "--from", f"records://{tmp_path / 'records.jsonl'}", "--plan")
    assert outcome.code == 0, outcome.stderr
    assert "after reading" in outcome.stdout
    assert not (tmp_path / "out").exists()


def test_a_rerun_has_nothing_to_do(tmp_path: Path) -> None:
    """It says so, and changes no byte and no time of change."""
    to = tmp_path / "out"
    assert produce_node_a(to, "--num-parts", 3).code == 0
    before = tree(to)
    outcome = produce_node_a(to, "--num-parts", 3)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.startswith("nothing to do: ")
    assert produce_node_a(to, "--num-parts", 3, "--json").document["nothing_to_do"] is True
    assert tree(to) == before


@needs_headers
def test_the_summary_names_what_an_operator_asks_for(tmp_path: Path) -> None:
    """Shards, verified roots, copied headers, signer and place."""
    outcome = produce_localnet(tmp_path)
    for word in ("s3.v0", "verified", "copied", public_key(), "manifest revision 1", str(epoch_folder(tmp_path))):
        assert word in outcome.stdout
    assert "the snapshot is no longer needed" in outcome.stderr


@needs_headers
def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """Node a has no state headers and no blocks: the run is good, and says so."""
    outcome = produce_node_a(tmp_path)
    assert outcome.code == 0
    assert "state header missing, shard 90: none can be computed: the node does not have the row BlockHeader" in outcome.stdout
    assert "block headers missing" in outcome.stdout


def test_an_unwritable_report_does_not_spoil_a_good_run(tmp_path: Path) -> None:
    """The epoch is published; the report is said to be missing."""
    outcome = produce_node_a(tmp_path / "out", "--report", "/sys/report.html", "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.document["report"] is None
    assert "report can't be written" in outcome.stderr


def test_other_forms_of_a_published_epoch_are_refused(tmp_path: Path) -> None:
    """Another encoding or number of parts would leave readers with two things under one name."""
    to = tmp_path / "out"
    assert produce_node_a(to, "--num-parts", 3, "--encoding", "v1").code == 0
    before = objects_in(to)
    assert produce_node_a(to, "--num-parts", 4, "--encoding", "v1").code == 2
    assert produce_node_a(to, "--num-parts", 3, "--encoding", "v0").code == 2
    assert objects_in(to) == before


def test_shards_can_be_published_one_after_another(tmp_path: Path) -> None:
    """A second run adds a shard: revision 2 lists both, the pointer comes when all are there."""
    to = tmp_path / "out"
    assert produce_localnet(to, "--shard-id", 0, "--shard-id", 1).code == 0
    assert not list(to.glob("chain_id=*/latest.json"))
    partial = statecast("check", epoch_folder(to), "--in-process", "--json")
    assert partial.code == 0, partial.stderr
    assert {found["shard_id"] for found in partial.document["not_published"] if found["kind"] == "shard"} == {2, 3}
    outcome = produce_localnet(to, "--shard-id", 2, "--shard-id", 3, "--json")
    assert outcome.code == 0, outcome.stderr
    assert outcome.document["manifest_revision"] == 2
    assert len(list(to.glob("chain_id=*/latest.json"))) == 1
    complete = statecast("check", to, "--in-process", "--json").document
    assert [shard["shard_id"] for shard in complete["shards"]] == [0, 1, 2, 3]
    assert not [found for found in complete["not_published"] if found["kind"] == "shard"]


def test_a_key_is_made_once(tmp_path: Path) -> None:
    """The second keygen fails and leaves the first key."""
    path = tmp_path / "key.json"
    made = statecast("keygen", path, "--json")
    assert made.code == 0
    assert made.document["public_key"].startswith("ed25519:")
    before = path.read_bytes()
    assert statecast("keygen", path, "--json").code == 2
    assert path.read_bytes() == before


def test_inspect_shows_a_node() -> None:
    """Its epochs, and which of them can be produced."""
    document = statecast("inspect", localnet_home(), "--json").document
    producible = [epoch["epoch_height"] for epoch in document["epochs"] if epoch["can_produce"]]
    assert producible == [6]
    walked = {epoch["epoch_height"]: epoch["can_walk"] for epoch in document["epochs"] if epoch["can_walk"]}
    assert walked[4] == walked[5] == ["s0.v0", "s1.v0", "s2.v0", "s3.v0"]
    assert 6 not in walked
    shown = statecast("inspect", localnet_home())
    assert shown.code == 0
    assert "by a walk over the State column" in shown.stdout


def test_inspect_tells_which_shards_of_a_node_can_be_produced(tmp_path: Path) -> None:
    """A node that tracks one shard can give its epoch, without the others."""
    home = copied(localnet_home(), tmp_path)
    for data in (home / "data", snapshot_folder(home)):
        change_rows(data, FLAT_STORAGE_STATUS, {ShardUId(version=0, shard_id=shard_id).to_bytes(): None for shard_id in (0, 1, 3)})
    with RocksDbReader(home / "data", (STATE,)) as reader:
        keys = [key for rows in reader.scan(STATE, b"", None) for key, _ in rows if key[:8] != ShardUId(version=0, shard_id=2).to_bytes()]
    change_rows(home / "data", STATE, dict.fromkeys(keys))
    epochs = {epoch["epoch_height"]: epoch for epoch in statecast("inspect", home, "--json").document["epochs"]}
    assert (epochs[6]["can_produce"], epochs[6]["can_walk"]) == (True, [])
    assert "no flat state of shard s0.v0" in epochs[6]["problem"]
    assert (epochs[5]["can_produce"], epochs[5]["can_walk"]) == (False, ["s2.v0"])


def test_inspect_names_epochs_that_can_not_be_read(tmp_path: Path) -> None:
    """One row of a later release hides no other epoch."""
    home = copied(localnet_home(), tmp_path)
    epoch_id = CryptoHash(bytes(31) + b"\1")
    change_rows(home / "data", EPOCH_INFO, {epoch_id: b"\5" + (8).to_bytes(8, "little") + bytes(9)})
    document = statecast("inspect", home, "--json").document
    assert [epoch["epoch_height"] for epoch in document["epochs"]] == [1, 1, 2, 3, 4, 5, 6, 7]
    (hidden,) = document["unreadable_epochs"]
    assert (hidden["epoch_height"], hidden["epoch_id"]) == (8, str(epoch_id))
    assert "V6" in hidden["problem"]
    shown = statecast("inspect", home)
    assert shown.code == 0
    assert f"epoch 8 ({epoch_id}), whose EpochInfo can't be read" in shown.stdout


def test_inspect_shows_what_is_published() -> None:
    """The epoch by its folder and by the bucket, its manifest, a statement, a part."""
    folder = epoch_folder(published_node_a())
    documents = [statecast("inspect", what, "--json").document for what in (folder, folder / "manifest.json", published_node_a())]
    assert [document["kind"] for document in documents] == ["manifest"] * 3
    statement = statecast("inspect", folder / "statements" / "shard_id=5.json", "--json").document
    assert (statement["kind"], statement["num_parts"]) == ("statement", 5)
    part = statecast("inspect", folder / "shard_id=5" / "state_part_000000_of_000005", "--json").document
    assert (part["kind"], part["encoding"], part["sorted"]) == ("state_part", "v1", True)
    assert part["decoded_sha256"] == statement["parts"][0]["sha256"]
    for what in (folder, folder / "statements" / "shard_id=5.json", folder / "shard_id=5" / "state_part_000000_of_000005"):
        assert statecast("inspect", what).code == 0


def test_inspect_shows_neards_own_part() -> None:
    """A part that statecast did not write."""
    (part,) = (localnet() / "dump").glob("chain_id=*/epoch_height=6/epoch_id=*/shard_id=0/*")
    assert statecast("inspect", part, "--json").document["encoding"] == "v0"


def test_inspect_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    """A file of something else."""
    (tmp_path / "file").write_text("something else")
    outcome = statecast("inspect", tmp_path / "file", "--json")
    assert (outcome.code, outcome.document["error"]["kind"]) == (2, "invalid_input")


@needs_headers
def test_a_dataset_that_is_exported_can_be_inspected_and_produced_without_the_node(tmp_path: Path) -> None:
    """Export, in both formats, gives the objects that the node itself gives; headers and block headers travel along."""
    for file_format in ("ipc", "parquet"):
        dataset = tmp_path / file_format
        exported = statecast(
            "export", "--node-home", localnet_home(), "--to", f"dataset://{dataset}", "--format", file_format, "--in-process", "--json"
        )
        assert exported.code == 0, exported.stderr
        assert all(shard["root_verified"] for shard in exported.document["shards"])
        assert statecast("inspect", f"dataset://{dataset}", "--json").document["kind"] == "dataset"
        assert statecast("inspect", f"dataset://{dataset}").code == 0
        before = objects_in(dataset)
        to = tmp_path / f"out-{file_format}"
        outcome = produce(to, "--from", f"dataset://{dataset}")
        assert outcome.code == 0, outcome.stderr
        assert objects_in(dataset) == before
        assert lasting_objects_in(to) == lasting_objects_in(published_localnet())
        manifest = json.loads(statecast("inspect", to, "--json").stdout)
        assert manifest["not_published"] == []


def test_an_export_is_not_done_twice(tmp_path: Path) -> None:
    """A rerun finds its files; export of a dataset is refused."""
    options = ("export", "--node-home", node_a(), "--context", node_a() / "context.json", "--to", f"dataset://{tmp_path}", "--in-process")
    assert statecast(*options).code == 0
    before = tree(tmp_path)
    assert statecast(*options).code == 0
    assert tree(tmp_path) == before
    assert statecast("export", "--from", f"dataset://{tmp_path}", "--to", f"dataset://{tmp_path}/2", "--in-process", "--json").code == 2


def test_the_installed_command_reports_errors_like_this_one(tmp_path: Path) -> None:
    """The process's own exit code and its one line."""
    outcome = statecast_process("produce", "--node-home", tmp_path / "none", "--to", tmp_path, "--signing-key", signing_key(), "--json")
    assert outcome.code == 2
    assert outcome.document["error"]["exit_code"] == 2
    assert len(outcome.stderr.splitlines()) == 1
