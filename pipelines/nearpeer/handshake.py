"""How two peers come to a connection: a machine for each side, which is told messages and the time and says what to send.

Rules of nearcore's `chain/network/src/peer/peer_actor.rs` (process_handshake): the dialer speaks first; the listener answers with a
handshake of the same tier and nonce, signed by itself, or says why not on a connection that stays open for another try.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from pipelines.nearpeer.node_key import NodeKey, edge_holds, holds
from schemas.errors import PeerProtocolError
from schemas.ids import ZERO_HASH
from schemas.nearcore.peer.edge import PartialEdge, PeerEdge, edge_digest
from schemas.nearcore.peer.identity import PeerId, PeerInfo
from schemas.nearcore.peer.peer_message import (
    Disconnect,
    FailureReason,
    GenesisId,
    Handshake,
    HandshakeFailure,
    LastEdge,
    PeerMessage,
    Tier,
)

NONCE_WINDOW_S: Final = 20 * 60
"""How far a nonce, which is a time, may be from now."""

TRIES_MAX: Final = 6
"""Most handshakes of one connection."""

OLDEST_VERSION: Final = 71
"""Oldest protocol version that is answered: what came before has other state responses."""

NEWEST_VERSION: Final = 87
"""The version that a dialer proposes first. A listener takes every newer one: the number decides about nothing that is used here."""


UNUSED_PORT: Final = 24567
"""What a peer says that listens on no port: nodes refuse those that name none."""


@dataclass(frozen=True, slots=True)
class OwnSide:
    """What this peer says of itself."""

    key: NodeKey
    genesis: GenesisId
    """With the hash zero, and with no name, where it is not known: a dialer learns it then from the peer that it dials."""
    listen_port: int
    """Never 0: nearcore takes no peer that can't be dialled. Nothing need listen there."""
    newest_version: int = NEWEST_VERSION
    oldest_version: int = OLDEST_VERSION

    def handshake(self, tier: Tier, version: int, target: PeerId, nonce: int) -> Handshake:
        """Return the handshake that goes to a peer."""
        edge = PartialEdge(nonce, self.key.sign_edge(target, nonce))
        oldest = min(self.oldest_version, version)
        return Handshake(tier, version, oldest, self.key.peer_id, target, self.listen_port, self.genesis, edge)


@dataclass(frozen=True, slots=True)
class Connected:
    """Both sides have signed."""

    tier: Tier
    peer_id: PeerId
    listen_port: int
    """Which the other side says it listens on."""
    version: int
    edge: PeerEdge
    answer: Handshake | None = None
    """To be sent: a listener's."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """To be sent; the connection goes on."""

    message: Handshake | HandshakeFailure | LastEdge


Outcome = Connected | TryAgain | None


class HandshakeMachine(Protocol):
    """One side of a handshake."""

    def receive(self, message: PeerMessage, now_s: int) -> Outcome:
        """Take what the other side says; None for what does not belong here and is ignored."""
        ...


@dataclass(slots=True)
class DialerHandshake:
    """The side that dials; it knows which peer."""

    own: OwnSide
    tier: Tier
    target: PeerId
    nonce: int
    """Odd; seconds since 1970."""
    _version: int = field(init=False)
    _tries: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        self._version = self.own.newest_version

    def first(self) -> Handshake:
        """Return what is sent first."""
        return self.own.handshake(self.tier, self._version, self.target, self.nonce)

    def receive(self, message: PeerMessage, now_s: int) -> Outcome:
        """Take what the listener says; None for what does not belong here and is ignored.

        Raises:
            PeerProtocolError: it refuses, or answers with what was not asked for; says which.
        """
        match message:
            case Handshake():
                return self._accepted(message)
            case HandshakeFailure():
                return self._again_after(message)
            case LastEdge():
                return self._again_above(message.edge, now_s)
            case Disconnect():
                raise PeerProtocolError(problem="the peer refuses the connection without saying why", where=str(self.target))
            case _:
                return None

    def _accepted(self, answer: Handshake) -> Connected:
        where = str(self.target)
        if answer.sender != self.target or answer.target != self.own.key.peer_id:
            raise PeerProtocolError(problem=f"{answer.sender} answers", where=where)
        asked = (self.tier, self._version, self.own.genesis, self.nonce)
        if (answer.tier, answer.protocol_version, answer.genesis, answer.edge.nonce) != asked:
            raise PeerProtocolError(problem="the answer has another tier, version, chain or nonce than was asked for", where=where)
        if answer.listen_port == 0:
            raise PeerProtocolError(problem="the peer listens on port 0", where=where)
        return _connected(self.own, answer)

    def _again_after(self, failure: HandshakeFailure) -> TryAgain:
        where = str(self.target)
        match failure.reason:
            case FailureReason.PROTOCOL_VERSION:
                version = max(failure.oldest_supported_version, min(self._version, failure.version))
                if version == self._version:
                    raise PeerProtocolError(problem=f"protocol version {version} is refused by the version itself", where=where)
                self._version = version
            case FailureReason.GENESIS:
                if self._learns(failure.genesis):
                    return self._try_again()
                theirs = "another chain" if failure.genesis is None else f"chain {failure.genesis.chain_id}, genesis {failure.genesis.hash}"
                raise PeerProtocolError(
                    problem=f"the peer is of {theirs}, and not of {self.own.genesis.chain_id}, genesis {self.own.genesis.hash}", where=where
                )
            case FailureReason.TARGET:
                raise PeerProtocolError(problem=f"another peer lives at the address: {failure.peer.peer_id}", where=where)
        return self._try_again()

    def _learns(self, theirs: GenesisId | None) -> bool:
        """Take the node's word for the genesis of a chain of which no more than the name is known: nothing rests on it."""
        own = self.own.genesis
        if theirs is None or own.hash != ZERO_HASH or own.chain_id not in {"", theirs.chain_id}:
            return False
        self.own = replace(self.own, genesis=theirs)
        return True

    def _again_above(self, last: PeerEdge, now_s: int) -> TryAgain:
        if {last.a, last.b} != {self.own.key.peer_id, self.target} or not edge_holds(last):
            raise PeerProtocolError(problem="the last edge is not one of ours", where=str(self.target))
        self.nonce = max(odd_above(last.nonce), now_s | 1)
        if abs(self.nonce - now_s) >= NONCE_WINDOW_S:
            raise PeerProtocolError(problem="the last edge is of another time: one of the clocks is wrong", where=str(self.target))
        return self._try_again()

    def _try_again(self) -> TryAgain:
        self._tries += 1
        if self._tries > TRIES_MAX:
            raise PeerProtocolError(problem=f"no agreement after {TRIES_MAX} handshakes", where=str(self.target))
        return TryAgain(self.first())


