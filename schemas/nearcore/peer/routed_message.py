"""Messages that peers pass on towards their target, as far as the exchange of state needs them.

Borsh within a protobuf message; what is signed leaves out the ways that a message takes: time to live, hops and time of creation.
Source: nearcore's `chain/network/src/network_protocol/mod.rs` (RoutedMessage, RoutedMessageBody).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from schemas.errors import PeerProtocolError
from schemas.ids import CryptoHash
from schemas.nearcore.borsh import BorshReader, BorshWriter
from schemas.nearcore.peer import protobuf
from schemas.nearcore.peer.identity import PeerAddress, PeerId, PeerSignature, peer_reader

TIME_TO_LIVE: Final = 100
"""With which a message starts; each hop takes one."""

BODY_PING: Final = 14
BODY_PONG: Final = 15
BODY_STATE_PART_REQUEST: Final = 27
BODY_STATE_HEADER_REQUEST: Final = 32
BODY_STATE_REQUEST_ACK: Final = 34

BODIES_WITH_ANSWER: Final = frozenset({2, 11, BODY_PING})
"""Bodies whose answer comes back to the hash of the message that asked."""


class AckKind(IntEnum):
    """What a host says of a request that it got."""

    WILL_RESPOND = 0
    BUSY = 1
    ERROR = 2


@dataclass(frozen=True, slots=True)
class StateRequest:
    """A request for a part or, without a part id, for the header of a shard's state."""

    shard_id: int
    sync_hash: CryptoHash
    part_id: int | None
    reply_to: PeerAddress
    """Where the requester listens; its own claim."""

    def to_bytes(self) -> bytes:
        """Encode as the body of a routed message."""
        kind = BODY_STATE_HEADER_REQUEST if self.part_id is None else BODY_STATE_PART_REQUEST
        writer = BorshWriter().u8(kind).u64(self.shard_id).fixed(self.sync_hash)
        if self.part_id is not None:
            writer.u64(self.part_id)
        return writer.fixed(self.reply_to.to_bytes()).to_bytes()


@dataclass(frozen=True, slots=True)
class StateRequestAck:
    """Whether a routed request will be answered."""

    shard_id: int
    sync_hash: CryptoHash
    part_id: int | None
    """None for a header."""
    kind: AckKind

    def to_bytes(self) -> bytes:
        """Encode as the body of a routed message."""
        writer = BorshWriter().u8(BODY_STATE_REQUEST_ACK).u64(self.shard_id).fixed(self.sync_hash)
        writer.u8(1) if self.part_id is None else writer.u8(0).u64(self.part_id)
        return writer.u8(self.kind).to_bytes()


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping."""

    nonce: int
    sender: PeerId

    def to_bytes(self) -> bytes:
        """Encode as the body of a routed message."""
        return BorshWriter().u8(BODY_PONG).u64(self.nonce).fixed(self.sender.to_bytes()).to_bytes()


Body = StateRequest | StateRequestAck


@dataclass(frozen=True, slots=True)
class RoutedMessage:
    """A signed message on its way to a peer, or back to where a message with some hash came from."""

    target: PeerId | CryptoHash
    author: PeerId
    signature: PeerSignature
    time_to_live: int
    body: bytes
    """Its first byte is its kind."""
    created_at: tuple[int, int] | None = None
    """Seconds since 1970, and nanoseconds."""
    hops: int = 0

    @classmethod
    def from_bytes(cls, data: memoryview) -> RoutedMessage:
        """Decode the protobuf message RoutedMessage.

        Raises:
            PeerProtocolError: not one.
        """
        where = "routed message"
        signed, created_at, hops = memoryview(b""), None, 0
        for number, value in protobuf.read_fields(data, where):
            match number:
                case 1:
                    signed = protobuf.message(value, where)
                case 2:
                    created_at = _read_timestamp(value, where)
                case 4:
                    hops = protobuf.unsigned(value, where, 2**32 - 1)
                case _:
                    pass
        reader = peer_reader(signed, where)
        target: PeerId | CryptoHash = CryptoHash(reader.fixed(32)) if reader.flag() else PeerId.read(reader)
        author, signature, time_to_live = PeerId.read(reader), PeerSignature.read(reader), reader.u8()
        body = reader.fixed(reader.remaining)
        if not body:
            raise PeerProtocolError(problem="a routed message has no body", where=where)
        return cls(target, author, signature, time_to_live, body, created_at, hops)

    def to_bytes(self) -> bytes:
        """Encode as protobuf."""
        signed = _target_bytes(self.target) + self.author.to_bytes() + self.signature.to_bytes() + bytes([self.time_to_live]) + self.body
        created = b""
        if self.created_at is not None:
            seconds, nanoseconds = self.created_at
            created = protobuf.bytes_field(2, protobuf.integer_field(1, seconds), protobuf.integer_field(2, nanoseconds))
        return protobuf.bytes_field(1, signed) + created + protobuf.integer_field(4, self.hops)

    def digest(self) -> bytes:
        """Return what the author signs, which is also what an answer is addressed to: 32 bytes."""
        return routed_digest(self.target, self.author, self.body)

    def one_hop_on(self) -> RoutedMessage:
        """Return the message as it goes on; its time to live must not be 0."""
        return replace(self, time_to_live=self.time_to_live - 1, hops=self.hops + 1)


def routed_digest(target: PeerId | CryptoHash, author: PeerId, body: bytes) -> bytes:
    """Return what the author of a message signs: 32 bytes."""
    return hashlib.sha256(_target_bytes(target) + author.to_bytes() + body).digest()


def read_routed_body(body: bytes) -> Body | None:
    """Decode the body of a message about state; None for all other bodies.

    Raises:
        PeerProtocolError: a body about state that is cut, or followed by more.
    """
    kind = body[0]
    reader = peer_reader(memoryview(body)[1:], f"routed body {kind}")
    match kind:
        case 27 | 32:
            found: Body = StateRequest(
                reader.u64(),
                CryptoHash(reader.fixed(32)),
                reader.u64() if kind == BODY_STATE_PART_REQUEST else None,
                PeerAddress.read(reader),
            )
        case 34:
            found = StateRequestAck(
                reader.u64(), CryptoHash(reader.fixed(32)), None if reader.flag() else reader.u64(), _read_ack_kind(reader)
            )
        case _:
            return None
    reader.end()
    return found


def read_ping(body: bytes) -> int | None:
    """Return the nonce of a ping; None for all other bodies.

    Raises:
        PeerProtocolError: a ping that is cut, or followed by more.
    """
    if body[0] != BODY_PING:
        return None
    reader = peer_reader(memoryview(body)[1:], "ping")
    nonce = reader.u64()
    PeerId.read(reader)
    reader.end()
    return nonce


def _read_ack_kind(reader: BorshReader) -> AckKind:
    kind = reader.u8()
    if kind not in set(AckKind):
        reader.fail(f"an ack is of kind {kind}")
    return AckKind(kind)


def _read_timestamp(value: protobuf.FieldValue, where: str) -> tuple[int, int]:
    seconds = nanoseconds = 0
    for number, part in protobuf.read_fields(protobuf.message(value, where), where):
        if number == 1:
            seconds = protobuf.unsigned(part, where)
        elif number == 2:
            nanoseconds = protobuf.unsigned(part, where)
    return seconds, nanoseconds


def _target_bytes(target: PeerId | CryptoHash) -> bytes:
    return b"\x01" + target if isinstance(target, CryptoHash) else b"\x00" + target.to_bytes()
