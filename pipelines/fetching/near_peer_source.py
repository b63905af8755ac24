"""A source in nearcore's own network: a stock node, or a seeding peer of ours, asked for state parts over one connection.

No port is listened on, so it works behind NAT. What comes is encoded as that node encodes, which need not be how the publisher did: the
decoded bytes are judged by the statement's digest, and handed out encoded as the manifest says.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass
from typing import Final

from pipelines.fetching.fetch_part import FetchPart
from pipelines.fetching.source import BUFFER_BYTES_MAX, Buffer, Cancellation, EpochOnOffer, SourceTraits, WantedObject
from pipelines.nearpeer.genesis import KNOWN_GENESIS
from pipelines.nearpeer.handshake import UNUSED_PORT, OwnSide
from pipelines.nearpeer.loop_thread import LoopThread
from pipelines.nearpeer.node_key import NodeKey
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.nearpeer.state_answer import decode_answered_part
from pipelines.nearpeer.state_client import StateClient
from pipelines.nearpeer.state_requester import OUTSTANDING_MAX, REQUESTS_PER_S
from schemas.errors import IntegrityError, ObjectNotFoundError, StatecastError, StoreError, TransientStoreError
from schemas.ids import ZERO_HASH
from schemas.nearcore.peer.peer_message import GenesisId
from schemas.nearcore.peer.state_response import StateResponse
from schemas.nearcore.state_part import encode_state_part

_TICK_S: Final = 0.25
"""How often a transfer that waits says that it is at work."""


@dataclass(frozen=True, slots=True)
class NearPeerSettings:
    """How a node is asked."""

    key: NodeKey
    """Who asks: a key of this process alone."""
    genesis: GenesisId
    """With the hash zero where it is not known: the node says it then."""
    requests_per_s: float = REQUESTS_PER_S


def near_peer_settings(chain_id: str, requests_per_s: float | None) -> NearPeerSettings:
    """Return how nodes of a chain are asked: by a key that nobody saw before, and where nothing is said, half as often as they answer."""
    genesis = GenesisId(chain_id, KNOWN_GENESIS.get(chain_id, ZERO_HASH))
    return NearPeerSettings(NodeKey.generate(), genesis, REQUESTS_PER_S if requests_per_s is None else requests_per_s)


class NearPeerSource:
    """See `pipelines.fetching.source.Source`."""

    def __init__(self, url: PeerUrl, offer: EpochOnOffer, parts: Mapping[str, FetchPart], settings: NearPeerSettings) -> None:
        """Open no connection yet.

        Args:
            parts: what each object must be, by name.
        """
        self._url, self._offer, self._parts = url, offer, parts
        self._own = OwnSide(settings.key, settings.genesis, UNUSED_PORT)
        self._requests_per_s = settings.requests_per_s
        self._loop = LoopThread()
        self._client: StateClient | None = None
        self._connecting = asyncio.Lock()
        self._closed = False

    @property
    def source_id(self) -> str:
        """The URL."""
        return str(self._url)

    @property
    def traits(self) -> SourceTraits:
        """State parts alone, whole, a few at once."""
        return SourceTraits(documents=False, ranges=False, connections_max=OUTSTANDING_MAX)

    def stream(self, wanted: WantedObject, start: int, cancelled: Cancellation) -> Iterator[Buffer]:
        """See `Source.stream`; empty buffers come while the node's limits are waited for."""
        part = self._parts.get(wanted.name)
        if part is None:
            raise ObjectNotFoundError(problem="a node of the network has state parts alone", where=wanted.name)
        asked = self._loop.submit(self._ask(part))
        try:
            while not cancelled.is_cancelled:
                try:
                    response = asked.result(_TICK_S)
                except NotYetError:
                    yield b""
                    continue
                encoded = memoryview(self._as_published(response, part))
                for offset in range(0, encoded.nbytes, BUFFER_BYTES_MAX):
                    yield encoded[offset : offset + BUFFER_BYTES_MAX]
                return
        finally:
            asked.cancel()

    def close(self) -> None:
        """See `Source.close`."""
        if self._closed:
            return
        self._closed = True
        self._loop.finish(self._leave())
        self._loop.close()

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
        if decoded.size != part.decoded_size or hashlib.sha256(decoded).hexdigest() != part.decoded_sha256:
            raise IntegrityError(problem="it does not decode to the statement's size and sha256", where=where)
        zstd = self._offer.manifest.zstd
        encoded = encode_state_part(decoded, part.encoding) if zstd is None else encode_state_part(decoded, part.encoding, zstd.level)
        if hashlib.sha256(encoded).hexdigest() != part.sha256:
            version = "" if zstd is None else f" {zstd.version}"
            raise ObjectNotFoundError(
                problem=f"the part is right, but was published by another zstd{version} than this machine has", where=where
            )
        return encoded

    async def _ask(self, part: FetchPart) -> StateResponse:
        client = await self._connected()
        try:
            return await client.ask(part.shard_id, self._offer.manifest.sync_hash, part.part_id.idx)
        except ObjectNotFoundError:
            raise
        except StatecastError as error:
            raise _transient(error, self.source_id) from None

    async def _connected(self) -> StateClient:
        async with self._connecting:
            if self._client is None or not self._client.is_open:
                if self._client is not None:
                    await self._client.close()
                    self._client = None
                address = await self._url.resolve()
                self._client = await StateClient.open(self._own, self._url.peer_id, address)
                self._client.requester.per_s = self._requests_per_s
            return self._client

    async def _leave(self) -> None:
        if self._client is not None:
            await self._client.close()


def _transient(error: StatecastError, where: str) -> StoreError:
    """What a node does against its protocol costs a connection; a wrong part alone costs it the fetch's trust."""
    if isinstance(error, StoreError):
        return error
    return TransientStoreError(problem=error.problem, where=where)
