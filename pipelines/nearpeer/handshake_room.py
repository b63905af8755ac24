"""How many connections may shake hands: a peer that has not said which it is takes little, whatever else waits.

A real handshake takes a round trip, so where all places are taken the one that has waited longest makes room: connections that say nothing
keep nobody out. Checking one handshake costs three signatures, so an address has a number of them a minute.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

HANDSHAKES_MAX: Final = 64
"""Connections that have not shaken hands, at once."""
HANDSHAKES_PER_ADDRESS_MAX: Final = 4
HANDSHAKES_PER_ADDRESS_PER_MINUTE_MAX: Final = 60
PATIENCE_S: Final = 1.0
"""How long one keeps its place in any case."""


@dataclass(slots=True)
class HandshakeRoom:
    """Counts connections that shake hands; of IPv6, a network of 64 bits counts as one address."""

    per_minute_max: int = HANDSHAKES_PER_ADDRESS_PER_MINUTE_MAX
    _of_address: Counter[bytes] = field(init=False, default_factory=Counter)
    _this_minute: Counter[bytes] = field(init=False, default_factory=Counter)
    _minute: int = field(init=False, default=0)
    _places: OrderedDict[int, tuple[float, Callable[[], None]]] = field(init=False, default_factory=OrderedDict)
    _taken: int = field(init=False, default=0)

    @contextmanager
    def place(self, ip: IPv4Address | IPv6Address, now_s: float, make_room: Callable[[], None]) -> Iterator[bool]:
        """Take a place for as long as the handshake lasts; False where there is none.

        Args:
            make_room: ends the handshake, since another one needs the place.
        """
        address = ip.packed[:8]
        if not self._may(address, now_s):
            yield False
            return
        self._taken += 1
        number = self._taken
        self._places[number] = now_s, make_room
        self._of_address[address] += 1
        try:
            yield True
        finally:
            self._places.pop(number, None)
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    def _may(self, address: bytes, now_s: float) -> bool:
        if int(now_s // 60) != self._minute:
            self._minute = int(now_s // 60)
            self._this_minute.clear()
        self._this_minute[address] += 1
        if self._this_minute[address] > self.per_minute_max or self._of_address[address] >= HANDSHAKES_PER_ADDRESS_MAX:
            return False
        if len(self._places) >= HANDSHAKES_MAX:
            number, (since_s, make_room) = next(iter(self._places.items()))
            if now_s - since_s < PATIENCE_S:
                return False
            del self._places[number]
            make_room()
        return True
