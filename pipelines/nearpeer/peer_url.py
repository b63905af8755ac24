"""Names of peers: ``near://ed25519:KEY@host:port``, the form of neard's boot_nodes with a scheme before it."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Final, Self

from schemas.address import Address, parse_address
from schemas.errors import InvalidInputError, TransientStoreError
from schemas.nearcore.peer.identity import PeerAddress, PeerId

SCHEME: Final = "near://"


@dataclass(frozen=True, slots=True)
class PeerUrl:
    """A peer, and where it listens."""

    peer_id: PeerId
    address: Address

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a URL.

        Raises:
            InvalidInputError: another form.
        """
        key, at, address = text.removeprefix(SCHEME).rpartition("@")
        if not text.startswith(SCHEME) or not at:
            raise InvalidInputError(problem="a peer is named near://ed25519:KEY@host:port", where=text[:120])
        return cls(PeerId.parse(key), parse_address(address, text[:120]))

    async def resolve(self) -> PeerAddress:
        """Look the host's name up.

        Raises:
            TransientStoreError: it has no address.
        """
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise TransientStoreError(problem=f"the host's name can't be looked up: {error.strerror}", where=str(self)) from None
        host, port = found[0][4][:2]
        return PeerAddress.of(str(host), int(port))

    def __str__(self) -> str:
        return f"{SCHEME}{self.peer_id}@{self.address}"
