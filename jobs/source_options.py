"""Options of commands that bring epochs from many sources: which sources, and how much is asked of them and of this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from jobs.near_listening import NearAddress, NearListen, near_listening
from jobs.options import parse_rate
from pipelines.fetching.fetch_settings import FetchSettings
from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.source import EpochOnOffer, Source
from pipelines.fetching.source_from_url import TORRENT
from pipelines.kernel.choice import choose_kernel
from pipelines.nearpeer.peer_url import SCHEME, PeerUrl
from pipelines.trust.policy import TrustPolicy

FROM: Final = "From where"
"""The help's panel of options that say where things come from."""
_LIMITS = "Limits"

_DEFAULTS = FetchLimits()


@dataclass(frozen=True, slots=True)
class WantedFromSources:
    """What is asked of the sources."""

    url: str
    """The first source."""
    chain_id: str | None
    epoch: str
    shard_ids: tuple[int, ...]
    into: Path
    policy: TrustPolicy
    kernel: str
    """As ``--kernel`` has it."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Where an epoch comes from besides the first source, and the limits of that."""

    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            help="One more source: http(s), gs, s3, az, file, a path, what fsspec reads, `torrent` for the shards' torrents, a magnet link of one, or near://ed25519:KEY@host:port of a node; may be repeated.",
            rich_help_panel=FROM,
        ),
    ] = None
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", help="HOST:PORT of a BitTorrent peer, for --source torrent; may be repeated.", rich_help_panel=FROM),
    ] = None
    near_listen: NearListen = None
    near_address: NearAddress = None
    mirrors: Annotated[
        bool, typer.Option("--mirrors/--no-mirrors", help="Also use the mirrors that the manifest names.", rich_help_panel=FROM)
    ] = True
    lease: Annotated[
        bool,
        typer.Option(
            "--lease/--no-lease",
            help="Tell stores (gs, s3, az, file) that the epoch is being read, so that gc waits. One that can't be written is left alone.",
            rich_help_panel=FROM,
        ),
    ] = True
    connections: Annotated[int, typer.Option("--connections", help="Most transfers at once.", rich_help_panel=_LIMITS)] = (
        _DEFAULTS.connections
    )
    connections_per_source: Annotated[int, typer.Option("--connections-per-source", rich_help_panel=_LIMITS)] = (
        _DEFAULTS.connections_per_source
    )
    rate_limit: Annotated[
        str | None, typer.Option("--rate-limit", help="Most bytes a second, e.g. 200MB. Default: none.", rich_help_panel=_LIMITS)
    ] = None
    rate_limit_per_source: Annotated[str | None, typer.Option("--rate-limit-per-source", rich_help_panel=_LIMITS)] = None
    requests_per_second: Annotated[
        float | None, typer.Option("--requests-per-second", help="Most requests a second. Default: no limit.", rich_help_panel=_LIMITS)
    ] = None
    requests_per_second_per_source: Annotated[float | None, typer.Option("--requests-per-second-per-source", rich_help_panel=_LIMITS)] = (
        None
    )
    verify_workers: Annotated[
        int | None,
        typer.Option("--verify-workers", min=1, help="Processes that verify parts. Default: one a core.", rich_help_panel=_LIMITS),
    ] = None

    def limits(self) -> FetchLimits:
        """Return the limits.

        Raises:
            InvalidInputError: a number out of range, or no number of bytes a second.
        """
        own = self.rate_limit_per_source
        return FetchLimits(
            connections=self.connections,
            connections_per_source=min(self.connections, self.connections_per_source),
            bytes_per_s=None if self.rate_limit is None else parse_rate(self.rate_limit, "--rate-limit"),
            bytes_per_s_per_source=None if own is None else parse_rate(own, "--rate-limit-per-source"),
            requests_per_s=self.requests_per_second,
            requests_per_s_per_source=self.requests_per_second_per_source,
        )

    def settings(self, wanted: WantedFromSources) -> FetchSettings:
        """Return the settings of a fetch of an epoch.

        Raises:
            InvalidInputError: as `limits` and `near_listening`, or a URL of a node that is none.
        """
        url, limits = wanted.url, self.limits()
        named = tuple(self.source or ())
        near_peers = tuple(PeerUrl.parse(one) for one in dict.fromkeys(named) if one.startswith(SCHEME))
        magnets = tuple(one for one in named if one.startswith("magnet:"))
        return FetchSettings(
            url=url,
            source_urls=tuple(dict.fromkeys(TORRENT if one.startswith("magnet:") else one for one in named if not one.startswith(SCHEME))),
            near_peers=near_peers,
            near_listening=near_listening(self.near_listen, self.near_address, has_peers=bool(near_peers), peers_option="--source"),
            chain_id=wanted.chain_id,
            epoch=wanted.epoch,
            shard_ids=wanted.shard_ids,
            into=wanted.into,
            policy=wanted.policy,
            limits=limits,
            kernel_name=choose_kernel(wanted.kernel).name,
            verify_workers=self.verify_workers or os.cpu_count() or 1,
            use_mirrors=self.mirrors,
            hold_lease=self.lease,
            open_torrent=lambda offer: _open_torrent(offer, tuple(self.peer or ()), magnets, limits),
        )


def _open_torrent(offer: EpochOnOffer, peers: tuple[str, ...], magnets: tuple[str, ...], limits: FetchLimits) -> Source:
    from pipelines.bittorrent.magnet import parse_magnet
    from pipelines.bittorrent.session import SessionSettings
    from pipelines.fetching.torrent_source import TorrentSettings, TorrentSource, magnet_peers
    from schemas.address import parse_address

    named = [parse_address(text, "--peer") for text in peers]
    linked = [address for text in magnets for address in magnet_peers(parse_magnet(text), offer.manifest)]
    # libtorrent downloads at its own pace, so the limits are told to it as well.
    # A limit beyond what libtorrent's own numbers hold is none.
    rates = [int(rate) for rate in (limits.bytes_per_s, limits.bytes_per_s_per_source) if rate is not None and rate < 2**31]
    session = SessionSettings(download_bytes_per_s=min(rates, default=None))
    return TorrentSource(offer, TorrentSettings(peers=tuple(dict.fromkeys([*named, *linked])), session=session))
