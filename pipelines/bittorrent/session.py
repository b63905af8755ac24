"""Private BitTorrent sessions: only the named peers, trackers and web seeds are contacted.

DHT, local service discovery, UPnP, NAT-PMP and the STUN server that the library has built in are off. Rate limits hold for every
peer: the library's own default exempts addresses of private networks, which would leave a cluster's inside unlimited.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from pipelines.bittorrent.library import import_libtorrent
from schemas.address import Address
from schemas.errors import InvalidInputError

CONNECTIONS_MAX: Final = 5_000
"""Most connections that a session can be given."""

ALERTS_MAX: Final = 20_000
"""Alerts that the library keeps until they are read; more are dropped."""

LISTEN_TIMEOUT_S: Final = 10.0
"""How long a session may take until it listens."""

SEND_BUFFER_BYTES: Final = 3 << 20
"""Most bytes read ahead for one peer."""

RECONNECT_S: Final = 3
"""Shortest time until a lost peer is tried again; one that restarts is back soon."""

CONNECT_FAILURES_MAX: Final = 1_000
"""Failed connections after which a named peer is forgotten: practically never, since no other source would name it again."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How a session behaves. Rates are None where there is none."""

    listen: Address | None = None
    """Where peers may connect; None for outgoing connections alone."""
    trackers: bool = False
    """Whether trackers will be asked: the library asks them from sockets that listen, so some are opened, on any port, though no peer
    may call."""
    upload_bytes_per_s: int | None = None
    """All peers together, those of private networks too."""
    download_bytes_per_s: int | None = None
    connections_max: int = 200
    """Peers and web seeds together."""

    def __post_init__(self) -> None:
        if not 1 <= self.connections_max <= CONNECTIONS_MAX:
            raise InvalidInputError(problem=f"connections lie between 1 and {CONNECTIONS_MAX}", where=str(self.connections_max))
        for rate in (self.upload_bytes_per_s, self.download_bytes_per_s):
            if rate is not None and not 0 < rate < 2**31:
                raise InvalidInputError(problem="a rate limit lies between 1 byte and 2 GiB a second", where=str(rate))


def open_session(settings: SessionSettings) -> Any:
    """Return a session, which listens where it is to.

    Raises:
        InvalidInputError: libtorrent is not installed, or the address can't be listened on.
    """
    lt = import_libtorrent()
    listen = settings.listen
    category = lt.alert.category_t
    session = lt.session(
        {
            "listen_interfaces": _interfaces(settings),
            "enable_incoming_tcp": listen is not None,
            # Peers would never find another port than the one asked for.
            "listen_system_port_fallback": False,
            "max_retry_port_bind": 0,
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "dht_bootstrap_nodes": "",
            "webtorrent_stun_server": "",
            # uTP yields to all other traffic, which makes it slow where nothing else is (a twentieth of TCP's rate on loopback).
            "enable_outgoing_utp": False,
            "enable_incoming_utp": False,
            "user_agent": "statecast",
            # Several machines may share an address behind a translator.
            "allow_multiple_connections_per_ip": True,
            "connections_limit": settings.connections_max,
            # Every connected peer is served; the rate limit is shared.
            "unchoke_slots_limit": -1,
            "active_seeds": -1,
            "active_downloads": -1,
            "active_limit": -1,
            "upload_rate_limit": settings.upload_bytes_per_s or 0,
            "download_rate_limit": settings.download_bytes_per_s or 0,
            "send_buffer_watermark": SEND_BUFFER_BYTES,
            "min_reconnect_time": RECONNECT_S,
            "max_failcount": CONNECT_FAILURES_MAX,
            "alert_queue_size": ALERTS_MAX,
            "alert_mask": category.error_notification
            | category.status_notification
            | category.storage_notification
            | category.piece_progress_notification,
        }
    )
    _limit_everybody(lt, session)
    if listen is not None:
        _wait_until_listening(lt, session, listen)
    return session


def close_session(session: Any) -> None:
    """Leave all peers and forget all torrents; files stay. Returns when the library is done with them."""
    session.pause()
    for handle in session.get_torrents():
        session.remove_torrent(handle)


def _interfaces(settings: SessionSettings) -> str:
    if settings.listen is None:
        return "0.0.0.0:0" if settings.trackers else ""
    return str(Address(settings.listen.host or "0.0.0.0", settings.listen.port))


def _limit_everybody(lt: Any, session: Any) -> None:
    """Put every address into the class that the session's limits are of, those of private networks too."""
    everybody = 1 << session.global_peer_class_id
    classes = lt.ip_filter()
    classes.add_rule("0.0.0.0", "255.255.255.255", everybody)
    classes.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", everybody)
    session.set_peer_class_filter(classes)


def _wait_until_listening(lt: Any, session: Any, listen: Address) -> None:
    deadline = time.monotonic() + LISTEN_TIMEOUT_S
    while True:
        session.wait_for_alert(100)
        for alert in session.pop_alerts():
            if isinstance(alert, lt.listen_succeeded_alert) and alert.socket_type == lt.socket_type_t.tcp:
                return
            if isinstance(alert, lt.listen_failed_alert):
                raise InvalidInputError(
                    problem=f"no BitTorrent peer can listen there: {alert.error.message()}",
                    where=str(listen),
                    remedy="Free the port or choose another one.",
                )
        if time.monotonic() > deadline:
            raise InvalidInputError(problem=f"the BitTorrent session does not listen after {LISTEN_TIMEOUT_S:g} s", where=str(listen))
