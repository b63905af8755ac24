"""Which part goes to which source, and what follows from each outcome. No threads, no clock: time is a number."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.preference import priority_score
from pipelines.fetching.schedule import FailureKind, Schedule, Transfer
from pipelines.fetching.source import SourceTraits, WantedObject
from pipelines.fetching.source_account import SourceAccount, open_account
from schemas.ids import PartId

SIZE = 1000
LIMITS = FetchLimits(
    connections=4,
    connections_per_source=2,
    parts_in_flight=8,
    attempts_max=2,
    backoff_first_s=1.0,
    stall_s=5.0,
    unproven_after_s=1e9,
    unproven_after_min_s=1e9,
)


def parts(count: int) -> list[WantedObject]:
    """Parts of one shard."""
    return [WantedObject(f"part {idx}", SIZE, SIZE, 3, PartId(idx, count)) for idx in range(count)]


def accounts(*source_ids: str, limits: FetchLimits = LIMITS) -> list[SourceAccount]:
    """Sources that were not asked yet."""
    return [open_account(source_id, SourceTraits(), limits) for source_id in source_ids]


def schedule(count: int, sources: list[SourceAccount], limits: FetchLimits = LIMITS) -> Schedule:
    """A schedule whose jitter is always the same."""
    return Schedule(parts(count), sources, limits, Random(5))


def finish(plan: Schedule, transfer: Transfer, now_s: float) -> list[int]:
    """Let a transfer bring its part, and the part be right."""
    plan.progressed(transfer.transfer_id, SIZE, now_s)
    cancelled = plan.arrived(transfer.transfer_id, now_s)
    plan.verified(transfer.part)
    return cancelled


def test_no_limit_on_connections_is_exceeded() -> None:
    """Neither a source's nor that of all."""
    plan = schedule(20, accounts("a", "b", "c"))
    begun = plan.start(0.0)
    assert len(begun) == 4
    assert max(Counter(transfer.source_id for transfer in begun).values()) <= 2
    assert plan.start(0.0) == []


def test_parts_that_wait_for_verification_count_as_in_flight() -> None:
    """So that what is on disk and in memory stays bounded."""
    limits = replace(LIMITS, parts_in_flight=2)
    plan = schedule(5, accounts("a"), limits)
    begun = plan.start(0.0)
    assert len(begun) == 2
    for transfer in begun:
        plan.arrived(transfer.transfer_id, 1.0)
    assert plan.start(1.0) == []
    plan.verified(begun[0].part)
    assert len(plan.start(1.0)) == 1


def test_among_equals_the_hash_decides() -> None:
    """Each part goes to the source with the least hash while both are free."""
    limits = replace(LIMITS, connections=100, connections_per_source=50, parts_in_flight=100)
    plan = schedule(40, accounts("a", "b", limits=limits), limits)
    for transfer in plan.start(0.0):
        assert transfer.source_id == min("ab", key=lambda source_id: priority_score(source_id, 3, transfer.part))


def test_a_faster_source_is_asked_more() -> None:
    """In proportion to what was measured."""
    limits = replace(LIMITS, connections=256, connections_per_source=256, parts_in_flight=256)
    sources = accounts("slow", "fast", limits=limits)
    sources[0].rate, sources[1].rate = 1.0, 9.0
    begun = schedule(256, sources, limits).start(0.0)
    assert Counter(transfer.source_id for transfer in begun)["fast"] > 200


def test_a_busy_favourite_does_not_keep_a_part_waiting() -> None:
    """A free source gets it."""
    plan = schedule(4, accounts("a", "b"))
    assert Counter(transfer.source_id for transfer in plan.start(0.0)) == {"a": 2, "b": 2}


def test_a_failed_part_goes_to_the_source_that_was_not_asked_yet() -> None:
    """Least-asked comes before every hash and rate."""
    sources = accounts("a", "b")
    plan = schedule(1, sources)
    (first,) = plan.start(0.0)
    plan.failed(first.transfer_id, FailureKind.TRANSIENT, "reset", 1.0)
    (second,) = plan.start(1.0)
    assert {first.source_id, second.source_id} == {"a", "b"}


