"""Magnet links of hybrid torrents: both info hashes, peers (``x.pe``) and trackers (``tr``). No I/O, and no library is needed.

A link that came from anywhere says nothing about what is right: the info hashes are the signed manifest's to say. It names peers.

Source: BEP 9 and BEP 52 (``urn:btih`` and ``urn:btmh``, whose multihash begins with 1220 for a SHA-256).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote

from schemas.address import Address, parse_address
from schemas.errors import InvalidInputError
from schemas.shown_text import shown_url

LINK_LENGTH_MAX: Final = 16_384

LINK_FIELDS_MAX: Final = 256

_V1, _V2 = "urn:btih:", "urn:btmh:1220"


@dataclass(frozen=True, slots=True)
class MagnetLink:
    """What a magnet link says; the hashes in hexadecimal, None where it lacks one."""

    info_hash_v1: str | None
    info_hash_v2: str | None
    peers: tuple[Address, ...] = ()
    trackers: tuple[str, ...] = ()


def parse_magnet(text: str) -> MagnetLink:
    """Parse a magnet link.

    Raises:
        InvalidInputError: another form, or no info hash.
    """
    if len(text) > LINK_LENGTH_MAX or not text.startswith("magnet:?"):
        raise InvalidInputError(problem="this is no magnet link", where=shown_url(text))
    try:
        fields = parse_qsl(text.removeprefix("magnet:?"), max_num_fields=LINK_FIELDS_MAX)
    except ValueError as error:
        raise InvalidInputError(problem=f"this magnet link can't be read: {error}", where=shown_url(text)) from error
    topics = [value for name, value in fields if name.partition(".")[0] == "xt"]
    v1 = next((topic.removeprefix(_V1).lower() for topic in topics if topic.startswith(_V1)), None)
    v2 = next((topic.removeprefix(_V2).lower() for topic in topics if topic.startswith(_V2)), None)
    if (v1 is None and v2 is None) or not _is_hex(v1, 40) or not _is_hex(v2, 64):
        raise InvalidInputError(problem="the magnet link has no info hash in hexadecimal", where=shown_url(text))
    peers = tuple(parse_address(value, "x.pe of the magnet link") for name, value in fields if name == "x.pe")
    return MagnetLink(v1, v2, peers, tuple(value for name, value in fields if name.partition(".")[0] == "tr"))


def magnet_link(info_hash_v1: str, info_hash_v2: str, name: str, peers: Sequence[Address] = (), trackers: Sequence[str] = ()) -> str:
    """Return the link that a stock client takes."""
    fields = [f"xt={_V1}{info_hash_v1}", f"xt={_V2}{info_hash_v2}", f"dn={quote(name)}"]
    fields += [f"x.pe={peer}" for peer in peers]
    fields += [f"tr={quote(tracker, safe='')}" for tracker in trackers]
    return "magnet:?" + "&".join(fields)


def _is_hex(text: str | None, length: int) -> bool:
    return text is None or (len(text) == length and all(character in "0123456789abcdef" for character in text))
