"""Whatever a peer sends: our own errors and no others, and no memory that grows with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from pipelines.nearpeer.announcing import HostedEpoch, host_holds
from pipelines.nearpeer.answer_listener import AnswererHandshake, AnswerListener
from pipelines.nearpeer.edge_keeper import EdgeKeeper
from pipelines.nearpeer.handshake import Connected, DialerHandshake, ListenerHandshake, OwnSide
from pipelines.nearpeer.node_key import edge_holds
from pipelines.nearpeer.peer_graph import EDGES_KEPT_MAX, PeerGraph
from pipelines.nearpeer.request_policy import RequestLimits, RequestPolicy, Wanted
from pipelines.nearpeer.routing import REMEMBERED_MAX, Fate, Router
from pipelines.nearpeer.state_requester import StateRequester
from schemas.errors import StatecastError
from schemas.nearcore.peer.edge import PartialEdge
from schemas.nearcore.peer.identity import PeerId
from schemas.nearcore.peer.peer_message import (
    DirectStateRequest,
    GenesisId,
    Handshake,
    LastEdge,
    PeerMessage,
    Routed,
    RoutingTableUpdate,
    SyncSnapshotHosts,
    Tier,
    UpdateNonceRequest,
    read_message,
    write_message,
)
from schemas.nearcore.peer.routed_message import StateRequest, read_ping, read_routed_body
from schemas.nearcore.peer.state_response import StateResponse
from tests.support.peer_mutations import Mutator
from tests.support.peer_recordings import named_hash, named_key, recorded_connections

OURS, THEIRS = named_key("ours"), named_key("theirs")
CHAIN = GenesisId("localnet", named_hash("genesis"))
NOW_S = 1_800_000_001
EPOCH = HostedEpoch(7, named_hash("two before"), named_hash("sync"), (0, 3))
LARGE_BYTES = 20_000
"""Longer frames differ in their parts alone, and take their time."""


class Peer:
    """Every machine of a peer, told what comes."""

    def __init__(self) -> None:
        self.own = OwnSide(OURS, CHAIN, 24567)
        self.router = Router(OURS)
        self.policy = RequestPolicy(RequestLimits())
        self.requester = StateRequester("a host")
        edge = OURS.edge_with(THEIRS.peer_id, NOW_S, THEIRS.sign_edge(OURS.peer_id, NOW_S))
        self.keeper = EdgeKeeper(OURS, THEIRS.peer_id, edge, dialled=False, asked_at_s=NOW_S)
        self.edges = {THEIRS.peer_id: replace(edge, nonce=NOW_S - 2)}
        self.graph = PeerGraph()
        self.answers = AnswerListener(lambda _host, _response: None)
        self.answers.expect(self.own, THEIRS.peer_id).ask(NOW_S)
        self.heard: Counter[str] = Counter()

    def hear(self, frame: bytes, now_s: float) -> None:
        """Take a frame as a peer does, at every place where one is taken.

        Raises:
            StatecastError: it ends the connection, or is ignored.
        """
        message = read_message(frame)
        self.heard[type(message).__name__] += 1
        # What was read is written again, and read as the same.
        assert read_message(b"".join(map(bytes, write_message(message)))) == message
        for taken in (self._shake_as_listener, self._shake_for_answers, self._shake_as_dialer, self._talk):
            try:
                taken(message, now_s)
            except StatecastError as error:
                self.heard[type(error).__name__] += 1

    def _shake_as_listener(self, message: PeerMessage, now_s: float) -> None:
        handshake = ListenerHandshake(self.own, self.edges, frozenset([THEIRS.peer_id]))
        handshake.receive(message, int(now_s))
        if isinstance(message, Handshake):
            # As far as one comes who knows our name and chain, and can sign.
            for nonce in (NOW_S + 2, message.edge.nonce):
                edge = PartialEdge(nonce, THEIRS.sign_edge(OURS.peer_id, nonce))
                known = replace(message, sender=THEIRS.peer_id, target=OURS.peer_id, genesis=CHAIN, edge=edge)
                self.heard["connected"] += isinstance(handshake.receive(known, int(now_s)), Connected)

    def _shake_for_answers(self, message: PeerMessage, now_s: float) -> None:
        handshake = AnswererHandshake(self.answers)
        handshake.receive(message, int(now_s))
        if isinstance(message, Handshake):
            edge = PartialEdge(NOW_S, THEIRS.sign_edge(OURS.peer_id, NOW_S))
            known = replace(message, tier=Tier.T3, sender=THEIRS.peer_id, target=OURS.peer_id, genesis=CHAIN, edge=edge)
            self.heard["connected for answers"] += isinstance(handshake.receive(known, int(now_s)), Connected)

    def _shake_as_dialer(self, message: PeerMessage, now_s: float) -> None:
        for tier in (Tier.T2, Tier.T3):
            handshake = DialerHandshake(self.own, tier, THEIRS.peer_id, NOW_S)
            handshake.receive(message, int(now_s))

    def _talk(self, message: PeerMessage, now_s: float) -> None:
        match message:
            case Routed():
                self._route(message, now_s)
            case DirectStateRequest():
                self._ask(Wanted(THEIRS.peer_id, message.shard_id, message.part_id, None), now_s)
            case StateResponse():
                self.requester.ask(message.shard_id, message.sync_hash, message.part_id, now_s)
                self.requester.answer(message)
                self.requester.answer(message)
            case UpdateNonceRequest():
                self.keeper.answer(message, int(now_s))
            case RoutingTableUpdate():
                self.keeper.learn(message)
                self.graph.learn(message.edges, now_s)
                for edge in message.edges[:2]:
                    self.graph.knows(edge.a, now_s)
                    self.graph.next_hop(edge.b, [THEIRS.peer_id], now_s)
            case LastEdge():
                edge_holds(message.edge)
            case SyncSnapshotHosts():
                for host in message.hosts[:4]:
                    host_holds(host)
            case _:
                pass

    def _route(self, sent: Routed, now_s: float) -> None:
        message = sent.message
        fate = self.router.receive(message, THEIRS.peer_id, now_s)
        self.heard[fate.value] += 1
        if fate is Fate.PASS_ON:
            message.one_hop_on().to_bytes()
        # Bodies are looked at whoever signed them.
        signed = Router(THEIRS).make(OURS.peer_id, message.body, now_s)
        assert self.router.receive(signed, THEIRS.peer_id, now_s) in (Fate.FOR_US, Fate.DROPPED)
        read_ping(message.body)
        if isinstance(body := read_routed_body(message.body), StateRequest):
            self._ask(Wanted(message.author, body.shard_id, body.part_id, body.reply_to), now_s)
            self.policy.may_dial(message.author, body.reply_to, known=True, now_s=now_s)

    def _ask(self, wanted: Wanted, now_s: float) -> None:
        size = self.policy.decide(wanted, EPOCH, lambda _, asked: 1000 if asked.part_id in (None, 0, 1) else None, now_s)
        if isinstance(size, int):
            self.policy.ended(wanted, EPOCH.sync_hash, size)

    def grown(self) -> int:
        """Return how much is remembered."""
        assert max(len(self.router._seen), len(self.router._ways_back)) <= REMEMBERED_MAX
        return max(len(self.requester._open), len(self.policy._dialled_at_s), len(self.graph))


def frames() -> list[bytes]:
    """Return the recorded frames, each kind as often as its neighbours so that rare ones are changed too."""
    by_kind: dict[int, list[bytes]] = {}
    for connection in recorded_connections():
        if connection.name.startswith("p2p/"):
            for frame in connection.frames:
                if len(frame.data) <= LARGE_BYTES:
                    by_kind.setdefault(frame.data[0] << 8 | frame.data[1] if frame.data[0] & 0x80 else frame.data[0], []).append(frame.data)
    return [kind[number % len(kind)] for kind in by_kind.values() for number in range(40)]


def feed(seed: int, count: int) -> Peer:
    """Feed changed frames to one peer."""
    peer, mutator = Peer(), Mutator(Random(seed), frames())
    for number in range(count):
        data = mutator.frame()
        try:
            peer.hear(data, NOW_S + number / 200)
        except StatecastError as error:
            peer.heard[type(error).__name__] += 1
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} from {data.hex()}") from error
    return peer


def test_changed_frames_end_in_our_own_errors() -> None:
    """Of every kind, read and signed as well as refused."""
    peer = feed(1, 2_000)
    kinds = {
        "Handshake",
        "HandshakeFailure",
        "LastEdge",
        "UpdateNonceRequest",
        "Routed",
        "StateResponse",
        "SyncSnapshotHosts",
        "PeersResponse",
    }
    assert kinds | {"PeerProtocolError", "Unread", "connected", "connected for answers", "forged"} <= set(peer.heard), peer.heard
    assert peer.grown() <= EDGES_KEPT_MAX


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_very_many_changed_frames_end_in_our_own_errors(seed: int) -> None:
    """A million in all."""
    assert feed(seed, 100_000).grown() <= EDGES_KEPT_MAX


def test_empty_and_endless_frames() -> None:
    """The shortest ones all; and deep or long ones in time that grows with their bytes alone."""
    peer = Peer()
    shortest = [b"", *(bytes([a]) for a in range(256)), *(bytes([a, b]) for a in range(0, 256, 2) for b in (0, 1, 127, 128, 255))]
    nested = b""
    for _ in range(2_000):
        nested = b"\x8a\x01" + len(nested).to_bytes(4, "little") + nested
    for data in (*shortest, nested, b"\x8a\x01\x02\x0a\x00", b"\x08" * 100_000, b"\x08\x01" * 50_000, b"\xff" * 100_000):
        try:
            peer.hear(data, NOW_S)
        except StatecastError:
            peer.heard["refused"] += 1
    assert peer.heard["refused"] > 0


def test_a_routed_message_names_its_author_whoever_they_are() -> None:
    """A key of another type, whose signature no one here can check, is forged and no error."""
    other = PeerId(1, bytes(64))
    message = replace(Router(THEIRS).make(OURS.peer_id, b"\x00", NOW_S), author=other)
    assert Router(OURS).receive(message, THEIRS.peer_id, NOW_S) is Fate.FORGED
