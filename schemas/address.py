"""Network addresses as people write them: ``host:port``, ``[v6]:port``, ``:port``. Resolves nothing."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from schemas.errors import InvalidInputError

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]*)):(?P<port>\d{1,5})")

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Addresses under which a NAT64 gateway reaches IPv4. Source: RFC 6052, section 2.1."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port. The host is empty where all of the machine's are meant."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, option: str, *, every_host: bool = False, any_port: bool = False) -> Address:
    """Parse an address.

    Args:
        option: for the message of an error.
        every_host: the host may be left out, which means all of this machine's.
        any_port: the port may be 0, which means one that is free.
    Raises:
        InvalidInputError: another form.
    """
    match = _ADDRESS.fullmatch(text.strip())
    address = Address(match["v6"] or match["host"], int(match["port"])) if match else None
    if address is None or address.port > 65535 or not (address.host or every_host) or not (address.port or any_port):
        raise InvalidInputError(problem=f"{text[:80]!r} is no address", where=option, remedy="Write HOST:PORT, or [V6]:PORT.")
    return address


def is_public_address(text: str) -> bool:
    """Tell whether an IP address is one of the public internet's: not loopback, link-local, private, shared, reserved or multicast.

    Args:
        text: an IPv4 or IPv6 address, with or without a zone. An IPv6 address that stands for an IPv4 one is judged as that one.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = (
            address.ipv4_mapped or address.sixtofour or (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None)
        )
        if inner is not None:
            address = inner
    return address.is_global and not address.is_multicast