@dataclass(slots=True)
class ListenerHandshake:
    """The side that is dialled."""

    own: OwnSide
    last_edges: dict[PeerId, PeerEdge]
    """The newest edge with each peer of tier 2."""
    t3_expected: frozenset[PeerId] | None = None
    """The peers that may open a connection of tier 3; None for none at all."""
    _tries: int = field(init=False, default=0)

    def receive(self, message: PeerMessage, now_s: int) -> Outcome:
        """Take what the dialer says; None for what does not belong here and is ignored.

        Raises:
            PeerProtocolError: nothing more is to be said on this connection.
        """
        if not isinstance(message, Handshake):
            return None
        self._tries += 1
        where = str(message.sender)
        if message.tier is Tier.T1 or self._tries > TRIES_MAX:
            raise PeerProtocolError(
                problem="a validator's tier is asked for" if message.tier is Tier.T1 else "too many handshakes", where=where
            )
        if (refusal := self._refusal(message)) is not None:
            return TryAgain(refusal)
        nonce = message.edge.nonce
        if nonce % 2 == 0 or abs(nonce - now_s) >= NONCE_WINDOW_S:
            raise PeerProtocolError(problem=f"the nonce {nonce} is even or not of this time", where=where)
        if message.sender == self.own.key.peer_id:
            raise PeerProtocolError(problem="the peer has our own key", where=where)
        if message.listen_port == 0:
            raise PeerProtocolError(problem="the peer listens on port 0", where=where)
        if message.tier is Tier.T3 and (self.t3_expected is None or message.sender not in self.t3_expected):
            raise PeerProtocolError(problem="tier 3 from a peer that was not asked", where=where)
        last = self.last_edges.get(message.sender)
        if message.tier is Tier.T2 and last is not None and last.nonce >= nonce:
            return TryAgain(LastEdge(last))
        connected = _connected(self.own, message)
        # Signed for those alone that have signed.
        return replace(connected, answer=self.own.handshake(message.tier, message.protocol_version, message.sender, nonce))

    def _refusal(self, message: Handshake) -> HandshakeFailure | None:
        me = PeerInfo(self.own.key.peer_id)
        newest, oldest = max(self.own.newest_version, message.protocol_version), self.own.oldest_version
        if message.protocol_version < oldest:
            return HandshakeFailure(FailureReason.PROTOCOL_VERSION, me, None, newest, oldest)
        if message.genesis != self.own.genesis:
            return HandshakeFailure(FailureReason.GENESIS, me, self.own.genesis)
        if message.target != self.own.key.peer_id:
            return HandshakeFailure(FailureReason.TARGET, me)
        return None


def odd_above(nonce: int) -> int:
    """Return the next odd number above."""
    return nonce + 2 if nonce % 2 else nonce + 1


def _connected(own: OwnSide, theirs: Handshake) -> Connected:
    nonce, signature = theirs.edge.nonce, theirs.edge.signature
    if not holds(signature, theirs.sender, edge_digest(own.key.peer_id, theirs.sender, nonce)):
        raise PeerProtocolError(problem="the edge's signature does not hold", where=str(theirs.sender))
    edge = own.key.edge_with(theirs.sender, nonce, signature)
    return Connected(theirs.tier, theirs.sender, theirs.listen_port, theirs.protocol_version, edge)
