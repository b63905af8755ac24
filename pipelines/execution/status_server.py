"""Health and metrics of a long-running command over HTTP, and nothing else.

``/healthz`` for liveness probes, ``/readyz`` for readiness probes, ``/metrics`` for Prometheus.

No client can make it grow: so many connections at once, each for so long, and a request that is none costs a count and, at
times, a line.
"""

from __future__ import annotations

import json
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Metric, make_wsgi_app
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from schemas.address import Address
from schemas.errors import InvalidInputError
from schemas.shown_text import shown_values

CONNECTION_TIMEOUT_S: Final = 10.0
"""Longest that a connection lives, from its first byte to the last."""

CONNECTIONS_MAX: Final = 16
"""Most connections at once, each with a thread; one more is closed at once."""

LINE_INTERVAL_S: Final = 60.0
"""Refused requests are told in a line about this often, with their number."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a command is."""

    problem: str
    """In a word; empty where all is well."""
    facts: Mapping[str, Any]
    """Plain JSON values."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.refused = {"malformed": 0, "too_many": 0, "too_slow": 0}
        """Requests and connections that got no answer, by why."""
        self._began_s: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        self._spoke_s = -LINE_INTERVAL_S
        self._untold = 0

    def refuse(self, reason: str, request: Any = None) -> None:
        """Count a request, and say so now and then.

        Args:
            request: its connection; one that was ended for being slow is counted already.
        """
        with self._lock:
            if request is not None and self._began_s.get(request) == math.inf:
                return
            self.refused[reason] += 1
            self._untold += 1
            if time.monotonic() - self._spoke_s < LINE_INTERVAL_S:
                return
            self._spoke_s, untold, self._untold = time.monotonic(), self._untold, 0
        logging.getLogger(__name__).warning(
            "%d requests for health or metrics got no answer, the last: %s", untold, reason.replace("_", " ")
        )

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own, where one is left."""
        with self._lock:
            is_one_too_many = len(self._began_s) >= CONNECTIONS_MAX
            if not is_one_too_many:
                self._began_s[request] = time.monotonic()
        if is_one_too_many:
            self.refuse("too_many")
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        with self._lock:
            self._began_s.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End connections that live too long; called some times a second. Their threads find them closed."""
        with self._lock:
            late = [request for request, began_s in self._began_s.items() if time.monotonic() - began_s > CONNECTION_TIMEOUT_S]
            for request in late:
                # Only once: what its thread does then is not waited for.
                self._began_s[request] = math.inf
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)
        for _ in late:
            self.refuse("too_slow")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Count a connection that ended in the midst; no traceback is worth what a stranger sends."""
        self.refuse("malformed", request)


class _Handler(WSGIRequestHandler):
    server: _Server
    timeout = CONNECTION_TIMEOUT_S

    def log_message(self, format: str, *arguments: Any) -> None:
        """Scrapes are not worth a line."""

    def log_error(self, format: str, *arguments: Any) -> None:
        """Count what is no request; called with each error that the parser answers."""
        self.server.refuse("malformed", self.connection)


class _Refused(Collector):
    """What the server itself has refused, as a metric."""

    def __init__(self) -> None:
        self.server: _Server | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield the counter."""
        refused = CounterMetricFamily(
            "statecast_status_requests_refused", "Requests for health or metrics that got no answer, by why.", labels=["reason"]
        )
        for reason, count in (self.server.refused if self.server is not None else {}).items():
            refused.add_metric([reason], count)
        yield refused


@contextmanager
def status_server(
    address: Address, metrics: Collector, health: Callable[[], Health], ready: Callable[[], Health] | None = None
) -> Iterator[int]:
    """Serve health and metrics for a while; yield the port.

    Args:
        metrics: asked again for each scrape, from several threads.
        health: what ``/healthz`` says: 200 without a problem, else 503.
        ready: the same of ``/readyz``; as ``health`` by default.
    Raises:
        InvalidInputError: the address can't be listened on.
    """
    registry = CollectorRegistry()
    registry.register(metrics)
    refused = _Refused()
    registry.register(refused)
    scrape = make_wsgi_app(registry)
    pages = {"/healthz": health, "/readyz": ready or health}

    def application(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start_response("405 Method Not Allowed", [("Allow", "GET, HEAD")])
            return []
        if environment["PATH_INFO"] == "/metrics":
            scraped: Iterable[bytes] = scrape(environment, start_response)
            return scraped
        page = pages.get(environment["PATH_INFO"])
        if page is None:
            start_response("404 Not Found", [])
            return []
        found = page()
        body = json.dumps(shown_values({"status": found.problem or "ok", **found.facts})).encode()
        start_response(
            "503 Service Unavailable" if found.problem else "200 OK",
            [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
        )
        return [] if environment["REQUEST_METHOD"] == "HEAD" else [body]

    try:
        server = make_server(address.host, address.port, application, _Server, _Handler)
    except OSError as error:
        raise InvalidInputError(
            problem=f"health and metrics can't be served there: {error.strerror}",
            where=str(address),
            remedy="Free the port or choose another.",
        ) from error
    refused.server = server
    thread = threading.Thread(target=server.serve_forever, name="status-server", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
