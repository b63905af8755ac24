"""Health and metrics of a seeder over HTTP: ``/healthz`` for whoever restarts it, ``/metrics`` for Prometheus. Nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipelines.bittorrent.addresses import Address
from pipelines.seeding.status import SeedStatus, ShardPhase
from schemas.errors import InvalidInputError

STUCK_S: Final = 30.0
"""A seeder whose session was not served for so long is not healthy."""

REQUEST_TIMEOUT_S: Final = 10.0
"""Longest wait for a client of this server."""

_SHARD_LABELS = ("chain_id", "epoch_height", "shard_id")


class SeedMetrics(Collector):
    """A seeder's status in Prometheus' terms, made anew for each scrape."""

    def __init__(self, status: Callable[[], SeedStatus]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics."""
        status = self._status()
        complete = GaugeMetricFamily("statecast_seed_parts_complete", "Parts that are here and verified.", labels=_SHARD_LABELS)
        wanted = GaugeMetricFamily("statecast_seed_parts_wanted", "Parts that are wanted.", labels=_SHARD_LABELS)
        seeding = GaugeMetricFamily("statecast_seed_shard_seeding", "1 where the whole shard is seeded.", labels=_SHARD_LABELS)
        peers = GaugeMetricFamily("statecast_seed_peers", "Peers that are connected.", labels=_SHARD_LABELS)
        uploaded = CounterMetricFamily("statecast_seed_uploaded_bytes", "Bytes of parts given to peers.", labels=_SHARD_LABELS)
        downloaded = CounterMetricFamily("statecast_seed_downloaded_bytes", "Bytes of parts read from the bucket.", labels=_SHARD_LABELS)
        for shard in status.shards:
            labels = (status.chain_id, str(shard.key.epoch_height), str(shard.key.shard_id))
            complete.add_metric(labels, shard.parts_complete)
            wanted.add_metric(labels, shard.parts_total)
            seeding.add_metric(labels, shard.phase is ShardPhase.SEEDING)
            peers.add_metric(labels, shard.peers)
            uploaded.add_metric(labels, shard.bytes_uploaded)
            downloaded.add_metric(labels, shard.bytes_downloaded)
        yield from (complete, wanted, seeding, peers, uploaded, downloaded)
        yield GaugeMetricFamily(
            "statecast_seed_last_poll_timestamp_seconds", "When the bucket was last read; 0 before.", value=status.polled_at or 0
        )
        yield GaugeMetricFamily(
            "statecast_seed_poll_failing", "1 while the bucket or a manifest is refused.", value=bool(status.poll_problem)
        )
        yield CounterMetricFamily(
            "statecast_seed_pieces_refused", "Pieces found changed on the disk before they were sent.", value=status.pieces_refused
        )


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT_S

    def log_message(self, format: str, *arguments: Any) -> None:
        """Scrapes are not worth a line."""


@contextmanager
def status_server(address: Address, status: Callable[[], SeedStatus], seconds_since_served: Callable[[], float]) -> Iterator[int]:
    """Serve health and metrics for a while; yield the port.

    Raises:
        InvalidInputError: the address can't be listened on.
    """
    registry = CollectorRegistry()
    registry.register(SeedMetrics(status))
    metrics = make_wsgi_app(registry)

    def application(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start_response("405 Method Not Allowed", [("Allow", "GET, HEAD")])
            return []
        if environment["PATH_INFO"] == "/metrics":
            scraped: Iterable[bytes] = metrics(environment, start_response)
            return scraped
        if environment["PATH_INFO"] != "/healthz":
            start_response("404 Not Found", [])
            return []
        stuck = seconds_since_served() > STUCK_S
        body = json.dumps({"status": "stuck" if stuck else "ok", **status().to_json()}).encode()
        start_response(
            "503 Service Unavailable" if stuck else "200 OK",
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
