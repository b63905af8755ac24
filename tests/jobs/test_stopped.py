"""Every command under SIGTERM, SIGINT and SIGHUP: its exit code, its last line, its claim, and that the same command goes on."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.jobs.test_watch import start_watcher
from tests.support.commands import PROCESS_TIMEOUT_S, has_come, lasting_objects_in, start_process
from tests.support.fetches import parts_manifest, published_parts
from tests.support.growing_node import HEIGHTS, GrowingNode
from tests.support.json_process import running_command
from tests.support.nodes import localnet_home
from tests.support.published import published_localnet, signing_key

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
INTERRUPTED = "interrupted; run the same command again"


def producing(tmp_path: Path, *options: object) -> list[object]:
    """Return a command that publishes the localnet's epoch as `published_localnet` has it."""
    return [
        *("produce", "--node-home", localnet_home(), "--to", tmp_path / "out", "--work", f"file://{tmp_path}/work"),
        *("--signing-key", signing_key(), *options),
    ]


def blocks_signals(pid: int) -> bool:
    """Tell whether a process has come to the point from which on it answers signals."""
    (mask,) = (line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigBlk"))
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


def wait_for(moment: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something that a process does."""
    deadline_s = time.monotonic() + PROCESS_TIMEOUT_S
    while not has_come(moment):
        assert process.poll() is None and time.monotonic() < deadline_s, process.communicate()
        time.sleep(0.002)


def assert_interrupted(process: subprocess.Popen[str], number: signal.Signals, *, group: bool = False) -> None:
    """A signal ends it with the signal's exit code, and its last line says how to go on; nothing of what fails meanwhile is said."""
    (os.killpg if group else os.kill)(process.pid, number)
    _, stderr = process.communicate(timeout=PROCESS_TIMEOUT_S)
    assert process.returncode == 128 + number, stderr
    assert stderr.splitlines()[-1].startswith(INTERRUPTED), stderr
    assert "Traceback" not in stderr and "***" not in stderr


@pytest.mark.parametrize("number", SIGNALS)
def test_a_producer_gives_back_its_claim(tmp_path: Path, number: signal.Signals) -> None:
    """In the middle of its work; another one need not wait for it."""
    process = start_process(*producing(tmp_path, "--in-process", "--read-limit", "5KB"))
    wait_for(lambda: bool(list(tmp_path.rglob("claim.json"))), process)
    assert_interrupted(process, number)
    assert not list(tmp_path.rglob("claim.json"))


def test_a_signal_during_the_start_is_answered() -> None:
    """While the program is still being loaded."""
    process = start_process("keygen", "--help")
    wait_for(lambda: blocks_signals(process.pid), process)
    assert_interrupted(process, signal.SIGTERM)


READING = {
    "catalogue": ("catalogue", "{url}", "--chain-id", "testnet"),
    "check": ("check", "{url}/chain_id=testnet", "--in-process"),
    "fetch": ("fetch", "{url}", "--chain-id", "testnet", "--into", "{folder}", "--insecure"),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "catalogue" else pytest.mark.slow) for name in READING])
def test_a_command_that_waits_for_a_store_is_interrupted(tmp_path: Path, name: str) -> None:
    """In the midst of a request that is never answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(120)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        process = start_process(*(argument.format(url=url, folder=tmp_path) for argument in READING[name]))
        with closing(server.accept()[0]):
            assert_interrupted(process, signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGHUP, *(pytest.param(number, marks=pytest.mark.slow) for number in SIGNALS[:2])])
def test_a_mirror_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    """Its stop is how it ends."""
    with running_command("serve", tmp_path, "--listen", "127.0.0.1:0") as mirror:
        mirror.event("listening")
        assert mirror.stop(number) == 0, mirror.errors
        assert [line.get("event") for line in mirror.lines()][-2:] == ["stopped", None]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_producer_on_ray_gives_back_its_claim(tmp_path: Path, number: signal.Signals, group: bool) -> None:
    """Also where Ray's own processes get the signal with it, as from a service manager or a terminal that closes."""
    process = start_process(*producing(tmp_path, "--workers", "1", "--read-limit", "5KB"), before=("setsid",) if group else ())
    wait_for(lambda: bool(list((tmp_path / "work").rglob("*"))), process)
    assert_interrupted(process, number, group=group)
    assert not list(tmp_path.rglob("claim.json"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("workers", [("--workers", "1"), ("--in-process",)])
def test_a_watcher_ends_well_before_during_and_after_a_production(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """Ray sets handlers at its start and takes the system's at its end, and a watcher starts it for each epoch."""
    to, options = tmp_path / "out", (*workers, "--read-limit", "20KB")
    for number, height, moment in zip(SIGNALS, HEIGHTS, ("epoch_seen", "stage", "epoch_published"), strict=True):
        with GrowingNode(tmp_path / moment) as node:
            watcher = start_watcher(node.home, to, tmp_path / f"work-{moment}", *(workers if moment == "epoch_published" else options))
            watcher.event("watching")
            node.add(height)
            watcher.event(moment)
            assert watcher.stop(number) == 0, watcher.errors
            assert [line.get("event") for line in watcher.lines()][-2:] == ["stopped", None]
            assert not list(to.rglob("claim.json"))


def stop_at_random(process: subprocess.Popen[str], after_s: float) -> None:
    """Stop a command some time after it answers signals; it may have ended before."""
    wait_for(lambda: blocks_signals(process.pid), process)
    time.sleep(after_s)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=PROCESS_TIMEOUT_S)
    assert process.returncode in (0, 143), stderr
    assert process.returncode == 0 or stderr.splitlines()[-1].startswith(INTERRUPTED), stderr
    assert "Traceback" not in stderr and "Exception" not in stderr, stderr


MOMENTS = 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["produce", "fetch", "watch", "backfill", "seed"])
def test_sigterm_at_any_moment(tmp_path: Path, name: str) -> None:
    """The right exit code, the claim gone, and the rerun finishes with the bytes of a run that nobody disturbed; the seed is printed."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng, to = random.Random(seed), tmp_path / "out"
    key, work = ("--signing-key", signing_key()), ("--work", f"file://{tmp_path}/work")
    commands: dict[str, tuple[object, ...]] = {
        "produce": (*producing(tmp_path, "--in-process"),),
        "fetch": (
            *("fetch", published_parts(), "--chain-id", parts_manifest().chain_id, "--into", to),
            *("--trusted-block", parts_manifest().sync_hash, "--verify-workers", 1),
        ),
        "watch": ("watch", "--node-home", localnet_home(), "--to", to, *work, *key, "--in-process", "--poll-interval", "0.1s"),
        "backfill": ("backfill", "--node-home", localnet_home(), "--to", to, "--epochs", "5..6", *work, *key, "--in-process"),
        "seed": ("seed", published_parts(), "--data", to, "--listen", "127.0.0.1:0", "--insecure", "--poll-interval", "0.2"),
    }
    whole = published_parts() if name in ("fetch", "seed") else published_localnet()
    wanted = {known: sha256 for known, sha256 in lasting_objects_in(whole).items() if "/state_part_" in known}
    for _ in range(MOMENTS):
        stop_at_random(start_process(*commands[name]), rng.uniform(0.0, 4.0))
        assert not list(to.rglob("claim.json"))
    process = start_process(*commands[name])
    if name in ("watch", "seed"):
        wait_for(lambda: wanted.items() <= lasting_objects_in(to).items() and not list(to.rglob("claim.json")), process)
        process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=PROCESS_TIMEOUT_S)
    assert process.returncode == 0, stderr
    assert wanted.items() <= lasting_objects_in(to).items()
