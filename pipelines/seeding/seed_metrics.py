"""A seeder in Prometheus' terms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pipelines.seeding.status import PeerStatus, SeedStatus, ShardPhase

STUCK_S: Final = 30.0
"""A seeder whose session was not served for so long is not healthy."""

_SHARD_LABELS = ("chain_id", "epoch_height", "shard_id")


class SeedMetrics(Collector):
    """A seeder's status in Prometheus' terms, rebuilt for each scrape."""

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
        if status.near_peer is not None:
            yield from _near_peer(status.near_peer)


def _near_peer(peer: PeerStatus) -> Iterable[Metric]:
    requests = CounterMetricFamily(
        "statecast_seed_near_requests", "Requests of nearcore's nodes for state, by what became of them.", labels=("kind", "outcome")
    )
    for (kind, outcome), count in peer.requests_by_kind.items():
        requests.add_metric((kind, outcome), count)
    messages = CounterMetricFamily(
        "statecast_seed_near_messages", "Connections and messages of nearcore's nodes, by what became of them.", labels=("outcome",)
    )
    for outcome, count in peer.messages.items():
        messages.add_metric((outcome,), count)
    yield from (requests, messages)
    yield CounterMetricFamily("statecast_seed_near_sent_bytes", "Bytes of headers and parts given to nodes.", value=peer.bytes_sent)
    yield GaugeMetricFamily("statecast_seed_near_neighbours", "Nodes that are connected.", value=peer.neighbours)
    yield GaugeMetricFamily("statecast_seed_near_askers", "Nodes that asked for state within the last minutes.", value=peer.askers)
    yield GaugeMetricFamily(
        "statecast_seed_near_announced_epoch_height",
        "The newest epoch that is announced; 0 for none.",
        value=max(peer.announced_epochs, default=0),
    )
    answers = HistogramMetricFamily("statecast_seed_near_answer_seconds", "From a request to the last byte of its answer.")
    answers.add_metric((), list(peer.answers_up_to), peer.answers_total_s)
    yield answers
