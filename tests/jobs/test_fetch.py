"""``statecast fetch`` as a person and as a program uses it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.event_lines import EventLines
from jobs.fetch_display import FetchEventDisplay, FetchLineDisplay, LiveDisplay
from tests.support.commands import Outcome, objects_in, statecast, statecast_process
from tests.support.fault_server import fault_server
from tests.support.fetches import NUM_PARTS, is_whole, parts_manifest, published_parts
from tests.support.published import public_key


def run_fetch(into: Path, *options: object) -> Outcome:
    """Fetch one shard of the published epoch in this process, with one verifying process."""
    return statecast(
        "fetch",
        published_parts(),
        "--chain-id",
        parts_manifest().chain_id,
        "--into",
        into,
        "--shard-id",
        0,
        "--verify-workers",
        1,
        *options,
    )


def lines(outcome: Outcome) -> list[dict[str, Any]]:
    """The JSON lines on standard output."""
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def test_a_fetch_as_a_process_with_verifying_processes(tmp_path: Path) -> None:
    """The whole epoch, trusted by block and key."""
    outcome = statecast_process(
        "fetch", published_parts(), "--chain-id", parts_manifest().chain_id, "--into", tmp_path, "--trusted-block", parts_manifest().sync_hash,
        "--trust-key", public_key(), "--events", "-",
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    *events, summary = lines(outcome)
    assert summary["message_type"] == "summary"
    assert sum(event.get("event") == "part" for event in events) == 4 * NUM_PARTS
    assert is_whole(tmp_path, published_parts())


def test_the_report_says_what_came_from_where_and_what_was_believed(tmp_path: Path) -> None:
    """For people; without a traceback or a colour code."""
    outcome = run_fetch(tmp_path, "--trusted-block", parts_manifest().sync_hash, "--trust-key", public_key())
    assert outcome.code == 0, outcome.stderr
    assert f"file://{published_parts()}" in outcome.stdout.replace("\n", "") or "What came from where" in outcome.stdout
    assert str(parts_manifest().sync_hash) in outcome.stdout and public_key() in outcome.stdout


def test_nothing_is_accepted_by_default(tmp_path: Path) -> None:
    """A usage error that says what to give; with --insecure it is done and said."""
    outcome = run_fetch(tmp_path)
    assert (outcome.code, list(tmp_path.iterdir())) == (2, [])
    assert "--trusted-block" in outcome.error_line
    outcome = run_fetch(tmp_path, "--insecure")
    assert outcome.code == 0 and "nothing tied this epoch" in outcome.stdout


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--trusted-block", "3jRZ8aoF7c92LXvfL7FCe4tqNzypHe5n7fDD3DP3hZ7H"), 21),
        (("--trusted-block", "not a hash"), 2),
        (("--trust-key", "ed25519:11111111111111111111111111111111"), 21),
        (("--trust-key", "secret"), 2),
        (("--insecure", "--trust-threshold", "2"), 2),
        (("--insecure", "--trusted-block", "3jRZ8aoF7c92LXvfL7FCe4tqNzypHe5n7fDD3DP3hZ7H"), 2),
        (("--insecure", "--epoch", "99"), 11),
        (("--insecure", "--shard-id", "77"), 2),
        (("--insecure", "--source", "gopher://somewhere"), 2),
        (("--insecure", "--rate-limit", "fast"), 2),
        (("--insecure", "--connections", "0"), 2),
        (("--insecure", "--chain-id", "../.."), 2),
    ],
)
def test_errors_have_their_exit_code_and_no_traceback(options: tuple[str, ...], code: int, tmp_path: Path) -> None:
    """One line on standard error, and no part in the folder."""
    outcome = run_fetch(tmp_path, *options)
    assert outcome.code == code, outcome.stderr
    assert "Traceback" not in outcome.stderr and "error" in outcome.stderr.lower()
    assert not list(tmp_path.rglob("state_part_*"))


def test_where_every_source_fails_the_attempts_are_listed(tmp_path: Path) -> None:
    """By source, for people and for programs."""
    with fault_server(published_parts(), tmp_path / "log", "missing") as server:
        arguments = (
            "fetch",
            server.url,
            "--chain-id",
            parts_manifest().chain_id,
            "--into",
            tmp_path / "into",
            "--insecure",
            "--shard-id",
            0,
        )
        outcome = statecast(*arguments, "--json")
        assert outcome.code == 31
        assert server.url in outcome.error_line and "404" in outcome.error_line
        error = outcome.document
        assert error["message_type"] == "error" and [source["source_id"] for source in error["sources"]] == [server.url]
        assert list(error["error"]["attempts"]) == [server.url]


def test_a_plan_fetches_nothing(tmp_path: Path) -> None:
    """And says as much for programs as for people."""
    into = tmp_path / "into"
    planned = json.loads(run_fetch(into, "--insecure", "--plan", "--json").stdout)
    assert planned["shards"][0]["num_parts"] == NUM_PARTS and planned["shards"][0]["parts_here"] == 0
    assert not into.exists()
    outcome = run_fetch(into, "--insecure", "--plan")
    assert outcome.code == 0 and "asked first" in outcome.stdout


def test_a_fetched_folder_is_a_source_itself(tmp_path: Path) -> None:
    """With pointer, statements and headers: a second fetch from it gives the same folder."""
    assert run_fetch(tmp_path / "one", "--insecure").code == 0
    again = statecast("fetch", tmp_path / "one", "--chain-id", parts_manifest().chain_id, "--into", tmp_path / "two", "--shard-id", 0,
                      "--trusted-block", parts_manifest().sync_hash, "--verify-workers", 1, "--no-lease")  # fmt: skip
    assert again.code == 0, again.stderr
    shutil.rmtree(tmp_path / "one" / ".statecast-fetch")
    shutil.rmtree(tmp_path / "two" / ".statecast-fetch")
    assert objects_in(tmp_path / "one") == objects_in(tmp_path / "two")


def test_every_display_takes_every_event(capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal's table, log lines and JSON lines."""
    from rich.console import Console

    from pipelines.fetching.fetch_progress import FetchProgress, SourceProgress

    source = SourceProgress("https://mirror", 3, 1 << 20, 1e6, 2, 1, "banned")
    progress = FetchProgress(3, 9, 1 << 20, 1 << 30, 2 << 20, 1e6, 4.0, 60.0, (source,))
    console = Console(force_terminal=True, width=120)
    for display in (LiveDisplay(console), FetchLineDisplay(), FetchEventDisplay(EventLines(sys.stdout, on_standard_output=True), None)):
        display.progress(progress)
        display.event("note", {"text": "noted"})
        display.event("banned", {"source": "https://mirror", "problem": "a wrong byte"})
        display.event("part", {"object": "p", "source": "https://mirror", "bytes": 1})
        display.close()
    shown = capsys.readouterr().out
    assert "3 of 9 parts" in shown and "banned for this run: a wrong byte" in shown and '"message_type": "status"' in shown


