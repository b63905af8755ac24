"""A source in nearcore's own network: a stock node, or a seeding peer of ours, asked for state parts.

Directly no port is listened on, so it works behind NAT. Where one is, nodes are asked too that are heard of and not connected, through those
that are. What comes is encoded as that node encodes, which need not be how the publisher did: the decoded bytes are judged by the statement's
digest, and handed out encoded as the manifest says.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass, field
from typing import Any, Final

from pipelines.fetching.fetch_part import FetchPart
from pipelines.fetching.source import BUFFER_BYTES_MAX, Buffer, Cancellation, EpochOnOffer, SourceTraits, WantedObject
from pipelines.kernel.part_check import check_stated
from pipelines.nearpeer.genesis import KNOWN_GENESIS
from pipelines.nearpeer.loop_thread import LoopThread
from pipelines.nearpeer.peer_network import AskedHost, Listening, PeerNetwork
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.nearpeer.state_answer import decode_answered_part
from pipelines.nearpeer.state_requester import OUTSTANDING_MAX, REQUESTS_PER_S
from schemas.errors import ObjectNotFoundError, StatecastError, StoreError, TransientStoreError
from schemas.ids import ZERO_HASH
from schemas.nearcore.block import decode_block_header
from schemas.nearcore.peer.peer_message import GenesisId
from schemas.nearcore.peer.state_response import StateResponse
from schemas.nearcore.state_part import encode_state_part

_TICK_S: Final = 0.25
"""How often a transfer that waits says that it is at work."""


@dataclass(frozen=True, slots=True)
class NearPeerSettings:
    """How nodes are asked."""

    genesis: GenesisId
    """With the hash zero where it is not known: the node says it then."""
    requests_per_s: float = REQUESTS_PER_S
    listening: Listening | None = None
    """Where nodes dial back; None to ask over the connections to them alone."""


def near_peer_settings(chain_id: str, requests_per_s: float | None, listening: Listening | None) -> NearPeerSettings:
    """Return how nodes of a chain are asked; where nothing is said, half as often as they answer."""
    genesis = GenesisId(chain_id, KNOWN_GENESIS.get(chain_id, ZERO_HASH))
    return NearPeerSettings(genesis, REQUESTS_PER_S if requests_per_s is None else requests_per_s, listening)


def open_near_sources(
    urls: Sequence[PeerUrl], offer: EpochOnOffer, parts: Mapping[str, FetchPart], settings: NearPeerSettings
) -> list[NearPeerSource]:
    """Return a source for each node: the named ones, and where a port is listened on those that these announce as hosts of the epoch.

    Connects to nobody but for that.

    Args:
        parts: what each object must be, by name.
    Raises:
        InvalidInputError: the address can't be listened on.
    """
    network = _SharedNetwork(PeerNetwork(settings.genesis, requests_per_s=settings.requests_per_s, listening=settings.listening))
    hosts = [network.peers.named(url) for url in dict.fromkeys(urls)]
    try:
        network.loop.finish(network.peers.start())
        if settings.listening is not None and offer.manifest.block_headers:
            hosts += network.loop.finish(_heard(network.peers, hosts, offer))
    except BaseException:
        network.stop()
        raise
    network.users = len(hosts)
    return [NearPeerSource(network, host, offer, parts) for host in hosts]


async def _heard(peers: PeerNetwork, named: Sequence[AskedHost], offer: EpochOnOffer) -> list[AskedHost]:
    await asyncio.gather(*map(peers.connect, named), return_exceptions=True)
    return peers.heard(decode_block_header(offer.manifest.block_headers[1], "parent").prev_hash)


@dataclass(slots=True)
class _SharedNetwork:
    """Closed by the last source that uses it."""

    peers: PeerNetwork
    users: int = 0
    loop: LoopThread = field(default_factory=LoopThread)

    def leave(self) -> None:
        self.users -= 1
        if not self.users:
            self.stop()

    def stop(self) -> None:
        self.loop.finish(self.peers.close())
        self.loop.close()


class NearPeerSource:
    """See `pipelines.fetching.source.Source`."""

    def __init__(self, network: _SharedNetwork, host: AskedHost, offer: EpochOnOffer, parts: Mapping[str, FetchPart]) -> None:
        self._network, self._host, self._offer, self._parts = network, host, offer, parts
        self._asking: set[Future[Any]] = set()
        self._closed = False

    @property
    def source_id(self) -> str:
        """The URL."""
        return str(self._host)

    @property
    def traits(self) -> SourceTraits:
        """State parts alone, whole, a few at once."""
        return SourceTraits(documents=False, ranges=False, connections_max=OUTSTANDING_MAX)

    def stream(self, wanted: WantedObject, start: int, cancelled: Cancellation) -> Iterator[Buffer]:
        """See `Source.stream`; empty buffers come while the node's limits are waited for."""
        part = self._parts.get(wanted.name)
        if part is None:
            raise ObjectNotFoundError(problem="a node of the network has state parts alone", where=wanted.name)
        if self._closed:
            raise TransientStoreError(problem="the node is asked no more", where=self.source_id)
        asked = self._network.loop.submit(self._ask(part))
        self._asking.add(asked)
        try:
            while not cancelled.is_cancelled:
                try:
                    response = asked.result(_TICK_S)
                except NotYetError:
                    yield b""
                    continue
                except CancelledError:
                    raise TransientStoreError(problem="the node is asked no more", where=self.source_id) from None
                encoded = memoryview(self._as_published(response, part))
                for offset in range(0, encoded.nbytes, BUFFER_BYTES_MAX):
                    yield encoded[offset : offset + BUFFER_BYTES_MAX]
                return
        finally:
            asked.cancel()
            self._asking.discard(asked)

    def close(self) -> None:
        """See `Source.close`."""
        if self._closed:
            return
        self._closed = True
        for asked in list(self._asking):
            asked.cancel()
        self._network.leave()

    def _as_published(self, response: StateResponse, part: FetchPart) -> bytes | memoryview:
        """Judge a part by what it decodes to, and encode it as it was published.

        Raises:
            IntegrityError: it is another part, or none.
            ObjectNotFoundError: it is right, and this machine's zstd makes other bytes of it than the publisher's.
        """
        where = f"{self.source_id} {part.object_name}"
        data = response.part
        if data is not None and len(data) == part.size and hashlib.sha256(data).hexdigest() == part.sha256:
            return data
        decoded = decode_answered_part(response, where, part.decoded_size)
        check_stated(decoded, part.decoded_sha256, part.decoded_size, where)
        zstd = self._offer.manifest.zstd
        encoded = encode_state_part(decoded, part.encoding) if zstd is None else encode_state_part(decoded, part.encoding, zstd.level)
        if hashlib.sha256(encoded).hexdigest() != part.sha256:
            version = "" if zstd is None else f" {zstd.version}"
            raise ObjectNotFoundError(
                problem=f"the part is right, but was published by another zstd{version} than this machine has", where=where
            )
        return encoded

    async def _ask(self, part: FetchPart) -> StateResponse:
        question = (part.shard_id, self._offer.manifest.sync_hash, part.part_id.idx)
        try:
            return await self._network.peers.ask(self._host, question)
        except ObjectNotFoundError:
            raise
        except StatecastError as error:
            raise _transient(error, self.source_id) from None


def _transient(error: StatecastError, where: str) -> StoreError:
    """What a node does against its protocol costs a connection; a wrong part alone costs it the fetch's trust."""
    if isinstance(error, StoreError):
        return error
    return TransientStoreError(problem=error.problem, where=where)