def test_a_source_rests_longer_with_each_failure_in_a_row() -> None:
    """Doubling with jitter, and forgotten after a success."""
    (source,) = accounts("a")
    plan = schedule(30, [source], replace(LIMITS, attempts_max=9, connections_per_source=1))
    source.connections_max = 1
    now_s, pauses = 0.0, []
    for _ in range(4):
        (transfer,) = plan.start(now_s)
        plan.failed(transfer.transfer_id, FailureKind.TRANSIENT, "503", now_s)
        pauses.append(source.rests_until_s - now_s)
        assert plan.start(now_s + pauses[-1] * 0.99) == []
        now_s += pauses[-1]
    assert all(2.0**step * 0.5 <= pause <= 2.0**step for step, pause in enumerate(pauses))
    (transfer,) = plan.start(now_s)
    finish(plan, transfer, now_s + 1)
    assert source.failures_in_row == 0


def test_failures_at_one_moment_count_as_one() -> None:
    """Four connections that break together are one fault of the source."""
    sources = accounts("a", "b")
    plan = schedule(4, sources)
    of_a = [transfer for transfer in plan.start(0.0) if transfer.source_id == "a"]
    for transfer in of_a:
        plan.failed(transfer.transfer_id, FailureKind.TRANSIENT, "reset", 1.0)
    assert len(of_a) == 2
    assert (sources[0].errors, sources[0].failures_in_row) == (2, 1)


def test_a_server_is_left_alone_as_long_as_it_asks() -> None:
    """Up to a limit."""
    (source,) = accounts("a")
    plan = schedule(1, [source])
    (transfer,) = plan.start(0.0)
    plan.failed(transfer.transfer_id, FailureKind.TRANSIENT, "429", 0.0, retry_after_s=30.0)
    assert source.rests_until_s == 30.0
    (transfer,) = plan.start(30.0)
    plan.failed(transfer.transfer_id, FailureKind.TRANSIENT, "429", 30.0, retry_after_s=1e9)
    assert source.rests_until_s == 30.0 + LIMITS.retry_after_max_s


def test_a_wrong_byte_bans_the_source_and_drops_what_it_sends() -> None:
    """Its other parts go to the other source at once, although its threads have not ended."""
    sources = accounts("a", "b")
    plan = schedule(4, sources, replace(LIMITS, connections=10))
    begun = plan.start(0.0)
    of_a = [transfer for transfer in begun if transfer.source_id == "a"]
    assert plan.failed(of_a[0].transfer_id, FailureKind.WRONG, "sha256", 1.0) == [of_a[1].transfer_id]
    assert sources[0].banned == "sha256" and sources[0].is_out
    for transfer in begun:
        if transfer.source_id == "b":
            finish(plan, transfer, 2.0)
    again = plan.start(2.0)
    assert {transfer.part for transfer in again} == {transfer.part for transfer in of_a}
    assert {transfer.source_id for transfer in again} == {"b"}
    plan.cancelled(of_a[1].transfer_id)
    for transfer in again:
        finish(plan, transfer, 3.0)
    assert plan.is_finished and not plan.failed_parts


def test_slowness_is_no_lie() -> None:
    """A slow source is hedged, loses, and is neither banned nor given up."""
    sources = accounts("a", "b")
    plan = schedule(1, sources)
    (slow,) = plan.start(0.0)
    plan.progressed(slow.transfer_id, 1, 1.0)
    (hedge,) = plan.start(1.0 + LIMITS.stall_s)
    assert hedge.is_hedge and hedge.part == slow.part and hedge.source_id != slow.source_id
    assert finish(plan, hedge, 7.0) == [slow.transfer_id]
    plan.cancelled(slow.transfer_id)
    assert plan.is_finished
    loser = next(source for source in sources if source.source_id == slow.source_id)
    assert not loser.is_out and loser.errors == 0 and loser.active == 0


def test_a_source_that_hangs_does_not_keep_others_idle() -> None:
    """Its transfers hold every connection there is; once they have stalled, others go on beside them, and they are hedged."""
    limits = replace(LIMITS, connections=2, connections_per_source=2)
    sources = accounts("a", "b", limits=limits)
    sources[1].rests_until_s = 1.0
    plan = schedule(6, sources, limits)
    assert {transfer.source_id for transfer in plan.start(0.0)} == {"a"}
    assert plan.start(2.0) == []
    begun = plan.start(LIMITS.stall_s)
    assert [(transfer.source_id, transfer.is_hedge) for transfer in begun] == [("b", True), ("b", True)]
    for transfer in begun:
        finish(plan, transfer, LIMITS.stall_s + 1)
    assert {transfer.source_id for transfer in plan.start(LIMITS.stall_s + 1)} == {"b"}


