"""Network addresses as people write them: ``host:port``, ``[v6]:port``, ``:port``. Resolves nothing."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from schemas.errors import InvalidInputError

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]*)):(?P<port>\d{1,5})")

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Addresses under which a NAT64 gateway reaches IPv4. Source: RFC 6052, section 2.1."""

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that the internet's registries give out. Whatever else is not reserved by name is no public address either, such as the site-local
``fec0::/10`` and the IPv4 addresses in ``::/96``. Source: IANA, Internet Protocol Version 6 Address Space."""

_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # Protocol assignments, RFC 6890; a cloud's metadata was at 192.0.0.192.
            "168.63.129.16/32",  # What Azure's machines ask of their host; no other machine reaches it.
            "3fff::/20",  # Documentation, RFC 9637.
        ),
    )
)
"""What `ipaddress` calls global, or did in Python 3.11, and is not."""


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

    A host within the machine's own cloud that has a number of the public internet is not public either.

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
        elif address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_PUBLIC)
