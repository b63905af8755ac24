"""What listens while each command runs is what docs/operations/ports.md says, and on loopback where other machines don't need it."""

from __future__ import annotations

import ipaddress
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import psutil
import pytest

from jobs.assist import assist
from jobs.cli import command_names
from jobs.seed import seed
from jobs.serve import serve
from tests.support.commands import PROCESS_TIMEOUT_S, PROJECT, epoch_folder, start_process
from tests.support.nodes import localnet_home
from tests.support.published import public_key, published_localnet, signing_key

PAGE = (PROJECT / "docs/operations/ports.md").read_text()
LOOPBACK, EVERYWHERE = "loopback", "everywhere"
RAY_PROCESSES = {"gcs_server", "raylet"}


def scope(address: str) -> str:
    """Tell who reaches an address."""
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return LOOPBACK if (mapped or ip).is_loopback else EVERYWHERE


def listening(pid: int) -> set[tuple[str, str, int]]:
    """Return what a process and those that it started listen on: the process' name, its clients, the port.

    A UDP socket that is not connected counts, as one of the process' name and ``/udp``.
    """
    found: set[tuple[str, str, int]] = set()
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return found
    for process in processes:
        try:
            name, connections = process.name(), process.net_connections("inet")
        except psutil.Error:
            continue
        for one in connections:
            if one.status == psutil.CONN_LISTEN:
                found.add((name, scope(one.laddr.ip), one.laddr.port))
            elif one.type is socket.SOCK_DGRAM and one.laddr and not one.raddr:
                found.add((f"{name}/udp", scope(one.laddr.ip), one.laddr.port))
    return found


def observed(process: subprocess.Popen[str], until: Callable[[set[tuple[str, str, int]]], bool] | None) -> set[tuple[str, str, int]]:
    """Look at a command until it ends, or until enough was seen and it is stopped; return all that ever listened."""
    seen: set[tuple[str, str, int]] = set()
    deadline = time.monotonic() + PROCESS_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        seen |= listening(process.pid)
        if until is not None and until(seen):
            process.send_signal(signal.SIGTERM)
            until = None
        time.sleep(0.02)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, f"{stdout[-1000:]}\n{stderr[-3000:]}"
    return seen


def options_in(page: str, command: str) -> str:
    """Return what the page says in its rows of a command."""
    return "\n".join(row for row in page.splitlines() if row.startswith("|") and f"`{command}" in row.split("|")[1])


def test_every_command_has_its_place_on_the_page() -> None:
    """In a row where it listens, else in the sentence about those that don't."""
    rows = "\n".join(row.split("|")[1] for row in PAGE.splitlines() if row.startswith("|"))
    others = PAGE[PAGE.index("No other command listens") :].partition("With `--in-process`")[0]
    assert set(command_names()) == {word for word in re.findall(r"`([a-z-]+)", rows + others) if word in command_names()}


@pytest.mark.parametrize("command", ["produce", pytest.param("check", marks=pytest.mark.slow)])
def test_embedded_ray_is_reached_from_this_machine_alone(command: str, tmp_path: Path) -> None:
    """Head, scheduler, agents, driver and workers; nothing else listens."""
    arguments: tuple[object, ...] = (
        *("produce", "--node-home", localnet_home(), "--to", tmp_path / "out", "--work", tmp_path / "work", "--signing-key", signing_key()),
    )
    if command == "check":
        arguments = ("check", epoch_folder(published_localnet()), "--trust-key", public_key())
    seen = observed(start_process(*arguments, "--workers", "1"), None)
    assert {name for name, _, _ in seen} >= RAY_PROCESSES, seen
    assert {reach for _, reach, _ in seen} == {LOOPBACK}, seen
    assert "127.0.0.1" in options_in(PAGE, command)


def test_a_watcher_listens_where_it_is_told_and_on_loopback(tmp_path: Path) -> None:
    """One port for health and metrics; without the option, none."""
    arguments = ("watch", "--node-home", localnet_home(), "--to", tmp_path / "out", "--work", f"file://{tmp_path / 'work'}")
    options = ("--signing-key", signing_key(), "--in-process", "--poll-interval", "0.1s")
    seen = observed(start_process(*arguments, *options, "--health-port", "0"), bool)
    assert len(seen) == 1 and {reach for _, reach, _ in seen} == {LOOPBACK}
    published = tmp_path / "out"
    none = observed(start_process(*arguments, *options), lambda seen: any(published.rglob("latest.json")))
    assert none == set()
    assert "--health-port" in options_in(PAGE, "watch") and "127.0.0.1" in options_in(PAGE, "watch")


def test_a_seeder_listens_for_peers(tmp_path: Path) -> None:
    """On every address at 6881 by itself, as peers need it; the status on request."""
    pytest.importorskip("libtorrent", reason="the extra p2p is not installed")
    arguments = ("seed", published_localnet(), "--data", tmp_path / "data", "--trust-key", public_key())
    status = ("--metrics", "127.0.0.1:0", "--listen", "127.0.0.1:0")
    seen = observed(start_process(*arguments, *status), lambda seen: len(seen) == 3)
    assert {reach for _, reach, _ in seen} == {LOOPBACK}
    assert len({port for _, _, port in seen}) == 2, "peers, by TCP and UDP, and the status"
    assert signature(seed).parameters["listen"].default == "0.0.0.0:6881" and "`0.0.0.0:6881`" in options_in(PAGE, "seed")
    assert signature(seed).parameters["metrics"].default is None and "--metrics" in options_in(PAGE, "seed")


def test_an_assistant_listens_on_loopback() -> None:
    """By itself, too: the node is on the same machine."""
    default = signature(assist).parameters["listen"].default
    assert [scope(address.rpartition(":")[0]) for address in default.split(",")] == [LOOPBACK] * 2
    assert f"`{default}`" in options_in(PAGE, "assist")


def test_a_mirror_listens_for_readers() -> None:
    """On the address that is named, and no other."""
    seen = observed(start_process("serve", published_localnet(), "--listen", "127.0.0.1:0"), bool)
    assert len(seen) == 1 and {reach for _, reach, _ in seen} == {LOOPBACK}
    assert signature(serve).parameters["listen"].default == ":8080" and "`:8080`" in options_in(PAGE, "serve")


@pytest.mark.slow
def test_a_fetch_needs_no_port(tmp_path: Path) -> None:
    """From a store, and with the shards' torrents as a source."""
    epoch, trust = epoch_folder(published_localnet()), ("--trust-key", public_key())
    assert observed(start_process("fetch", epoch, "--into", tmp_path / "one", *trust), None) == set()
    pytest.importorskip("libtorrent", reason="the extra p2p is not installed")
    assert observed(start_process("fetch", epoch, "--into", tmp_path / "two", "--source", "torrent", *trust), None) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("catalogue", "BUCKET"),
        ("gc", "BUCKET", "--keep-epochs", "1", "--plan"),
        ("inspect", "EPOCH"),
        ("prove", "BUCKET", "--account", "nobody.here"),
        ("produce", "--node-home", "HOME", "--to", "OUT", "--allow-unsigned", "--in-process"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_other_command_listens(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Nor one that works in tasks, without Ray."""
    places = {"BUCKET": published_localnet(), "EPOCH": epoch_folder(published_localnet()), "HOME": localnet_home(), "OUT": tmp_path / "out"}
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    assert observed(start_process(*(places.get(word, word) for word in arguments), environment=environment), None) == set()
