"""Who a peer is: its public key, an address, and what it signs with.

Borsh, as nearcore's `core/crypto/src/signature.rs` and `core/primitives/src/network.rs` have it; upstream's key type 2 (ML-DSA) is refused,
since node keys are ed25519 and forks give that number another length.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from schemas.errors import InvalidInputError, PeerProtocolError
from schemas.ids import base58_decode, base58_encode
from schemas.nearcore.borsh import BorshReader, BorshWriter

ED25519: Final = 0
SECP256K1: Final = 1
_KEY_BYTES = {ED25519: 32, SECP256K1: 64}
_SIGNATURE_BYTES = {ED25519: 64, SECP256K1: 65}
_NAMES = {ED25519: "ed25519", SECP256K1: "secp256k1"}

ACCOUNT_BYTES_MAX: Final = 64
"""Longest account name."""


@dataclass(frozen=True, slots=True, order=True)
class PeerId:
    """A node's public key; ids are ordered by type, then by the key's bytes."""

    key_type: int
    key: bytes

    def __post_init__(self) -> None:
        if len(self.key) != _KEY_BYTES.get(self.key_type):
            raise InvalidInputError(problem=f"a key of type {self.key_type} can't have {len(self.key)} bytes")

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """Parse ``ed25519:BASE58``, the form of neard's node_key.json and boot_nodes.

        Raises:
            InvalidInputError: another form.
        """
        scheme, _, encoded = text.partition(":")
        if scheme != "ed25519" or not 0 < len(encoded) <= 44:
            raise InvalidInputError(problem="a peer id looks like ed25519: and 43 or 44 base58 characters", where=text[:64])
        return cls(ED25519, base58_decode(encoded))

    @classmethod
    def read(cls, reader: BorshReader) -> PeerId:
        """Take an id off a reader."""
        key_type = reader.u8()
        if key_type not in _KEY_BYTES:
            reader.fail(f"key type {key_type} is unknown")
        return cls(key_type, reader.fixed(_KEY_BYTES[key_type]))

    def to_bytes(self) -> bytes:
        """Encode as borsh: the type's byte and the key."""
        return bytes([self.key_type]) + self.key

    def __str__(self) -> str:
        return f"{_NAMES[self.key_type]}:{base58_encode(self.key)}"


@dataclass(frozen=True, slots=True)
class PeerSignature:
    """A signature by a node's key; it may not hold."""

    key_type: int
    data: bytes

    @classmethod
    def read(cls, reader: BorshReader) -> PeerSignature:
        """Take a signature off a reader."""
        key_type = reader.u8()
        if key_type not in _SIGNATURE_BYTES:
            reader.fail(f"signature type {key_type} is unknown")
        data = reader.fixed(_SIGNATURE_BYTES[key_type])
        if key_type == ED25519 and data[-1] & 0b1110_0000:
            reader.fail("the top three bits of an ed25519 signature are not 0")
        return cls(key_type, data)

    def to_bytes(self) -> bytes:
        """Encode as borsh."""
        return bytes([self.key_type]) + self.data


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """An IP address and a TCP port."""

    ip: IPv4Address | IPv6Address
    port: int

    @classmethod
    def of(cls, ip: str, port: int) -> PeerAddress:
        """Return the address of an IP address' text.

        Raises:
            InvalidInputError: no IP address, or no port.
        """
        try:
            return cls(ip_address(ip), port)
        except ValueError as error:
            raise InvalidInputError(problem="this is no IP address", where=ip[:64]) from error

    @classmethod
    def read(cls, reader: BorshReader) -> PeerAddress:
        """Take an address off a reader."""
        kind = reader.u8()
        if kind > 1:
            reader.fail(f"an address is of kind {kind}")
        packed = reader.fixed(16 if kind else 4)
        return cls(IPv6Address(packed) if kind else IPv4Address(packed), reader.u16())

    def to_bytes(self) -> bytes:
        """Encode as borsh."""
        return bytes([self.ip.version == 6]) + self.ip.packed + self.port.to_bytes(2, "little")

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What one peer says of another: nothing of it is verified."""

    peer_id: PeerId
    address: PeerAddress | None = None
    account_id: bytes | None = None
    """As it came: no more than a claim."""

    @classmethod
    def read(cls, reader: BorshReader) -> PeerInfo:
        """Take an info off a reader."""
        return cls(
            PeerId.read(reader), reader.option(lambda: PeerAddress.read(reader)), reader.option(lambda: reader.byte_vec(ACCOUNT_BYTES_MAX))
        )

    def to_bytes(self) -> bytes:
        """Encode as borsh."""
        writer = BorshWriter().fixed(self.peer_id.to_bytes())
        writer.option(self.address, lambda address: writer.fixed(address.to_bytes()))
        writer.option(self.account_id, writer.byte_vec)
        return writer.to_bytes()


def peer_reader(data: bytes | memoryview, where: str) -> BorshReader:
    """Return a reader of borsh that a peer sent."""
    return BorshReader(data, where, PeerProtocolError)
