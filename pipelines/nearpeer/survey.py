"""Looks at a peer of nearcore's network, and gently at its neighbours: which host which epochs, which versions, how fast.

One connection at a time, a pause between them, and nothing asked that a node does not tell every peer. Only what a signature or an answer
shows is taken for so; the rest is what the peer says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.nearpeer.connection import dial
from pipelines.nearpeer.handshake import UNUSED_PORT, DialerHandshake, OwnSide
from pipelines.nearpeer.node_key import NodeKey
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.nearpeer.state_client import StateClient
from schemas.address import is_public_address
from schemas.errors import StatecastError
from schemas.ids import ZERO_HASH, CryptoHash
from schemas.nearcore.peer.identity import PeerAddress, PeerId, PeerInfo
from schemas.nearcore.peer.peer_message import GenesisId, Tier
from schemas.nearcore.peer.snapshot_host import SnapshotHost

NEIGHBOURS_MAX: Final = 50
"""Most neighbours that are looked at."""
PAUSE_S: Final = 1.0
"""Between two connections."""
HOSTS_WAIT_S: Final = 5.0
PEERS_WAIT_S: Final = 5.0
TRY_TIMEOUT_S: Final = 12.0


@dataclass(frozen=True, slots=True)
class TriedObject:
    """What became of asking for a header or a part."""

    shard_id: int
    part_id: int | None
    seconds: float
    size: int | None
    """Bytes that came; None where none did."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SurveyedPeer:
    """One peer."""

    peer_id: PeerId
    address: str
    genesis: GenesisId | None = None
    version: int | None = None
    """The protocol version that it agreed to."""
    handshake_s: float | None = None
    """From the first byte to its answer, the connection's own time left out."""
    hosts: tuple[SnapshotHost, ...] = ()
    """All announcements that it passed on, newest epoch first."""
    peers: tuple[PeerInfo, ...] = ()
    tried: tuple[TriedObject, ...] = ()
    problem: str = ""
    """Why it could not be looked at."""

    @property
    def own_announcement(self) -> SnapshotHost | None:
        """What it says of itself."""
        return next((host for host in self.hosts if host.peer_id == self.peer_id), None)


@dataclass(frozen=True, slots=True)
class _Asking:
    key: NodeKey
    sync_hash: CryptoHash | None
    timeout_s: float


async def survey(
    url: PeerUrl,
    *,
    neighbours_max: int = 0,
    try_sync_hash: CryptoHash | None = None,
    try_timeout_s: float = TRY_TIMEOUT_S,
) -> list[SurveyedPeer]:
    """Look at a peer, then at some of the peers that it names.

    Args:
        try_sync_hash: ask each peer that announces shards for their headers and one part of this epoch.
        try_timeout_s: how long each answer is waited for.
    Raises:
        StatecastError: the named peer can't be reached, or refuses.
    """
    key = NodeKey.generate()
    address = await url.resolve()
    asking = _Asking(key, try_sync_hash, try_timeout_s)
    first = await _look(asking, url.peer_id, address, ask_peers=True)
    found = [first]
    for peer in _neighbours(first.peers, url.peer_id, address)[: min(neighbours_max, NEIGHBOURS_MAX)]:
        await asyncio.sleep(PAUSE_S)
        assert peer.address is not None, "or it was left out"
        try:
            found.append(await _look(asking, peer.peer_id, peer.address, ask_peers=False))
        except StatecastError as error:
            found.append(SurveyedPeer(peer.peer_id, str(peer.address), problem=error.problem))
    return found


def _neighbours(peers: Sequence[PeerInfo], asked: PeerId, address: PeerAddress) -> list[PeerInfo]:
    """Return the peers that may be dialled: by what somebody says, nobody is sent into a private network that was not in one before."""
    return [
        peer
        for peer in peers
        if peer.address is not None
        and peer.peer_id != asked
        and (is_public_address(str(peer.address.ip)) or not is_public_address(str(address.ip)))
    ]


async def _look(asking: _Asking, peer_id: PeerId, address: PeerAddress, *, ask_peers: bool) -> SurveyedPeer:
    handshake = DialerHandshake(OwnSide(asking.key, GenesisId("", ZERO_HASH), UNUSED_PORT), Tier.T2, peer_id, int(time.time()) | 1)
    began_s = time.monotonic()
    connection, connected = await dial(address, handshake, time.time)
    took_s = time.monotonic() - began_s
    client = StateClient(connection, connected, handshake.own, time.time)
    try:
        await client.heard_hosts(HOSTS_WAIT_S)
        if ask_peers:
            await client.ask_for_peers(PEERS_WAIT_S)
        hosts = tuple(sorted(client.hosts.values(), key=lambda host: (-host.epoch_height, host.peer_id)))
        seen = SurveyedPeer(peer_id, str(address), handshake.own.genesis, connected.version, took_s, hosts, tuple(client.peers.values()))
        own = seen.own_announcement
        if asking.sync_hash is None or own is None:
            return seen
        tried: list[TriedObject] = []
        for shard, part in ((shard, part) for shard in own.shards for part in (None, 0)):
            tried.append(await _try(client, shard, asking.sync_hash, part, asking.timeout_s))
            if tried[-1].problem:
                # Silence means that it is asked too much already, or does not have the epoch.
                break
        return SurveyedPeer(seen.peer_id, seen.address, seen.genesis, seen.version, took_s, hosts, seen.peers, tuple(tried))
    finally:
        await client.close()


async def _try(client: StateClient, shard_id: int, sync_hash: CryptoHash, part_id: int | None, timeout_s: float) -> TriedObject:
    began_s = time.monotonic()
    try:
        response = await client.ask(shard_id, sync_hash, part_id, timeout_s)
    except StatecastError as error:
        return TriedObject(shard_id, part_id, time.monotonic() - began_s, None, error.problem)
    data = response.header if part_id is None else response.part
    return TriedObject(shard_id, part_id, time.monotonic() - began_s, None if data is None else len(data))