def test_the_only_chain_is_found_and_a_wrong_one_is_told_which_are_there(tmp_path: Path) -> None:
    """With several there is no guess; a text that names no epoch says what does."""
    chain_id = parts_manifest().chain_id
    fetching = ("--into", tmp_path / "into", "--shard-id", 0, "--insecure", "--plan")
    assert statecast("fetch", published_parts(), *fetching, "--json").document["message_type"] == "plan"
    for command in (("fetch", *fetching), ("catalogue",), ("scrub", "--in-process"), ("gc", "--keep-epochs", 1)):
        wrong = statecast(command[0], published_parts(), *command[1:], "--chain-id", "mainnet")
        assert (wrong.code, f"There is {chain_id}." in wrong.error_line) == (11, True), wrong.stderr
    two = tmp_path / "two"
    for chain in ("one", "two"):
        (two / f"chain_id={chain}").mkdir(parents=True)
        (two / f"chain_id={chain}" / "latest.json").write_text("{}")
    several = statecast("fetch", two, *fetching)
    assert (several.code, "Name one with --chain-id: one, two." in several.error_line) == (2, True)
    with fault_server(published_parts(), tmp_path / "log", "missing") as server:
        unlisted = statecast("fetch", server.url, *fetching)
    assert (unlisted.code, "Give --chain-id" in unlisted.error_line) == (2, True)


@pytest.mark.parametrize("command", ["fetch", "scrub", "restore", "tables", "header", "produce"])
def test_a_text_that_names_no_epoch_says_what_does(command: str, tmp_path: Path) -> None:
    """Before anything is asked."""
    arguments = {
        "fetch": (published_parts(), "--into", tmp_path, "--insecure"),
        "scrub": (published_parts(), "--in-process"),
        "restore": (published_parts(), "--to", f"dataset://{tmp_path / 'to'}"),
        "tables": (f"dataset://{tmp_path}", "--to", tmp_path / "to"),
        "header": ("--node-home", tmp_path, "--shard-id", 0),
        "produce": ("--node-home", tmp_path, "--to", tmp_path / "to", "--allow-unsigned"),
    }[command]
    outcome = statecast(command, *arguments, "--epoch", "abc")
    assert (outcome.code, "latest, an epoch height, or an epoch id" in outcome.error_line) == (2, True), outcome.stderr
