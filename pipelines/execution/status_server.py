"""Health and metrics of a long-running command over HTTP, and nothing else.

``/healthz`` for liveness probes, ``/readyz`` for readiness probes, ``/metrics`` for Prometheus.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.registry import Collector

from schemas.address import Address
from schemas.errors import InvalidInputError

REQUEST_TIMEOUT_S: Final = 10.0
"""Longest wait for a client of this server."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a command is."""

    problem: str
    """In a word; empty where all is well."""
    facts: Mapping[str, Any]
    """Plain JSON values."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT_S

    def log_message(self, format: str, *arguments: Any) -> None:
        """Scrapes are not worth a line."""


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
        body = json.dumps({"status": found.problem or "ok", **found.facts}).encode()
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
    thread = threading.Thread(target=server.serve_forever, name="status-server", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
