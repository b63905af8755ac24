"""Whose routed messages are checked when there are more than can be: each neighbour's own share first."""

from __future__ import annotations

from pipelines.nearpeer.routing import CHECKED_IN_ANY_CASE_BURST, CHECKED_PER_S_MAX, Fate, Router
from tests.support.peer_recordings import named_key

OURS = named_key("ours")
NOW_S = 1_800_000_001.0


def test_floods_of_others_leave_a_neighbour_its_share() -> None:
    """As many as a node asks for at once, and one a second after that; what is above it waits for a quieter second."""
    router = Router(OURS)
    router.all_peers._since_s, router.all_peers._count = NOW_S, CHECKED_PER_S_MAX
    good = Router(named_key("good"))

    def fates(count: int, now_s: float) -> list[Fate]:
        messages = [good.make(OURS.peer_id, b"\x0e" + str((now_s, number)).encode(), now_s) for number in range(count)]
        return [router.receive(message, good.key.peer_id, now_s) for message in messages]

    burst = [Fate.FOR_US] * CHECKED_IN_ANY_CASE_BURST
    assert fates(CHECKED_IN_ANY_CASE_BURST + 2, NOW_S) == [*burst, Fate.DROPPED, Fate.DROPPED]
    assert fates(2, NOW_S + 1.5) == [Fate.FOR_US, Fate.FOR_US], "a quieter second"
    router.all_peers._since_s, router.all_peers._count = NOW_S + 3, CHECKED_PER_S_MAX
    assert fates(3, NOW_S + 3) == [Fate.FOR_US, Fate.FOR_US, Fate.DROPPED]
