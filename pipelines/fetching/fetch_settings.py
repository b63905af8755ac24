"""What a person wants fetched. Values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.part_rebuilding import PartRebuilder
from pipelines.fetching.source import EpochOnOffer, Source
from pipelines.nearpeer.peer_network import Listening
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.trust.policy import TrustPolicy


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """What is to be fetched, from where, into what, and what is trusted."""

    url: str
    """Of a store's folder, a chain's or an epoch's: where documents are asked for first."""
    source_urls: tuple[str, ...]
    """More sources; `TORRENT` among them for the shards' torrents."""
    chain_id: str | None
    epoch: str
    """``latest``, a height or an id; where the URL names an epoch, ``latest`` or that epoch."""
    shard_ids: tuple[int, ...]
    """Empty for all that the manifest lists."""
    into: Path
    policy: TrustPolicy
    limits: FetchLimits
    kernel_name: str
    verify_workers: int
    verify_in_threads: bool = False
    use_mirrors: bool = True
    """Also fetch from the mirrors that the believed manifest names."""
    hold_lease: bool = True
    """Write a lease of the epoch into the stores among the URLs, where they can be written."""
    near_peers: tuple[PeerUrl, ...] = ()
    """Nodes of nearcore's own network that are asked for parts too."""
    near_listening: Listening | None = None
    """Where such nodes dial back; then hosts are asked too that are reached through these alone."""
    open_torrent: Callable[[EpochOnOffer], Source] | None = None
    """Opens the torrent source; needed with `TORRENT`."""
    rebuilder: PartRebuilder | None = None
    """Rebuilds parts out of an older state where that takes fewer bytes; None to fetch all whole."""
