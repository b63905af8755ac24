"""Sessions are private, listen where they are told, and their limits hold for peers on private networks."""

from __future__ import annotations

import queue
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.bittorrent.published_torrent import read_torrent
from pipelines.bittorrent.session import SessionSettings, close_session, open_session
from schemas.address import Address
from schemas.errors import InvalidInputError
from tests.support.json_process import running_client
from tests.support.random_epochs import publish_random_epoch

lt = pytest.importorskip("libtorrent", reason="the extra p2p is not installed")

LOOPBACK = Address("127.0.0.1", 0)


def test_a_session_announces_itself_nowhere() -> None:
    """DHT, local discovery, port mapping and the STUN server are off."""
    session = open_session(SessionSettings(LOOPBACK))
    settings = session.get_settings()
    assert not any(settings[name] for name in ("enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp"))
    assert (settings["dht_bootstrap_nodes"], settings["webtorrent_stun_server"]) == ("", "")
    assert settings["active_seeds"] == -1
    close_session(session)


def test_a_port_that_is_taken_is_an_error() -> None:
    """No other port is taken instead."""
    session = open_session(SessionSettings(LOOPBACK))
    with pytest.raises(InvalidInputError, match="listen there"):
        open_session(SessionSettings(Address("127.0.0.1", session.listen_port())))
    close_session(session)


@pytest.mark.parametrize("settings", [{"connections_max": 0}, {"upload_bytes_per_s": 0}, {"download_bytes_per_s": 2**31}])
def test_limits_have_limits(settings: dict[str, Any]) -> None:
    """What the library would take for no limit is refused."""
    with pytest.raises(InvalidInputError):
        SessionSettings(LOOPBACK, **settings)


def test_the_upload_limit_holds_for_a_local_peer(tmp_path: Path) -> None:
    """The library's own default gives peers on loopback and private networks all it can."""
    size, rate = 4_000_000, 2_000_000
    epoch = publish_random_epoch(tmp_path / "bucket", shards={0: [size]}, piece_bytes=1 << 18)
    torrent = read_torrent(epoch.torrent(), epoch.manifest.shards[0], "here")
    session = open_session(SessionSettings(LOOPBACK, upload_bytes_per_s=rate))
    parameters = torrent.parameters()
    parameters.save_path = str(epoch.folder)
    parameters.flags |= lt.torrent_flags.seed_mode
    session.add_torrent(parameters)
    arguments = ("--torrent", tmp_path / "bucket" / epoch.layout.torrent(0), "--peer", f"127.0.0.1:{session.listen_port()}")
    began_s = time.monotonic()
    with running_client(tmp_path / "into", *arguments) as client:
        client.event("done")
    # Half a second's worth is given before the limit takes hold.
    assert size / (time.monotonic() - began_s) < 1.4 * rate
    close_session(session)


def test_a_session_without_incoming_peers_does_not_listen() -> None:
    """No port is open, so a fetch needs none."""
    before = {(found.type, found.laddr) for found in psutil.Process().net_connections() if not found.raddr}
    session = open_session(SessionSettings())
    assert not session.is_listening()
    assert {(found.type, found.laddr) for found in psutil.Process().net_connections() if not found.raddr} <= before
    close_session(session)


def test_trackers_are_asked_without_incoming_peers(tmp_path: Path) -> None:
    """The library asks them from a socket that listens; connections to it are refused."""
    asked: queue.Queue[str] = queue.Queue()

    class Tracker(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.put(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"d8:intervali60e5:peers0:e")

        def log_message(self, *arguments: object) -> None:
            pass

    epoch = publish_random_epoch(tmp_path / "bucket", shards={0: [100_000]}, piece_bytes=1 << 18)
    parameters = read_torrent(epoch.torrent(), epoch.manifest.shards[0], "here").parameters()
    parameters.save_path = str(epoch.folder)
    parameters.flags |= lt.torrent_flags.seed_mode
    with ThreadingHTTPServer(("127.0.0.1", 0), Tracker) as tracker:
        threading.Thread(target=tracker.serve_forever, daemon=True).start()
        parameters.trackers = [f"http://127.0.0.1:{tracker.server_port}/announce"]
        session = open_session(SessionSettings(trackers=True))
        session.add_torrent(parameters)
        assert "event=started" in asked.get(timeout=60)
        tracker.shutdown()
    with socket.create_connection(("127.0.0.1", session.listen_port()), timeout=60) as caller:
        caller.settimeout(60)
        assert caller.recv(1) == b"", "the connection is closed before a word"
    close_session(session)
