"""Magnet links and addresses."""

from __future__ import annotations

import pytest

from pipelines.bittorrent.magnet import MagnetLink, magnet_link, parse_magnet
from schemas.address import Address, parse_address
from schemas.errors import InvalidInputError

V1, V2 = "ab" * 20, "cd" * 32


def test_a_link_is_read_as_it_is_written() -> None:
    """Both info hashes, peers of both address families, trackers."""
    peers = (Address("127.0.0.1", 6881), Address("::1", 9))
    trackers = ("udp://tracker.example:6969/announce?x=1&y=2",)
    link = magnet_link(V1, V2, "shard_id=3", peers, trackers)
    assert parse_magnet(link) == MagnetLink(V1, V2, peers, trackers)


def test_libtorrent_reads_the_same() -> None:
    """The library of stock clients finds hashes, name, peers and trackers in our link."""
    lt = pytest.importorskip("libtorrent", reason="the extra p2p is not installed")
    parameters = lt.parse_magnet_uri(magnet_link(V1, V2, "shard_id=3", [Address("127.0.0.1", 6881)], ["http://t.example/announce"]))
    assert (parameters.info_hashes.v1.to_bytes().hex(), parameters.info_hashes.v2.to_bytes().hex()) == (V1, V2)
    assert (parameters.name, parameters.peers, parameters.trackers) == (
        "shard_id=3",
        [("127.0.0.1", 6881)],
        ["http://t.example/announce"],
    )


def test_one_hash_is_enough() -> None:
    """Links of either version alone are links."""
    assert parse_magnet(f"magnet:?xt=urn:btih:{V1.upper()}") == MagnetLink(V1, None)
    assert parse_magnet(f"magnet:?xt.1=urn:btmh:1220{V2}&dn=x") == MagnetLink(None, V2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://host/",
        "magnet:?dn=x",
        "magnet:?xt=urn:btih:xyz",
        f"magnet:?xt=urn:btmh:1220{V2}00",
        f"magnet:?xt=urn:btih:{V1}&x.pe=nowhere",
        f"magnet:?xt=urn:btih:{V1}&" + "tr=x&" * 300,
        f"magnet:?xt=urn:btih:{V1}&dn=" + "x" * 20_000,
    ],
)
def test_what_is_no_link_is_refused(text: str) -> None:
    """Another scheme, no hash, another length, a broken peer, too much of anything."""
    with pytest.raises(InvalidInputError):
        parse_magnet(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:80", Address("127.0.0.1", 80)), ("[::1]:80", Address("::1", 80)), ("peer.example:65535", Address("peer.example", 65535))],
)
def test_addresses_are_read_as_they_are_written(text: str, address: Address) -> None:
    """Both ways."""
    assert parse_address(text, "--peer") == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "host:0", "host:65536", "a b:80", "::1:80", "host:80/x", "[host]:80"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """The option is named."""
    with pytest.raises(InvalidInputError, match="--peer"):
        parse_address(text, "--peer")


def test_a_listening_address_may_leave_things_out() -> None:
    """The host for all of them, and port 0 for a free one."""
    assert parse_address(":0", "--listen", every_host=True, any_port=True) == Address("", 0)
