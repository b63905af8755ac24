"""A peer's claim that it serves an epoch's state. Source: nearcore's `chain/network/src/network_protocol/state_sync.rs`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from schemas.errors import PeerProtocolError
from schemas.ids import CryptoHash
from schemas.nearcore.peer import protobuf
from schemas.nearcore.peer.identity import PeerId, PeerSignature, peer_reader

SHARDS_MAX: Final = 512
"""Most shards of one announcement: nearcore bans for more (MAX_SHARDS_PER_SNAPSHOT_HOST_INFO)."""


@dataclass(frozen=True, slots=True)
class SnapshotHost:
    """Who serves which shards of which epoch, signed by that peer."""

    peer_id: PeerId
    announced_hash: CryptoHash
    """Not the sync hash: the hash of the block two before the sync block."""
    epoch_height: int
    shards: tuple[int, ...]
    signature: PeerSignature

    @classmethod
    def from_bytes(cls, data: memoryview) -> SnapshotHost:
        """Decode the protobuf message SnapshotHostInfo.

        Raises:
            PeerProtocolError: not one, or one that nearcore bans for.
        """
        where = "snapshot host"
        peer_id: PeerId | None = None
        announced: CryptoHash | None = None
        signature: PeerSignature | None = None
        epoch_height, shards = 0, list[int]()
        for number, value in protobuf.read_fields(data, where):
            match number:
                case 1:
                    reader = peer_reader(protobuf.only_bytes(value, where), where)
                    peer_id = PeerId.read(reader)
                    reader.end()
                case 2:
                    announced = read_hash(value, where)
                case 3:
                    epoch_height = protobuf.unsigned(value, where)
                case 4:
                    shards += protobuf.read_varints(value, where)
                    if len(shards) > SHARDS_MAX:
                        raise PeerProtocolError(problem=f"more than {SHARDS_MAX} shards are announced", where=where)
                case 5:
                    reader = peer_reader(protobuf.only_bytes(value, where), where)
                    signature = PeerSignature.read(reader)
                    reader.end()
                case _:
                    pass
        if peer_id is None or announced is None or signature is None:
            raise PeerProtocolError(problem="peer, hash or signature is missing", where=where)
        return cls(peer_id, announced, epoch_height, tuple(shards), signature)

    def to_bytes(self) -> bytes:
        """Encode as protobuf."""
        return b"".join(
            (
                protobuf.bytes_field(1, protobuf.bytes_field(1, self.peer_id.to_bytes())),
                protobuf.bytes_field(2, protobuf.bytes_field(1, self.announced_hash)),
                protobuf.integer_field(3, self.epoch_height),
                *(protobuf.present_integer_field(4, shard) for shard in self.shards),
                protobuf.bytes_field(5, protobuf.bytes_field(1, self.signature.to_bytes())),
            )
        )

    def digest(self) -> bytes:
        """Return what the peer signs: 32 bytes."""
        return snapshot_host_digest(self.announced_hash, self.epoch_height, self.shards)


def snapshot_host_digest(announced_hash: CryptoHash, epoch_height: int, shards: tuple[int, ...]) -> bytes:
    """Return what a peer that announces shards signs: 32 bytes."""
    listed = b"".join(shard.to_bytes(8, "little") for shard in shards)
    return hashlib.sha256(announced_hash + epoch_height.to_bytes(8, "little") + len(shards).to_bytes(4, "little") + listed).digest()


def read_hash(value: protobuf.FieldValue, where: str) -> CryptoHash:
    """Return the hash that a message CryptoHash wraps.

    Raises:
        PeerProtocolError: not 32 bytes.
    """
    data = bytes(protobuf.only_bytes(value, where))
    if len(data) != 32:
        raise PeerProtocolError(problem=f"a hash has 32 bytes, this has {len(data)}", where=where)
    return CryptoHash(data)
