"""``statecast import`` against a stand-in neard: what is run, what is refused, and how every failure ends."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.restoring.into_node.load_parts import load_parts
from tests.support.commands import PROCESS_TIMEOUT_S, Outcome, epoch_folder, start_process, statecast
from tests.support.nodes import localnet, localnet_home, tree
from tests.support.published import produce_localnet, session_folder
from tests.support.stand_in_neard import calls_of, write_program

SHARDS = (0, 1, 2, 3)
NUM_PARTS = 4


@pytest.fixture(scope="module")
def parts() -> Path:
    """The localnet published in four parts a shard. It must not be changed."""
    folder = session_folder() / "localnet-in-four"
    outcome = produce_localnet(folder, "--num-parts", NUM_PARTS)
    assert outcome.code == 0, outcome.stderr
    return folder


@pytest.fixture(autouse=True)
def journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Journals of a test are its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".cache" / "statecast" / "imports"


def run_import(parts: Path, neard: Path, *options: object, home: Path | None = None) -> Outcome:
    """Run the command in this process, with JSON."""
    home = localnet_home() if home is None else home
    return statecast("import", parts, "--node-home", home, "--neard", neard, "--in-process", "--json", *options)


def loaded_parts(neard: Path) -> list[tuple[int, int | None]]:
    """Return shard and part of every load that was run; None for all parts."""
    found = []
    for call in calls_of(neard):
        part = int(call[call.index("--part-id") + 1]) if "--part-id" in call else None
        found.append((int(call[call.index("--shard-id") + 1]), part))
    return found


def error_of(outcome: Outcome) -> tuple[int, str, str]:
    """Return exit code, kind and message of a failed run, which ends in one line and no traceback."""
    assert "Traceback" not in outcome.stderr
    error = outcome.document["error"]
    assert outcome.error_line == f"error: {error['message']}"
    return outcome.code, error["kind"], error["message"]


# what is run


def test_every_shard_is_loaded_in_one_call_each(parts: Path, tmp_path: Path) -> None:
    """The exact command, with root, sync hash and epoch from the manifest; the node's home is not touched."""
    neard = write_program(tmp_path / "bin")
    before = tree(localnet_home())
    outcome = run_import(parts, neard)
    assert outcome.code == 0, outcome.stderr
    assert outcome.document["parts_loaded"] == len(SHARDS) * NUM_PARTS
    assert loaded_parts(neard) == [(shard_id, None) for shard_id in SHARDS]
    call = calls_of(neard)[0]
    assert call[:4] == ["--home", str(localnet_home().resolve()), "view-state", "--read-write"]
    assert call[4:9] == ["state-parts", "--shard-id", "0", "--root-dir", str(parts.resolve())]
    assert call[9:12] == ["load", "--action", "apply"]
    assert call[-2:] == ["epoch-height", "6"]
    assert tree(localnet_home()) == before


def test_the_plan_prints_what_would_be_run_and_runs_nothing(parts: Path, tmp_path: Path) -> None:
    """The commands of the plan are those of the run."""
    neard = write_program(tmp_path / "bin")
    planned = run_import(parts, neard, "--plan", "--shard-id", 1)
    assert planned.code == 0, planned.stderr
    assert calls_of(neard) == []
    assert run_import(parts, neard, "--shard-id", 1).code == 0
    (command,) = planned.document["commands"]
    assert [command["command"][1:]] == calls_of(neard)
    assert command["parts"] == list(range(NUM_PARTS))


def test_a_rerun_loads_nothing_twice(parts: Path, tmp_path: Path) -> None:
    """What neard said that it loaded is noted."""
    neard = write_program(tmp_path / "bin")
    assert run_import(parts, neard).code == 0
    again = run_import(parts, neard)
    assert again.code == 0
    assert again.document["parts_loaded"] == 0
    assert len(calls_of(neard)) == len(SHARDS)


# misbehaviour


def test_a_crash_midway_is_gone_on_from(parts: Path, tmp_path: Path) -> None:
    """The parts before the crash are kept; a rerun asks for the others one by one."""
    neard = write_program(tmp_path / "bin", behaviour="crashes midway")
    code, kind, message = error_of(run_import(parts, neard, "--shard-id", 2))
    assert (code, kind) == (3, "partial")
    assert "signal 9 after 2 of 4 parts" in message
    write_program(tmp_path / "bin")
    assert run_import(parts, neard, "--shard-id", 2).code == 0
    assert loaded_parts(neard) == [(2, None), (2, 2), (2, 3)]