def test_sources_that_send_next_to_nothing_keep_nobody_from_sending() -> None:
    """However many of them there are: while nobody has brought a part all are asked, then who has brings what they hold."""
    limits = replace(LIMITS, connections=4, connections_per_source=2, parts_in_flight=8, unproven_after_s=1.0)
    hostile = [f"hostile {number}" for number in range(63)]
    sources = accounts("honest", *hostile, limits=limits)
    plan = schedule(20, sources, limits)
    now_s = 0.0
    running: dict[int, Transfer] = {}
    while not plan.is_finished:
        assert now_s < 12, "it hangs"
        running |= {transfer.transfer_id: transfer for transfer in plan.start(now_s)}
        now_s += 0.1
        for transfer in list(running.values()):
            if transfer.source_id == "honest":
                del running[transfer.transfer_id]
                for cancelled in finish(plan, transfer, now_s):
                    running.pop(cancelled)
            else:
                plan.progressed(transfer.transfer_id, int(now_s), now_s)
    assert not plan.failed_parts and sources[0].parts == 20
    named = [source for source in sources[1:] if any("when another source brought the part" in problem for problem in source.problems)]
    assert len(named) >= 8 and not any(source.is_out for source in sources)


def test_who_is_much_slower_than_a_proven_source_is_overtaken_soon() -> None:
    """After four times what the other takes for a part, where that is less than the patience with a source of which nothing is known."""
    limits = replace(LIMITS, connections_per_source=1, unproven_after_s=1.0, unproven_after_min_s=0.05)
    plan = schedule(2, accounts("quick", "crawls", limits=limits), limits)
    by_source = {transfer.source_id: transfer for transfer in plan.start(0.0)}
    finish(plan, by_source["quick"], 0.1)
    assert plan.start(0.39) == []
    (hedge,) = plan.start(0.41)
    assert (hedge.part, hedge.source_id) == (by_source["crawls"].part, "quick")


def test_one_part_that_crawls_is_asked_of_ever_more_sources() -> None:
    """One, two, four, as far as connections go: nobody has shown yet that it has it faster."""
    limits = replace(LIMITS, connections=16, unproven_after_s=1.0)
    plan = schedule(1, accounts(*map(str, range(64)), limits=limits), limits)
    begun = [len(plan.start(float(now_s))) for now_s in range(7)]
    assert begun == [1, 1, 2, 4, 8, 16, 16]


def test_a_source_that_lacks_all_that_it_is_asked_for_rests() -> None:
    """It may have other shards' parts, but asking it for all of these would be all that the fetch does."""
    (source,) = accounts("a", limits=replace(LIMITS, connections_per_source=1))
    plan = schedule(100, [source], replace(LIMITS, connections_per_source=1))
    asked, now_s = 0, 0.0
    while now_s < 100:
        for transfer in plan.start(now_s):
            asked += 1
            plan.failed(transfer.transfer_id, FailureKind.ABSENT, "404", now_s)
        now_s += 0.1
    assert 8 <= asked <= 16
    assert not source.is_out


def test_a_transfer_that_lives_is_not_hedged_as_stalled() -> None:
    """An empty buffer is a sign of life."""
    plan = schedule(1, accounts("a", "b"))
    (transfer,) = plan.start(0.0)
    plan.alive(transfer.transfer_id, 4.0)
    assert plan.start(4.0 + LIMITS.stall_s - 0.1) == []
    assert len(plan.start(4.0 + LIMITS.stall_s)) == 1


