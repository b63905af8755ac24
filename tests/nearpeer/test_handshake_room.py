"""Who may shake hands: few at once, few a minute from one address; who says nothing keeps nobody out."""

from __future__ import annotations

from contextlib import ExitStack
from ipaddress import ip_address

from pipelines.nearpeer.handshake_room import HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX, PATIENCE_S, HandshakeRoom


def enter(room: HandshakeRoom, stack: ExitStack, ip: str, now_s: float, ended: list[str]) -> bool:
    """Take a place until the stack ends."""
    return stack.enter_context(room.place(ip_address(ip), now_s, lambda: ended.append(ip)))


def test_one_address_has_few_places_at_once_and_a_minute() -> None:
    """Of IPv6 a network of 64 bits is one address; places that are given back are free again."""
    for ips in (["192.0.2.1"] * 5, [f"2001:db8::{number}" for number in range(5)]):
        room, ended = HandshakeRoom(per_minute_max=7), list[str]()
        with ExitStack() as stack:
            assert [enter(room, stack, ip, 60.0, ended) for ip in ips] == [True] * HANDSHAKES_PER_ADDRESS_MAX + [False]
            assert enter(room, stack, "198.51.100.1", 60.0, ended) and enter(room, stack, "2001:db8:0:1::1", 60.0, ended)
        with ExitStack() as stack:
            assert [enter(room, stack, ips[0], 61.0, ended) for _ in range(3)] == [True, True, False]
            assert enter(room, stack, ips[0], 120.0, ended)
        assert not ended and not room._places and not room._of_address


def test_the_one_that_waited_longest_makes_room() -> None:
    """But none that has just come: a real handshake takes a round trip."""
    room, ended = HandshakeRoom(), list[str]()
    with ExitStack() as stack:
        for number in range(HANDSHAKES_MAX):
            assert enter(room, stack, f"198.51.{number}.1", 60.0 + number / 1000, ended)
        assert not enter(room, stack, "192.0.2.1", 60.9, ended)
        assert enter(room, stack, "192.0.2.1", 60.0 + PATIENCE_S, ended)
        assert ended == ["198.51.0.1"] and len(room._places) == HANDSHAKES_MAX
