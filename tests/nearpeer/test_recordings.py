"""Recorded sessions between real nodes and peers: every frame means what we take it for, and ours are the same bytes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from pipelines.nearpeer.announcing import host_holds
from pipelines.nearpeer.edge_keeper import EdgeKeeper
from pipelines.nearpeer.handshake import Connected, DialerHandshake, ListenerHandshake, OwnSide, TryAgain
from pipelines.nearpeer.node_key import edge_holds, holds
from pipelines.nearpeer.routing import Fate, Router
from schemas.errors import PeerProtocolError
from schemas.nearcore.peer.edge import edge_digest
from schemas.nearcore.peer.peer_message import (
    FailureReason,
    Handshake,
    HandshakeFailure,
    LastEdge,
    PeerMessage,
    Routed,
    RoutingTableUpdate,
    SyncSnapshotHosts,
    Unread,
    UpdateNonceRequest,
    read_message,
    write_message,
)
from schemas.nearcore.peer.routed_message import read_routed_body
from tests.support.peer_recordings import RecordedConnection, RecordedFrame, named_key, recorded_connections, recorded_keys

BORSH_HANDSHAKE = bytes.fromhex("004a000000")
"""Old nodes dial with a second handshake, which is no protobuf."""


def messages(connection: RecordedConnection) -> list[tuple[RecordedFrame, PeerMessage]]:
    """Return the frames of a connection that are messages."""
    return [(frame, read_message(frame.data)) for frame in connection.frames if not frame.data.startswith(BORSH_HANDSHAKE)]


def encoded(message: PeerMessage) -> bytes:
    """Return a message's bytes in one piece."""
    return b"".join(map(bytes, write_message(message)))


def test_every_frame_decodes_and_encodes_to_its_bytes() -> None:
    """All kinds that are read, and those that are not, keep their bytes; the other sort of handshake is no message."""
    kinds: Counter[str] = Counter()
    for connection in recorded_connections():
        for frame, message in messages(connection):
            assert encoded(message) == frame.data, connection.name
            kinds[type(message).__name__] += 1
            if isinstance(message, Routed) and (body := read_routed_body(message.message.body)) is not None:
                assert body.to_bytes() == message.message.body
                kinds[type(body).__name__] += 1
        for frame in connection.frames:
            if frame.data.startswith(BORSH_HANDSHAKE):
                with pytest.raises(PeerProtocolError):
                    read_message(frame.data)
    assert kinds.keys() >= {"Handshake", "HandshakeFailure", "LastEdge", "StateResponse", "StateRequest", "StateRequestAck", "Unread"}
    assert Unread.__name__ in kinds and kinds["Routed"] > 30


def test_every_signature_holds() -> None:
    """Of handshakes, edges and their removal, announcements and routed messages; none does with another key or a changed byte."""
    checked: Counter[str] = Counter()
    for connection in recorded_connections():
        for _, message in messages(connection):
            match message:
                case Handshake():
                    digest = edge_digest(message.sender, message.target, message.edge.nonce)
                    assert holds(message.edge.signature, message.sender, digest)
                    assert not holds(message.edge.signature, named_key("another").peer_id, digest)
                case LastEdge():
                    assert edge_holds(message.edge) and message.edge.removal is not None
                    assert not edge_holds(replace(message.edge, removal=None))
                case RoutingTableUpdate():
                    assert all(edge_holds(edge) and not edge_holds(replace(edge, nonce=edge.nonce + 2)) for edge in message.edges)
                case SyncSnapshotHosts():
                    assert all(map(host_holds, message.hosts))
                    assert not any(host_holds(replace(host, epoch_height=host.epoch_height + 1)) for host in message.hosts)
                case Routed():
                    assert holds(message.message.signature, message.message.author, message.message.digest())
                    router = Router(named_key("hop"))
                    assert router.receive(message.message, named_key("neighbour").peer_id, 0.0) is Fate.PASS_ON
                    forged = replace(message.message, body=message.message.body + b"\0")
                    assert router.receive(forged, named_key("neighbour").peer_id, 1.0) is Fate.FORGED
                case _:
                    continue
            checked[type(message).__name__] += 1
    assert checked.keys() == {"Handshake", "LastEdge", "RoutingTableUpdate", "SyncSnapshotHosts", "Routed"}


def own_side(said: Handshake) -> OwnSide:
    """Return the side that says a recorded handshake."""
    return OwnSide(recorded_keys()[said.sender], said.genesis, said.listen_port, said.protocol_version, said.oldest_supported_version)


