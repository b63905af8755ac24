"""A stock BitTorrent client as a program of its own: libtorrent and nothing of this project.

    python stock_client.py INTO [--torrent FILE | --magnet LINK] [--peer HOST:PORT]… [--web-seed URL]… [--tcp] [--seed]

It prints JSON objects: ``listening`` with its port, ``banned`` when a web seed or peer is given up for wrong bytes, and ``done`` when all
is on the disk, with the bytes that came from peers and from web seeds. With ``--tcp``
it leaves out uTP, which it tries first and gives up after some seconds; with ``--seed`` it goes on seeding.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import libtorrent as lt


def main() -> None:
    """Download, then tell; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("into")
    parser.add_argument("--torrent")
    parser.add_argument("--magnet")
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--web-seed", action="append", default=[])
    parser.add_argument("--tcp", action="store_true")
    parser.add_argument("--seed", action="store_true")
    options = parser.parse_args()
    category = lt.alert.category_t
    session = lt.session(
        {
            # What keeps a test on loopback; all else is as it comes.
            "listen_interfaces": "127.0.0.1:0",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "allow_multiple_connections_per_ip": True,
            "enable_outgoing_utp": not options.tcp,
            "alert_mask": category.all_categories
            & ~(
                category.session_log_notification
                | category.torrent_log_notification
                | category.peer_log_notification
                | category.picker_log_notification
            ),
        }
    )
    parameters = lt.parse_magnet_uri(options.magnet) if options.magnet else lt.load_torrent_file(options.torrent)
    parameters.save_path = options.into
    parameters.url_seeds = [*parameters.url_seeds, *options.web_seed]
    handle = session.add_torrent(parameters)
    for peer in options.peer:
        host, port = peer.split(":")
        handle.connect_peer((host, int(port)))
    say(event="listening", port=session.listen_port())
    failed = 0
    while not handle.status().is_seeding:
        failed += tell(session)
    handle.flush_cache()
    while not any(isinstance(alert, lt.cache_flushed_alert) for alert in session.pop_alerts()):
        session.wait_for_alert(100)
    status = handle.status()
    say(event="done", received=status.total_payload_download, pieces_refused=failed, wasted=status.total_failed_bytes)
    while options.seed:
        time.sleep(0.1)
        session.pop_alerts()


def tell(session: Any) -> int:
    """Tell what happened; return how many pieces were refused."""
    session.wait_for_alert(100)
    failed = 0
    for alert in session.pop_alerts():
        failed += isinstance(alert, lt.hash_failed_alert)
        if isinstance(alert, lt.peer_ban_alert):
            say(event="banned", what=alert.message())
        if isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert)):
            say(event="error", what=alert.message())
    return failed


def say(**facts: object) -> None:
    """Print one JSON object."""
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