def test_at_the_end_a_slow_transfer_is_hedged_by_a_source_that_overtakes_it() -> None:
    """But not before no part waits, and not when the gain is small."""
    sources = accounts("a", "b")
    plan = schedule(1, sources)
    (slow,) = plan.start(0.0)
    other = next(source for source in sources if source.source_id != slow.source_id)
    plan.progressed(slow.transfer_id, 300, 3.0)
    other.rate = 150.0  # seven seconds are left, it would take 6.7
    assert plan.start(3.0) == []
    other.rate = 1000.0
    (hedge,) = plan.start(3.0)
    assert hedge.source_id == other.source_id
    assert plan.start(3.0) == []


def test_a_part_that_a_source_lacks_is_asked_of_others_only() -> None:
    """The source is asked for other parts."""
    sources = accounts("a")
    plan = schedule(2, sources)
    begun = plan.start(0.0)
    plan.failed(begun[0].transfer_id, FailureKind.ABSENT, "404", 1.0)
    finish(plan, begun[1], 1.0)
    assert plan.start(2.0) == []
    assert plan.is_finished
    assert plan.failed_parts == {begun[0].part: {"a": ["404"]}}


def test_a_source_that_refuses_too_often_is_given_up() -> None:
    """With the reason; that is no ban."""
    (source,) = accounts("a")
    limits = replace(LIMITS, source_denials_max=2)
    plan = schedule(3, [source], limits)
    for transfer in plan.start(0.0):
        plan.failed(transfer.transfer_id, FailureKind.DENIED, "403", 1.0)
    plan.start(1.0)
    assert plan.is_finished and len(plan.failed_parts) == 3
    assert source.given_up is not None and source.banned is None


def test_a_refused_range_is_no_fault() -> None:
    """The whole object is asked for at once."""
    (source,) = accounts("a")
    plan = schedule(1, [source])
    (first,) = plan.start(0.0)
    assert first.may_resume
    plan.failed(first.transfer_id, FailureKind.RANGE_REFUSED, "403", 1.0)
    (second,) = plan.start(1.0)
    assert not second.may_resume


def test_attempts_that_bring_nothing_are_limited() -> None:
    """Those that bring bytes go on much longer."""
    (source,) = accounts("a")
    plan = schedule(1, [source])
    now_s = 0.0
    for _ in range(10):
        (transfer,) = plan.start(now_s)
        plan.failed(transfer.transfer_id, FailureKind.TRANSIENT, "closed", now_s, gained=1)
        now_s += 100
    for _ in range(LIMITS.attempts_max):
        (transfer,) = plan.start(now_s)
        plan.failed(transfer.transfer_id, FailureKind.TRANSIENT, "closed", now_s)
        now_s += 100
    assert plan.start(now_s) == []
    assert plan.is_finished


@given(st.integers(0, 2**32))
def test_every_course_ends(seed: int) -> None:
    """Whatever outcomes come in whatever order: every part is done or has failed, and every connection is given back."""
    chance = Random(seed)
    limits = replace(LIMITS, attempts_max=2, resumes_max=4, source_failures_max=6)
    sources = accounts("a", "b", "c", limits=limits)
    plan = schedule(chance.randint(1, 8), sources, limits)
    running: dict[int, Transfer] = {}
    cancelled: set[int] = set()
    arrived: list[int] = []
    now_s = 0.0
    for _ in range(2000):
        for transfer in plan.start(now_s):
            running[transfer.transfer_id] = transfer
        assert all(source.active <= source.connections_max for source in sources)
        if plan.is_finished and not running:
            break
        now_s += chance.choice([0.1, 3.0, 30.0])
        if arrived and chance.random() < 0.5:
            plan.verified(arrived.pop())
        if not running:
            continue
        transfer_id = chance.choice(sorted(running))
        transfer = running.pop(transfer_id)
        if transfer_id in cancelled:
            plan.cancelled(transfer_id)
            continue
        kind = chance.choice([None, None, *FailureKind])
        if kind is None:
            plan.progressed(transfer_id, SIZE, now_s)
            cancelled |= set(plan.arrived(transfer_id, now_s))
            arrived.append(transfer.part)
        else:
            cancelled |= set(plan.failed(transfer_id, kind, str(kind), now_s, gained=chance.choice([0, 10])))
    while arrived:
        plan.verified(arrived.pop())
    for transfer_id in running:
        plan.cancelled(transfer_id)
    plan.start(now_s)
    assert plan.is_finished
    assert [source.active for source in sources] == [0, 0, 0]
