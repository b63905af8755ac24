"""A fetch that is killed, or whose disk fills up, and then run again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import psutil
import pytest

from tests.support.commands import PROJECT, kill_tree, start_process, statecast_process
from tests.support.fault_server import fault_server
from tests.support.fetches import is_whole, parts_manifest, published_parts, wrong_final_names

START_TIMEOUT_S = 300


def epoch_bytes() -> int:
    """Return the size of all parts of the epoch that is fetched here."""
    return sum(part.size for shard in parts_manifest().shards for part in shard.parts)


def arguments(url: str, into: Path, takes_s: int = 3) -> list[object]:
    """A fetch that trusts the chain, and takes at least so long."""
    return [
        "fetch", url, "--chain-id", parts_manifest().chain_id, "--into", into, "--trusted-block", parts_manifest().sync_hash, "--verify-workers", 1,
        "--source", published_parts(), "--rate-limit", f"{epoch_bytes() // takes_s}B",
    ]  # fmt: skip


def kill_at_random(url: str, into: Path, random: Random) -> int:
    """Start a fetch and kill it some time after it took the folder; return how many parts are there then."""
    process = start_process(*arguments(url, into))
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not (into / ".statecast-fetch" / "lock").exists() and process.poll() is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    # The moment is what is random here; whatever it hits must hold.
    time.sleep(random.uniform(0.0, 4.0))
    kill_tree(process.pid)
    process.communicate()
    assert not wrong_final_names(into, published_parts())
    return len(list(into.rglob("state_part_*")))


def kill_and_finish(into: Path, log: Path, kills: int, seed: int) -> None:
    """Kill a fetch some times and then let it end."""
    random = Random(seed)
    with fault_server(published_parts(), log) as server:
        kept = 0
        for _ in range(kills):
            found = kill_at_random(server.url, into, random)
            assert found >= kept, "what was right is kept"
            kept = found
            if kept == sum(shard.num_parts for shard in parts_manifest().shards):
                shutil.rmtree(into)
                kept = 0
        outcome = statecast_process(*arguments(server.url, into))
    assert outcome.code == 0, outcome.stderr
    assert is_whole(into, published_parts())


def test_a_killed_fetch_goes_on_where_it_was(tmp_path: Path) -> None:
    """Twice killed, then run to its end."""
    kill_and_finish(tmp_path / "into", tmp_path / "log", kills=2, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_leave_nothing_wrong(tmp_path: Path) -> None:
    """At twenty random moments, starting over whenever all was there."""
    kill_and_finish(tmp_path / "into", tmp_path / "log", kills=20, seed=2)


@pytest.mark.slow
def test_verifying_processes_end_with_a_killed_fetch(tmp_path: Path) -> None:
    """They get no signal; they poll."""
    with fault_server(published_parts(), tmp_path / "log") as server:
        # So slow that it is at work still when its children are found.
        process = start_process(*arguments(server.url, tmp_path / "into", takes_s=300))
        children: list[psutil.Process] = []
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not any(is_verifying(child) for child in children):
            assert time.monotonic() < deadline_s and process.poll() is None
            children = psutil.Process(process.pid).children()
            time.sleep(0.05)
        process.kill()
        process.communicate()
        _, alive = psutil.wait_procs(children, timeout=120)
    assert alive == []


def is_verifying(process: psutil.Process) -> bool:
    """Whether a fetch's child is one that verifies parts."""
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.mark.slow
def test_a_disk_that_fills_up_is_a_store_error_and_a_rerun_ends_well(tmp_path: Path) -> None:
    """On a file system of its own: nothing unverified has a final name, and with more space the fetch goes on."""
    into, out = tmp_path / "into", tmp_path / "out"
    into.mkdir()
    smallest = min(parts_manifest().shards, key=lambda shard: sum(part.size for part in shard.parts))
    command = f"{sys.executable} -c 'from jobs.cli import main; main()' " + " ".join(map(str, arguments(str(published_parts()), into)))
    # One shard comes first, so that some parts are whole when the space ends, however late the verification is.
    script = f"""
        mount -t tmpfs -o size={epoch_bytes() // 2 // 4096 * 4096} none {into} || exit 99
        {command} --shard-id {smallest.shard_id} || exit 98
        {command}; first=$?
        cp -r {into} {out}
        mount -o remount,size=64m {into}
        {command}; second=$?
        cp -r {into} {out}2
        exit $((first * 4 + second))
    """
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not here")
    ran = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    if ran.returncode == 99 or "unshare" in ran.stderr:
        pytest.skip("no file system can be mounted here")
    assert "disk is full" in ran.stderr and "Traceback" not in ran.stderr
    assert ran.returncode == 30 * 4, ran.stderr
    assert len(list(out.rglob("state_part_*"))) >= smallest.num_parts and not wrong_final_names(out, published_parts())
    assert is_whole(Path(f"{out}2"), published_parts())
