"""Whom a host answers, and whom it dials: limits of a key, of an address, and of all; nobody is dialled in a private network."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from pipelines.nearpeer.request_policy import ANSWER_S, Refused, RequestLimits, RequestPolicy, Wanted
from schemas.nearcore.peer.identity import PeerAddress
from tests.nearpeer.test_state_host import EPOCH
from tests.support.peer_recordings import named_key


def asked(policy: RequestPolicy, name: str, ip: str | None, now_s: float = 1.0) -> int | Refused:
    """Ask for a part of ten bytes."""
    wanted = Wanted(named_key(name).peer_id, 3, 0, None, None if ip is None else ip_address(ip))
    return policy.decide(wanted, EPOCH, lambda *_: 10, now_s)


def dialled(policy: RequestPolicy, name: str, address: str, now_s: float = 1.0, port: int = 24567) -> str:
    """Dial, and be done; return why not."""
    peer = named_key(name).peer_id
    refused = policy.may_dial(peer, PeerAddress.of(address, port), known=True, now_s=now_s)
    policy.dial_ended(peer)
    return "" if refused is None else refused.reason


@pytest.mark.parametrize("ips", [["198.51.100.7"] * 3, ["2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:3::1"]])
def test_keys_of_one_address_share_what_one_asker_may_take(ips: list[str]) -> None:
    """At once, and a second; keys elsewhere, and those that have no connection here, do not."""
    policy = RequestPolicy(RequestLimits(under_way_max=2, per_s_max=1))
    assert [asked(policy, f"key {number}", ip) for number, ip in enumerate(ips)] == [10, 10, Refused("too many requests", busy=True)]
    assert asked(policy, "key 3", ips[0], 2.0) == Refused("too many answers under way", busy=True)
    policy.ended(Wanted(named_key("key 0").peer_id, 3, 0, None, ip_address(ips[0])), EPOCH.sync_hash, 10)
    assert asked(policy, "key 4", ips[1], 3.0) == 10
    assert (asked(policy, "elsewhere", "198.51.100.8"), asked(policy, "far away", None)) == (10, 10)
    assert policy.askers == 7


def test_one_address_is_dialled_no_oftener_than_for_one_asker() -> None:
    """Whoever asks for it: it may be the address of none of them."""
    policy = RequestPolicy(RequestLimits(dials_per_minute_max=100, dials_per_asker_per_minute_max=3))
    assert [dialled(policy, f"key {number}", "8.8.8.8", port=2_000 + number) for number in range(5)] == [
        "",
        "",
        "",
        *["too many dials"] * 2,
    ]
    assert dialled(policy, "key 5", "8.8.4.4") == "" and dialled(policy, "key 6", "8.8.8.8", 62.0) == ""


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::1",
        "fe80::1",
    ],
)
def test_no_address_is_dialled_that_is_not_public(address: str) -> None:
    """Nor one that stands for such a one: mapped, of a NAT64 gateway, of 6to4; nor a port of a system's service."""
    policy = RequestPolicy(RequestLimits())
    assert dialled(policy, "asker", address) == "address not public"
    assert dialled(policy, "asker", "8.8.8.8", port=22) == "address not public"
    assert dialled(RequestPolicy(replace(RequestLimits(), private_addresses=True)), "asker", address) == ""


SIZE = 20_000_000


def decide(policy: RequestPolicy, part_id: int, name: str = "asker", now_s: float = 1.0) -> int | Refused:
    """Ask for a large part."""
    return policy.decide(Wanted(named_key(name).peer_id, 3, part_id, None), EPOCH, lambda *_: SIZE, now_s)


def test_a_part_that_is_asked_for_again_is_sent_once() -> None:
    """A node that has waited its ten seconds asks again, and takes the answer to its first request; the next one is of its own."""
    policy = RequestPolicy(RequestLimits())
    assert decide(policy, 0) == SIZE
    assert decide(policy, 0, now_s=12.0) == Refused("under way already", is_coming=True)
    assert decide(policy, 0, "other", 12.0) == SIZE and decide(policy, 1, now_s=12.0) == SIZE
    policy.ended(Wanted(named_key("asker").peer_id, 3, 0, None), EPOCH.sync_hash, SIZE)
    assert decide(policy, 0, now_s=13.0) == SIZE


def test_what_can_not_arrive_in_time_is_refused_as_busy() -> None:
    """By the rate of all answers together; one answer is under way in any case, however slowly it goes."""
    fast, slow = (RequestPolicy(RequestLimits(), rate) for rate in (int(3 * SIZE / ANSWER_S), 1_000_000))
    assert [decide(fast, part) for part in range(4)] == [SIZE, SIZE, SIZE, Refused("not in time", busy=True)]
    assert [decide(slow, 0), decide(slow, 1), decide(slow, 0, "other")] == [SIZE, *[Refused("not in time", busy=True)] * 2]
    slow.ended(Wanted(named_key("asker").peer_id, 3, 0, None), EPOCH.sync_hash, SIZE)
    assert decide(slow, 1) == SIZE