@pytest.mark.parametrize("behaviour", ["hangs", "hangs and ignores"])
def test_a_hang_is_ended(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str) -> None:
    """Silence has a limit; a neard that ignores being asked is killed."""
    # The command gives it half a minute.
    monkeypatch.setattr("jobs.import_parts.load_parts", partial(load_parts, stop_grace_s=0.3))
    neard = write_program(tmp_path / "bin", behaviour=behaviour)
    # Longer than any machine takes to start it and to say its first lines.
    code, kind, message = error_of(run_import(parts, neard, "--shard-id", 0, "--timeout-s", 6))
    assert (code, kind) == (3, "partial")
    assert "said nothing for 6 s" in message
    write_program(tmp_path / "bin")
    assert run_import(parts, neard, "--shard-id", 0).code == 0
    assert loaded_parts(neard) == [(0, None), (0, 2), (0, 3)]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("fails", "failed with 101 after 0 of 4 parts: thread 'main' panicked"),
        ("garbage", "without saying that it loaded 4 of 4 parts"),
        ("says nothing", "without saying that it loaded 4 of 4 parts"),
        ("forgets the last line", "without saying that it loaded 0 of 4 parts"),
    ],
)
def test_a_neard_that_fails_is_told_by_name(parts: Path, tmp_path: Path, behaviour: str, words: str) -> None:
    """A panic, nonsense, and an end that looks good but loaded nothing."""
    neard = write_program(tmp_path / "bin", behaviour=behaviour)
    code, kind, message = error_of(run_import(parts, neard, "--shard-id", 0))
    assert (code, kind) == (32, "node")
    assert words in message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_and_leaves_nothing_running(parts: Path, tmp_path: Path, number: signal.Signals) -> None:
    """The command ends as it is asked to, neard has ended before it, and what was loaded is noted."""
    neard = write_program(tmp_path / "bin", behaviour="hangs")
    process = start_process(
        *("import", parts, "--node-home", localnet_home(), "--neard", neard, "--in-process", "--shard-id", 0),
        environment={"HOME": str(tmp_path)},
    )
    try:
        wait_for_hang(process, tmp_path / ".cache" / "statecast" / "imports")
        process.send_signal(number)
        _, stderr = process.communicate(timeout=PROCESS_TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == 128 + number, stderr
    assert "run the same command again" in stderr.splitlines()[-1]
    assert not [found for found in psutil.process_iter(["cmdline"]) if str(neard) in " ".join(found.info["cmdline"] or ())]
    (journal,) = (tmp_path / ".cache" / "statecast" / "imports").iterdir()
    assert json.loads(journal.read_text()) == {"loaded": {"0": [0, 1]}}


def wait_for_hang(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait until neard has loaded the two parts before it hangs."""
    deadline = time.monotonic() + PROCESS_TIMEOUT_S
    while not any("[0, 1]" in journal.read_text() for journal in folder.glob("*.json")):
        assert process.poll() is None and time.monotonic() < deadline, "neard was never run"
        time.sleep(0.02)


# what is refused


def test_a_running_node_is_refused(parts: Path, tmp_path: Path) -> None:
    """A neard with this home is found before anything is validated or run."""
    running = tmp_path / "other" / "neard"
    running.parent.mkdir()
    running.write_text("#!/bin/sh\necho ready\nread line\n")
    running.chmod(0o755)
    neard = write_program(tmp_path / "bin")
    process = subprocess.Popen([running, "--home", localnet_home(), "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        code, kind, message = error_of(run_import(parts, neard))
    finally:
        process.kill()
        process.communicate()
    assert (code, kind) == (32, "node")
    assert f"process {process.pid}" in message
    assert calls_of(neard) == []


def test_a_locked_database_is_refused(parts: Path, tmp_path: Path) -> None:
    """Whichever process holds RocksDB's lock, nothing is run beside it."""
    home = tmp_path / "home"
    shutil.copytree(localnet_home(), home)
    (home / "data" / "LOCK").touch()
    neard = write_program(tmp_path / "bin")
    script = "import fcntl, sys\nf = open(sys.argv[1], 'r+')\nfcntl.lockf(f, fcntl.LOCK_EX)\nprint('held', flush=True)\nsys.stdin.read()\n"
    process = subprocess.Popen(
        [sys.executable, "-c", script, home / "data" / "LOCK"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        code, kind, _ = error_of(run_import(parts, neard, home=home))
    finally:
        process.kill()
        process.communicate()
    assert (code, kind) == (32, "node")
    assert calls_of(neard) == []


def test_a_part_that_does_not_validate_stops_the_import(parts: Path, tmp_path: Path) -> None:
    """All parts are validated before neard is given any: the last shard's last part counts as much as the first."""
    copy = tmp_path / "parts"
    shutil.copytree(parts, copy)
    part = epoch_folder(copy) / "shard_id=3" / "state_part_000003_of_000004"
    part.write_bytes(part.read_bytes()[:-1])
    neard = write_program(tmp_path / "bin")
    code, kind, message = error_of(run_import(copy, neard))
    assert (code, kind) == (20, "object_mismatch")
    assert str(part.name) in message
    assert calls_of(neard) == []


def test_parts_of_another_chain_are_refused(parts: Path, tmp_path: Path) -> None:
    """The node's genesis file says which chain it is of."""
    home = tmp_path / "home"
    shutil.copytree(localnet_home(), home)
    genesis = home / "genesis.json"
    genesis.write_text(genesis.read_text().replace('"test-chain-klplt"', '"another-chain"', 1))
    neard = write_program(tmp_path / "bin")
    code, kind, message = error_of(run_import(parts, neard, home=home))
    assert (code, kind) == (2, "invalid_input")
    assert "another-chain" in message
    assert calls_of(neard) == []


def test_an_epoch_that_the_node_has_no_header_of_is_refused(tmp_path: Path) -> None:
    """neard's tool panics without the shard's state header, so it is not run: the node keeps the newest epoch's alone."""
    context = tmp_path / "context.json"
    context.write_text(json.dumps(epoch_context_from_node(localnet_home(), "5").to_json()))
    neard = write_program(tmp_path / "bin")
    code, kind, message = error_of(run_import(localnet() / "dump", neard, "--epoch", 5, "--context", context))
    assert (code, kind) == (11, "epoch_not_ready")
    assert "state header of shard" in message
    assert calls_of(neard) == []


def test_an_epoch_that_the_node_sync_hash_is_not_of_is_refused(tmp_path: Path) -> None:
    """Parts under one epoch's names with another epoch's sync hash: the node knows which epoch the block is of."""
    document = epoch_context_from_node(localnet_home(), "5").to_json()
    parts = tmp_path / "parts"
    shutil.copytree(localnet() / "dump", parts, ignore=shutil.ignore_patterns("headers"))
    (folder,) = parts.glob("*/epoch_height=4/*")
    document |= {"epoch_height": 4, "epoch_id": folder.name.removeprefix("epoch_id=")}
    context = tmp_path / "context.json"
    context.write_text(json.dumps(document))
    neard = write_program(tmp_path / "bin")
    code, kind, message = error_of(run_import(parts, neard, "--epoch", 4, "--context", context))
    assert (code, kind) == (2, "invalid_input")
    assert "is a block of epoch" in message or "sync_hash" in message
    assert calls_of(neard) == []


# a neard before 2.13


@pytest.fixture
def new_home(tmp_path: Path) -> Path:
    """A node that was initialised and never started."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("config.json", "genesis.json"):
        shutil.copy(localnet_home() / name, home / name)
    return home


def test_an_older_neard_gets_a_stanza_printed(parts: Path, tmp_path: Path, new_home: Path) -> None:
    """Nothing is written without being asked for."""
    neard = write_program(tmp_path / "bin", "2.12.0")
    before = tree(new_home)
    outcome = run_import(parts, neard, home=new_home)
    assert outcome.code == 0, outcome.stderr
    storage = outcome.document["stanza"]["state_sync"]["sync"]["ExternalStorage"]
    assert storage["location"] == {"Filesystem": {"root_dir": str(parts.resolve())}}
    assert tree(new_home) == before
    assert calls_of(neard) == []


def test_an_older_neards_configuration_is_written_on_request(parts: Path, tmp_path: Path, new_home: Path) -> None:
    """With a copy of what was there."""
    neard = write_program(tmp_path / "bin", "2.12.0")
    old = (new_home / "config.json").read_text()
    outcome = run_import(parts, neard, "--write-config", home=new_home)
    assert outcome.code == 0, outcome.stderr
    assert json.loads((new_home / "config.json").read_text())["state_sync"] == outcome.document["stanza"]["state_sync"]
    assert Path(outcome.document["config_backup"]).read_text() == old


def test_a_new_neard_has_no_such_configuration(parts: Path, tmp_path: Path) -> None:
    """Asking to write it is an error, not silence."""
    code, kind, _ = error_of(run_import(parts, write_program(tmp_path / "bin"), "--write-config"))
    assert (code, kind) == (2, "invalid_input")


def test_a_node_without_a_database_can_not_use_the_tool(parts: Path, tmp_path: Path, new_home: Path) -> None:
    """neard's tool needs the chain's headers."""
    (new_home / "data").mkdir()
    code, kind, _ = error_of(run_import(parts, write_program(tmp_path / "bin"), home=new_home))
    assert (code, kind) == (11, "epoch_not_ready")
