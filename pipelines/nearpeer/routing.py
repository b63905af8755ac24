"""Routed messages: made, checked, told from copies, and passed on.

A hop that passes on a message with a bad signature is banned, so each is checked; checking is what costs, so copies and floods are dropped
before it. Source: nearcore's `chain/network/src/peer_manager/network_state/routing.rs`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from pipelines.nearpeer.node_key import NodeKey, holds
from schemas.ids import CryptoHash
from schemas.nearcore.peer.identity import PeerId
from schemas.nearcore.peer.routed_message import BODIES_WITH_ANSWER, TIME_TO_LIVE, RoutedMessage, routed_digest

REPEAT_WINDOW_S: Final = 0.05
"""Within which the same message again is a copy."""
ANSWER_WINDOW_S: Final = 120.0
"""How long the way back of a message is remembered."""
REMEMBERED_MAX: Final = 4_096
"""Most messages that are remembered, for either reason."""
CHECKED_PER_S_MAX: Final = 300
"""Most signatures of routed messages that are checked a second, of all peers together."""
CHECKED_PER_PEER_PER_S_MAX: Final = 100
CHECKED_IN_ANY_CASE_PER_S: Final = 1
"""Signatures of one neighbour's messages that are checked a second whatever the others send, beyond a burst of as many as a node asks for."""
CHECKED_IN_ANY_CASE_BURST: Final = 12


class Fate(Enum):
    """What becomes of a message that came."""

    FOR_US = "for us"
    PASS_ON = "pass on"
    DROPPED = "dropped"
    """A copy, one hop too many, or more than is checked."""
    FORGED = "forged"
    """Its signature does not hold: the neighbour that sent it should have seen that."""


@dataclass(slots=True)
class Rate:
    """Counts events and tells when there are more than so many in a second, or another interval."""

    count_max: int
    interval_s: float = 1.0
    _since_s: float = field(init=False, default=float("-inf"))
    _count: int = field(init=False, default=0)

    def takes(self, now_s: float) -> bool:
        """Count one; False, and not counted, where it is too many."""
        if now_s - self._since_s >= self.interval_s:
            self._since_s, self._count = now_s, 0
        if self._count >= self.count_max:
            return False
        self._count += 1
        return True


@dataclass(slots=True)
class _Share:
    """What is checked of one neighbour."""

    counted_at_s: float
    rate: Rate = field(default_factory=lambda: Rate(CHECKED_PER_PEER_PER_S_MAX))
    tokens: float = float(CHECKED_IN_ANY_CASE_BURST)

    def is_own(self, now_s: float) -> bool:
        """Count one that is checked in any case; False where these are used up."""
        self.tokens = min(float(CHECKED_IN_ANY_CASE_BURST), self.tokens + (now_s - self.counted_at_s) * CHECKED_IN_ANY_CASE_PER_S)
        self.counted_at_s = now_s
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(slots=True)
class Router:
    """What one key knows of messages on their way."""

    key: NodeKey
    all_peers: Rate = field(default_factory=lambda: Rate(CHECKED_PER_S_MAX))
    """Shared by all routers of a process."""
    _seen: OrderedDict[tuple[PeerId, bytes], float] = field(init=False, default_factory=OrderedDict)
    _ways_back: OrderedDict[bytes, tuple[PeerId, float]] = field(init=False, default_factory=OrderedDict)
    _rates: dict[PeerId, _Share] = field(init=False, default_factory=dict)

    def make(self, target: PeerId | CryptoHash, body: bytes, now_s: float) -> RoutedMessage:
        """Return a message of our own, signed."""
        seconds, fraction = divmod(now_s, 1)
        signature = self.key.sign(routed_digest(target, self.key.peer_id, body))
        return RoutedMessage(target, self.key.peer_id, signature, TIME_TO_LIVE, body, (int(seconds), int(fraction * 1e9)))

    def receive(self, message: RoutedMessage, neighbour: PeerId, now_s: float) -> Fate:
        """Say what becomes of a message, and remember where its answer goes."""
        copy = (message.author, message.signature.data)
        if now_s - self._seen.get(copy, float("-inf")) < REPEAT_WINDOW_S:
            return Fate.DROPPED
        share = self._rates.get(neighbour)
        if share is None:
            share = self._rates[neighbour] = _Share(now_s)
        if not (share.rate.takes(now_s) and (share.is_own(now_s) or self.all_peers.takes(now_s))):
            return Fate.DROPPED
        self._seen[copy] = now_s
        _forget_oldest(self._seen)
        digest = message.digest()
        if not holds(message.signature, message.author, digest):
            return Fate.FORGED
        if message.target == self.key.peer_id:
            return Fate.FOR_US
        if message.time_to_live == 0:
            return Fate.DROPPED
        if message.body[0] in BODIES_WITH_ANSWER:
            self._ways_back[digest] = neighbour, now_s
            _forget_oldest(self._ways_back)
        return Fate.PASS_ON

    def way_back(self, digest: CryptoHash, now_s: float) -> PeerId | None:
        """Return the neighbour that a message with a hash came from; None where none did, or long ago."""
        neighbour, came_at_s = self._ways_back.get(digest, (None, 0.0))
        return neighbour if now_s - came_at_s < ANSWER_WINDOW_S else None

    def forget(self, neighbour: PeerId) -> None:
        """Forget what counted a neighbour that is gone."""
        self._rates.pop(neighbour, None)


def _forget_oldest(remembered: OrderedDict[tuple[PeerId, bytes], float] | OrderedDict[bytes, tuple[PeerId, float]]) -> None:
    if len(remembered) > REMEMBERED_MAX:
        remembered.popitem(last=False)
