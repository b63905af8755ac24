"""A node's key: who a peer is, and what it signs with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schemas.nearcore.peer.edge import PeerEdge, edge_digest
from schemas.nearcore.peer.identity import ED25519, PeerId, PeerSignature


@dataclass(frozen=True, slots=True)
class NodeKey:
    """An ed25519 key. It signs 32-byte hashes of this protocol alone and is used for nothing else."""

    peer_id: PeerId
    _private_key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """Return a new key."""
        return cls.from_seed(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Return the key of a seed of 32 bytes."""
        private_key = Ed25519PrivateKey.from_private_bytes(seed)
        return cls(PeerId(ED25519, private_key.public_key().public_bytes_raw()), private_key)

    def seed(self) -> bytes:
        """Return the secret half, for the key's file."""
        return self._private_key.private_bytes_raw()

    def sign(self, digest: bytes) -> PeerSignature:
        """Sign 32 bytes."""
        return PeerSignature(ED25519, self._private_key.sign(digest))

    def sign_edge(self, other: PeerId, nonce: int) -> PeerSignature:
        """Sign this key's half of an edge."""
        return self.sign(edge_digest(self.peer_id, other, nonce))

    def edge_with(self, other: PeerId, nonce: int, others_signature: PeerSignature) -> PeerEdge:
        """Return an edge that the other side has signed, with our signature."""
        own = self.sign_edge(other, nonce)
        if self.peer_id < other:
            return PeerEdge(self.peer_id, other, nonce, own, others_signature)
        return PeerEdge(other, self.peer_id, nonce, others_signature, own)


def holds(signature: PeerSignature, signer: PeerId, digest: bytes) -> bool:
    """Return whether a signature of 32 bytes is the signer's; never for a key that is not ed25519."""
    if signature.key_type != ED25519 or signer.key_type != ED25519:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(signer.key).verify(signature.data, digest)
    except (InvalidSignature, ValueError):
        return False
    return True


def edge_holds(edge: PeerEdge) -> bool:
    """Return whether an edge, or its removal, is signed as nearcore asks."""
    removed = edge.nonce % 2 == 0
    if edge.nonce == 0 or removed != (edge.removal is not None):
        return False
    added = edge_digest(edge.a, edge.b, edge.nonce - removed)
    if not (holds(edge.signature_a, edge.a, added) and holds(edge.signature_b, edge.b, added)):
        return False
    if edge.removal is None:
        return True
    by_a, signature = edge.removal
    return holds(signature, edge.a if by_a else edge.b, edge_digest(edge.a, edge.b, edge.nonce))
