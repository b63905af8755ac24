"""Decoders of what peers of nearcore's network send."""

from __future__ import annotations

from schemas.nearcore.peer.edge import PartialEdge, PeerEdge
from schemas.nearcore.peer.identity import PeerId, peer_reader
from schemas.nearcore.peer.peer_message import Routed, read_message, write_message
from schemas.nearcore.peer.protobuf import read_fields, read_varints
from schemas.nearcore.peer.routed_message import RoutedMessage, read_ping, read_routed_body
from schemas.nearcore.peer.snapshot_host import SnapshotHost, read_hash
from schemas.nearcore.peer.state_response import StateResponse
from tests.fuzz.decoder import Decoder
from tests.fuzz.mutation import mutate_text
from tests.support.peer_recordings import RECORDINGS, recorded_connections, recorded_keys

_BORSH_HANDSHAKE = bytes.fromhex("004a000000")
_FRAME_BYTES_MAX = 4000


def _message(data: bytes) -> object:
    message = read_message(data)
    if isinstance(message, Routed):
        read_ping(message.message.body)
        body = read_routed_body(message.message.body)
        if body is not None:
            body.to_bytes()
    return b"".join(map(bytes, write_message(message)))


def _peer_id(data: bytes) -> object:
    return PeerId.parse(data.decode("utf-8", "surrogateescape"))


def _frames() -> list[bytes]:
    """Of each kind of message the first few short frames of the recordings that come with the project."""
    kinds: dict[str, list[bytes]] = {}
    for connection in recorded_connections():
        if not connection.name.startswith(f"{RECORDINGS.name}/"):
            continue
        for frame in connection.frames:
            if frame.data.startswith(_BORSH_HANDSHAKE) or len(frame.data) > _FRAME_BYTES_MAX:
                continue
            message = read_message(frame.data)
            kind = f"{type(message).__name__} {message.message.body[:1].hex() if isinstance(message, Routed) else ''}"
            if len(kinds.setdefault(kind, [])) < 3:
                kinds[kind].append(frame.data)
    return [frame for frames in kinds.values() for frame in frames]


def decoders() -> tuple[Decoder, ...]:
    """Return the table."""
    readers = (read_message, read_fields, read_varints, peer_reader, read_hash, read_routed_body, read_ping)
    values = (RoutedMessage.from_bytes, PeerEdge.from_bytes, PartialEdge.from_bytes, SnapshotHost.from_bytes, StateResponse.from_bytes)
    return (
        Decoder("peer message", _message, _frames, (*readers, *values)),
        Decoder(
            "peer id", _peer_id, lambda: [str(peer_id).encode() for peer_id in list(recorded_keys())[:3]], (PeerId.parse,), mutate_text
        ),
    )
