"""What Prometheus reads of a seeder that is a peer of nearcore's network."""

from __future__ import annotations

from prometheus_client.core import CollectorRegistry
from prometheus_client.exposition import generate_latest

from pipelines.nearpeer.answer_times import AnswerTimes
from pipelines.nearpeer.request_policy import RequestLimits, RequestPolicy, Wanted
from pipelines.seeding.seed_metrics import SeedMetrics
from pipelines.seeding.status import PeerStatus, SeedStatus
from tests.nearpeer.test_state_host import EPOCH
from tests.support.peer_recordings import named_key


def test_requests_of_nodes_are_counted_by_kind_and_outcome_and_their_answers_timed() -> None:
    """Among a seeder's other numbers; a seeder that is no such peer says nothing of it."""
    policy, times = RequestPolicy(RequestLimits(per_s_max=0, under_way_max=2)), AnswerTimes()
    for part in (None, 0, 1):
        policy.decide(Wanted(named_key("asker").peer_id, 3, part, None), EPOCH, lambda *_: 10, 1.0)
    policy.decide(Wanted(named_key("other").peer_id, 3, 0, None), None, lambda *_: 10, 1.0)
    for seconds in (0.1, 0.2, 12.0, 99.0):
        times.add(seconds)
    peer = PeerStatus(
        ports=(1, 2),
        neighbours=7,
        announced_epochs=(5, 6),
        requests=policy.counted,
        messages={"neighbours connected": 9},
        bytes_sent=1_000,
        requests_by_kind=policy.counted_by_kind,
        askers=policy.askers,
        answers_up_to=times.up_to(),
        answers_total_s=times.total_s,
    )
    lines = exposed(peer).splitlines()
    assert {
        'statecast_seed_near_requests_total{kind="header",outcome="answered"} 1.0',
        'statecast_seed_near_requests_total{kind="part",outcome="answered"} 1.0',
        'statecast_seed_near_requests_total{kind="part",outcome="too many requests"} 1.0',
        'statecast_seed_near_requests_total{kind="part",outcome="not announced"} 1.0',
        'statecast_seed_near_messages_total{outcome="neighbours connected"} 9.0',
        "statecast_seed_near_sent_bytes_total 1000.0",
        "statecast_seed_near_neighbours 7.0",
        "statecast_seed_near_askers 1.0",
        "statecast_seed_near_announced_epoch_height 6.0",
        'statecast_seed_near_answer_seconds_bucket{le="0.1"} 1.0',
        'statecast_seed_near_answer_seconds_bucket{le="0.3"} 2.0',
        'statecast_seed_near_answer_seconds_bucket{le="30.0"} 3.0',
        'statecast_seed_near_answer_seconds_bucket{le="+Inf"} 4.0',
        "statecast_seed_near_answer_seconds_sum 111.3",
    } <= set(lines), "\n".join(lines)
    assert "near" not in exposed(None)


def exposed(peer: PeerStatus | None) -> str:
    """Return what is read of a seeder without shards."""
    registry = CollectorRegistry()
    registry.register(SeedMetrics(lambda: SeedStatus("chain", 1, (), None, "", 0, peer)))
    return generate_latest(registry).decode()