def as_said(ours: Handshake, said: Handshake) -> Handshake:
    """Give a handshake what only a node with a chain, or a prototype, says of itself; it decides about nothing."""
    return replace(
        ours,
        oldest_supported_version=said.oldest_supported_version,
        height=said.height,
        tracked_shards=said.tracked_shards,
        archival=said.archival,
        owned_account=said.owned_account,
    )


def test_our_machines_say_what_both_sides_of_every_handshake_said() -> None:
    """With the recorded keys and times: the dialer's first word, the listener's answer to it, and what both take for connected."""
    replayed = 0
    for connection in recorded_connections():
        heard = [(frame, message) for frame, message in messages(connection) if isinstance(message, Handshake)]
        if len(heard) != 2 or not heard[0][0].to_listener or heard[1][0].to_listener:
            continue
        (frame, first), (_, answer) = heard
        if not {first.sender, answer.sender} <= recorded_keys().keys():
            continue
        dialer = DialerHandshake(own_side(first), first.tier, first.target, first.edge.nonce)
        dialer.own = replace(dialer.own, newest_version=first.protocol_version)
        assert encoded(as_said(dialer.first(), first)) == frame.data, connection.name
        listener = ListenerHandshake(own_side(answer), {}, frozenset([first.sender]))
        if 0 in {answer.listen_port, first.listen_port}:
            with pytest.raises(PeerProtocolError, match="port 0"):
                dialer.receive(answer, first.edge.nonce)
            continue
        taken = listener.receive(first, first.edge.nonce)
        assert isinstance(taken, Connected) and taken.answer is not None
        assert encoded(as_said(taken.answer, answer)) == encoded(answer), connection.name
        connected = dialer.receive(answer, first.edge.nonce)
        assert isinstance(connected, Connected)
        assert connected.edge == taken.edge and edge_holds(connected.edge)
        replayed += 1
    assert replayed >= 10


def test_the_dialer_comes_through_every_failure_that_a_real_node_answers_with() -> None:
    """Version, chain and target, each on one connection; and an edge that is newer than the nonce."""
    again, refused = 0, Counter[str]()
    for connection in recorded_connections():
        said: Handshake | None = None
        for _, message in messages(connection):
            if isinstance(message, Handshake):
                said = message
            if not isinstance(message, HandshakeFailure | LastEdge) or said is None:
                continue
            dialer = DialerHandshake(own_side(said), said.tier, said.target, said.edge.nonce)
            dialer.own = replace(dialer.own, newest_version=said.protocol_version)
            try:
                outcome = dialer.receive(message, said.edge.nonce)
            except PeerProtocolError as error:
                refused[error.problem.split()[0]] += 1
                continue
            assert isinstance(outcome, TryAgain) and isinstance(outcome.message, Handshake)
            if isinstance(message, HandshakeFailure) and message.reason is FailureReason.GENESIS:
                assert outcome.message.genesis == message.genesis, "one that was not known is learned"
            elif isinstance(message, HandshakeFailure):
                assert message.oldest_supported_version <= outcome.message.protocol_version <= message.version
            else:
                assert outcome.message.edge.nonce > message.edge.nonce and outcome.message.edge.nonce % 2 == 1
            again += 1
    assert again >= 2
    assert refused.keys() == {"another"}, "the target"


def test_edges_are_renewed_as_they_were() -> None:
    """Every ten minutes, with either side asking: the answer is the recorded one, and the one who asked takes it."""
    renewed = 0
    for connection in recorded_connections():
        heard = messages(connection)
        hands = [message for _, message in heard if isinstance(message, Handshake)]
        if len(hands) < 2 or not any(isinstance(message, UpdateNonceRequest) for _, message in heard):
            continue
        dialer_key, listener_key = (recorded_keys()[one.sender] for one in hands[:2])
        edge = dialer_key.edge_with(hands[1].sender, hands[0].edge.nonce, hands[1].edge.signature)
        asks = EdgeKeeper(dialer_key, listener_key.peer_id, edge, dialled=True, asked_at_s=edge.nonce)
        answers = EdgeKeeper(listener_key, dialer_key.peer_id, edge, dialled=False, asked_at_s=edge.nonce)
        assert answers.due(edge.nonce + 3600) is None
        for position, (frame, message) in enumerate(heard):
            if not isinstance(message, UpdateNonceRequest):
                continue
            now_s = int(frame.at_s)
            assert asks.due(now_s) is not None
            told = answers.answer(message, now_s)
            recorded = next(
                update for _, update in heard[position:] if isinstance(update, RoutingTableUpdate) and told.edges[0] in update.edges
            )
            asks.learn(recorded)
            assert asks.edge == answers.edge and asks.edge.nonce == message.edge.nonce
            renewed += 1
    assert renewed >= 4
