"""``--json`` of every command: one object on standard output, whatever comes of it; events are JSON lines of their own."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from jobs.cli import command_names
from pipelines.proving.wanted_record import wanted_record
from tests.support.commands import Outcome, start_process, statecast
from tests.support.fetches import parts_manifest, published_parts
from tests.support.json_process import running
from tests.support.nodes import localnet_home
from tests.support.proofs import small_proof
from tests.support.published import published_localnet, signing_key

TYPES = ("summary", "plan", "error")

CALLS: dict[str, tuple[str, ...]] = {
    "produce": ("--node-home", "HOME", "--to", "NEW/bucket", "--work", "file://NEW/work", "--signing-key", "KEY", "--in-process"),
    "backfill": ("--node-home", "HOME", "--epochs", "6..6", "--to", "NEW/bucket", "--allow-unsigned", "--plan"),
    "doctor": ("--node-home", "HOME", "--to", "NEW/bucket", "--signing-key", "KEY"),
    "assist": ("--node-home", "HOME", "--from", "BUCKET", "--data", "NEW/data", "--insecure", "--plan"),
    "deltas": ("COPY", "--base", "5", "--signing-key", "KEY", "--in-process"),
    "plan": ("--shards", "9", "--state-gib", "180", "--largest-gib", "38.8"),
    "keygen": ("NEW/key.json",),
    "fetch": ("BUCKET", "--into", "NEW/into", "--insecure", "--verify-workers", "1"),
    "restore": ("BUCKET", "--to", "dataset://NEW/dataset", "--insecure", "--in-process"),
    "seed": ("BUCKET", "--data", "NEW/data", "--listen", "127.0.0.1:0", "--insecure", "--once"),
    "inspect": ("BUCKET",),
    "export": ("--node-home", "HOME", "--to", "dataset://NEW/dataset", "--in-process"),
    "tables": ("dataset://NEW/none", "--to", "NEW/tables", "--in-process"),
    "diff": ("BUCKET", "--from", "5", "--to", "6", "--in-process"),
    "prove": ("BUCKET", "--account", "near"),
    "get": ("BUCKET", "--account", "near", "--to", "NEW/balances.csv"),
    "verify-proof": ("PROOF",),
    "header": ("--node-home", "HOME", "--shard-id", "0"),
    "check": ("BUCKET", "--in-process"),
    "mirror": ("BUCKET", "NEW/mirror", "--work", "NEW/work", "--insecure", "--verify-workers", "1"),
    "scrub": ("COPY", "--in-process"),
    "gc": ("COPY", "--keep-epochs", "1"),
    "catalogue": ("BUCKET",),
}
"""A call of each command that ends by itself."""
ENDLESS = ("watch", "serve")


def call(name: str, folder: Path) -> list[str]:
    """Return a command's arguments with places in them."""
    words = {"HOME": localnet_home(), "BUCKET": published_localnet(), "NEW": folder, "KEY": signing_key(), "PROOF": proof_file(folder)}
    if "COPY" in CALLS[name]:
        words["COPY"] = shutil.copytree(published_localnet(), folder / "copy")
    found = re.compile("|".join(words))
    return [name, *(found.sub(lambda word: str(words[word[0]]), argument) for argument in CALLS[name])]


def proof_file(folder: Path) -> Path:
    """Return a proof of a small trie."""
    file = folder / "proof.json"
    proof = small_proof([(b"\x00alice.near", bytes(89))], wanted_record(account_id="alice.near"))
    file.write_bytes(proof.to_bytes())
    return file


def the_object(outcome: Outcome) -> dict[str, object]:
    """Return the one object; an error's exit code is the process's."""
    document = outcome.document
    assert document["message_type"] in TYPES, document
    if "error" in document:
        assert document["error"]["exit_code"] == outcome.code
    else:
        assert outcome.code == 0, outcome.stderr
    return document


def test_every_command_is_called_here() -> None:
    """One that is added gets a row."""
    assert {*CALLS, *ENDLESS} >= set(command_names())


@pytest.mark.parametrize("name", CALLS)
def test_json_is_one_object(name: str, tmp_path: Path) -> None:
    """The result or the error, in one line; an option that is not there is an error too."""
    the_object(statecast(*call(name, tmp_path), "--json"))
    wrong = the_object(statecast(name, "--no-such-option", "--json"))
    assert wrong["message_type"] == "error"


@pytest.mark.parametrize("name", ENDLESS)
def test_json_of_a_command_without_an_end_is_one_object_when_it_is_stopped(name: str, tmp_path: Path) -> None:
    """What happens meanwhile is in the file of events, whose last line is the same object."""
    rest = (
        "--to",
        tmp_path / "to",
        "--node-home",
        localnet_home(),
        "--in-process",
        "--work",
        f"file://{tmp_path / 'work'}",
        "--allow-unsigned",
    )
    arguments = (tmp_path, "--listen", "127.0.0.1:0") if name == "serve" else rest
    events = tmp_path / "events.jsonl"
    events.touch()
    process = start_process(name, *arguments, "--events", events, "--json")
    with running(process) as command:
        while not events.read_text().count("\n"):
            assert process.poll() is None, command.errors
        assert command.stop() == 0, command.errors
        (document,) = command.lines()
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert document["message_type"] == "summary" and lines[-1] == document
    assert {line["message_type"] for line in lines[:-1]} == {"event"}


def test_events_are_lines_and_their_last_is_the_result(tmp_path: Path) -> None:
    """On standard output alone, or in a file beside the one object; both on standard output would be no object."""
    arguments = ("fetch", published_parts(), "--chain-id", parts_manifest().chain_id, "--shard-id", 0, "--insecure", "--verify-workers", 1)
    alone = statecast(*arguments, "--into", tmp_path / "a", "--events", "-")
    lines = [json.loads(line) for line in alone.stdout.splitlines()]
    assert alone.code == 0 and lines[0]["event"] == "note" and lines[-1]["message_type"] == "summary"
    file = tmp_path / "events.jsonl"
    document = the_object(statecast(*arguments, "--into", tmp_path / "b", "--events", file, "--json"))
    assert json.loads(file.read_text().splitlines()[-1]) == document
    both = statecast(*arguments, "--into", tmp_path / "c", "--events", "-", "--json")
    assert (both.code, both.document["message_type"]) == (2, "error")
    nowhere = statecast(*arguments, "--into", tmp_path / "c", "--events", tmp_path / "none" / "events")
    assert (nowhere.code, "the file can't be written" in nowhere.stderr) == (2, True)


def test_an_error_is_the_last_event(tmp_path: Path) -> None:
    """For a program that reads events and nothing else."""
    arguments = ("fetch", published_parts(), "--chain-id", parts_manifest().chain_id, "--into", tmp_path, "--insecure", "--epoch", 99)
    file = tmp_path / "events.jsonl"
    for target in ("-", file):
        outcome = statecast(*arguments, "--events", target)
        text = outcome.stdout if target == "-" else file.read_text()
        last = json.loads(text.splitlines()[-1])
        assert (last["message_type"], last["error"]["exit_code"], outcome.code) == ("error", 11, 11)
