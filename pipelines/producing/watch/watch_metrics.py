"""What a watcher counts and measures, in Prometheus' terms."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.errors import StatecastError


class WatchMetrics(Collector):
    """A watcher's numbers. Written by its threads, read by scrapes; heights are -1 before the first epoch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Every kind from the beginning: in a series that begins with 1 Prometheus sees no increase, and the first failure would fire no alert.
        self._failures: Counter[str] = Counter(dict.fromkeys(_kinds(StatecastError), 0))
        self._publishing_since_s: float | None = None
        self._epoch_parts = 0
        self.height_seen = -1
        self.height_published = -1
        self.epochs_behind = 0
        self.epochs_published = 0
        self.epochs_abandoned = 0
        self.parts_published = 0
        self.parts_per_second = 0.0
        self.published_bytes = 0
        self.first_part_s = 0.0
        self.last_part_s = 0.0
        self.polled_at = 0.0
        self.producing = False
        self.claim_held = False

    def seen(self, height: int) -> None:
        """Record an epoch that the node has."""
        with self._lock:
            self.height_seen = max(self.height_seen, height)

    def published(self, height: int, *, by_us: bool) -> None:
        """Record an epoch that is published."""
        with self._lock:
            self.height_published = max(self.height_published, height)
            self.epochs_published += by_us

    def failed(self, kind: str) -> None:
        """Count a failure by the kind of its error."""
        with self._lock:
            self._failures[kind] += 1

    def begin_epoch(self) -> None:
        """Begin an attempt at an epoch."""
        with self._lock:
            self._publishing_since_s, self._epoch_parts = None, 0

    def parts(self, count: int, size: int, since_seen_s: float) -> None:
        """Record parts that were published.

        Args:
            count: how many; 0 where publishing begins.
            size: bytes of their objects.
            since_seen_s: seconds since the epoch was first seen.
        """
        now = time.monotonic()
        with self._lock:
            if self._publishing_since_s is None:
                self._publishing_since_s = now
            if not count:
                return
            if not self._epoch_parts:
                self.first_part_s = since_seen_s
            self.last_part_s = since_seen_s
            self._epoch_parts += count
            self.parts_published += count
            self.published_bytes += size
            self.parts_per_second = self._epoch_parts / max(now - self._publishing_since_s, 1e-3)

    def to_json(self) -> dict[str, Any]:
        """Return what a person asks for first, as JSON values."""
        with self._lock:
            return {
                "epoch_height_seen": self.height_seen,
                "epoch_height_published": self.height_published,
                "epochs_behind": self.epochs_behind,
                "producing": self.producing,
                "claim_held": self.claim_held,
                "polled_at": self.polled_at,
            }

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics."""
        with self._lock:
            failures = CounterMetricFamily("statecast_failures", "Failures by the kind of their error.", labels=("kind",))
            for kind, count in sorted(self._failures.items()):
                failures.add_metric((kind,), count)
            found: list[Metric] = [
                _gauge("epoch_height_published", "Height of the newest epoch that is known to be published.", self.height_published),
                _gauge("epoch_height_seen", "Height of the newest epoch that the node has a sync hash of.", self.height_seen),
                _gauge("epochs_behind", "Epochs that were seen and are neither published nor abandoned.", self.epochs_behind),
                _counter("epochs_published", "Epochs that this watcher has published.", self.epochs_published),
                _counter("epochs_abandoned", "Epochs whose deadline passed.", self.epochs_abandoned),
                _counter("parts_published", "Parts that were put, or found right in place.", self.parts_published),
                _gauge(
                    "parts_per_second",
                    "Parts a second of the last epoch, from the beginning of its first publishing.",
                    self.parts_per_second,
                ),
                _counter("published_bytes", "Bytes of the objects of these parts.", self.published_bytes),
                _gauge("first_part_seconds", "From the last epoch's being seen to its first part.", self.first_part_s),
                _gauge("last_part_seconds", "From the last epoch's being seen to its latest part.", self.last_part_s),
                failures,
                _gauge("last_poll_timestamp_seconds", "When the node was last looked at with success; 0 before.", self.polled_at),
                _gauge("producing", "1 while an epoch is being produced.", self.producing),
                _gauge("claim_held", "1 while this watcher holds an epoch's claim.", self.claim_held),
            ]
        yield from found


def _kinds(error: type[StatecastError]) -> Iterator[str]:
    """Yield the kinds of a class of errors and of all below it."""
    yield error.kind
    for below in error.__subclasses__():
        yield from _kinds(below)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"statecast_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"statecast_{name}", text, value=value)
