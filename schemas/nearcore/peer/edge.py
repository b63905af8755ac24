"""Connections between peers, as both sign them. Source: nearcore's `chain/network/src/network_protocol/edge.rs`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

from schemas.errors import PeerProtocolError
from schemas.nearcore.borsh import BorshReader, BorshWriter
from schemas.nearcore.peer.identity import PeerId, PeerSignature, peer_reader


@dataclass(frozen=True, slots=True)
class PartialEdge:
    """One side's half of an edge."""

    nonce: int
    """Odd where the edge is there, even where it was removed; seconds since 1970 of a new one."""
    signature: PeerSignature

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Self:
        """Decode borsh.

        Raises:
            PeerProtocolError: not one.
        """
        reader = peer_reader(data, "partial edge")
        edge = cls(reader.u64(), PeerSignature.read(reader))
        reader.end()
        return edge

    def to_bytes(self) -> bytes:
        """Encode as borsh."""
        return self.nonce.to_bytes(8, "little") + self.signature.to_bytes()


@dataclass(frozen=True, slots=True)
class PeerEdge:
    """A connection between two peers, signed by both, or its removal, signed by one of them as well."""

    a: PeerId
    """The smaller id."""
    b: PeerId
    nonce: int
    signature_a: PeerSignature
    signature_b: PeerSignature
    """Both are of the nonce before, where the edge is removed."""
    removal: tuple[bool, PeerSignature] | None = None
    """Whether a removed it, and that peer's signature of the nonce."""

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Self:
        """Decode borsh.

        Raises:
            PeerProtocolError: not one, or the ids are not in order.
        """
        reader = peer_reader(data, "edge")
        a, b, nonce = PeerId.read(reader), PeerId.read(reader), reader.u64()
        edge = cls(a, b, nonce, PeerSignature.read(reader), PeerSignature.read(reader), reader.option(lambda: _removal(reader)))
        reader.end()
        if not a < b:
            raise PeerProtocolError(problem="an edge's first peer is not the smaller one", where=f"{a} to {b}")
        return edge

    def to_bytes(self) -> bytes:
        """Encode as borsh."""
        writer = BorshWriter().fixed(self.a.to_bytes()).fixed(self.b.to_bytes()).u64(self.nonce)
        writer.fixed(self.signature_a.to_bytes()).fixed(self.signature_b.to_bytes())
        writer.option(self.removal, lambda removal: writer.u8(removal[0]).fixed(removal[1].to_bytes()))
        return writer.to_bytes()


def edge_digest(one: PeerId, other: PeerId, nonce: int) -> bytes:
    """Return what both sides of an edge sign: 32 bytes, whatever the order of the ids."""
    a, b = sorted((one, other))
    return hashlib.sha256(a.to_bytes() + b.to_bytes() + nonce.to_bytes(8, "little")).digest()


def _removal(reader: BorshReader) -> tuple[bool, PeerSignature]:
    return reader.flag(), PeerSignature.read(reader)
