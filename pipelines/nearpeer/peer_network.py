"""Peers that were named, and hosts of state that are asked there or through them.

Each peer is connected under a key of its own: a peer with one connection a key lies on no way between others, and is not asked to pass
messages on. A host is asked directly, over the connection to it (fields 29 and 30). Where a port is listened on it is asked by routed messages
first, which go through any connected peer, and dials back with its answers; so hosts are asked too that can't be dialled from here. Where
that brings nothing, and the host is connected, it is asked directly again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pipelines.nearpeer.answer_listener import AnswerListener, AskedBy
from pipelines.nearpeer.handshake import UNUSED_PORT, OwnSide
from pipelines.nearpeer.node_key import NodeKey
from pipelines.nearpeer.peer_url import SCHEME, PeerUrl
from pipelines.nearpeer.state_client import StateClient
from pipelines.nearpeer.state_requester import ANSWER_TIMEOUT_S, PAUSE_S, REQUESTS_PER_S, Question, StateRequester, shown_question
from schemas.address import Address
from schemas.errors import ObjectNotFoundError, StatecastError, TransientStoreError
from schemas.ids import CryptoHash
from schemas.nearcore.peer.identity import PeerAddress, PeerId
from schemas.nearcore.peer.peer_message import GenesisId, Routed
from schemas.nearcore.peer.routed_message import AckKind, StateRequest, StateRequestAck
from schemas.nearcore.peer.snapshot_host import SnapshotHost
from schemas.nearcore.peer.state_response import StateResponse

HEARD_HOSTS_MAX: Final = 16
"""Most hosts that are asked though nobody named them: each announcement is a claim, and dead peers' outlive them."""
ROUTED_PAUSE_S: Final = 600.0
"""How long a host that can be asked directly is not asked through others, where that brought no answer."""
HOSTS_WAIT_S: Final = 3.0
"""How long a peer may take to say what it announces, which it does unasked after the handshake."""
_PEERS_WAIT_S: Final = 5.0
_LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Listening:
    """Where answers to routed questions are taken."""

    listen: Address
    """The host empty for all addresses of this machine; port 0 for one that is free."""
    public: PeerAddress | None = None
    """Where hosts reach it; None for the address listened on, and where that is every address, for what a peer sees."""


@dataclass(slots=True, eq=False)
class _Neighbour:
    """A named peer."""

    url: PeerUrl
    key: NodeKey = field(default_factory=NodeKey.generate)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    client: StateClient | None = None
    seen_as: PeerAddress | None = None
    """Where it sees this machine."""
    said: dict[PeerId, SnapshotHost] = field(default_factory=dict)
    """Announcements of its last connection."""

    def announced(self) -> dict[PeerId, SnapshotHost]:
        """Return the announcements that it passed on, by peer."""
        if self.client is not None and self.client.hosts:
            self.said = self.client.hosts
        return self.said


@dataclass(slots=True, eq=False)
class AskedHost:
    """A host of state."""

    peer_id: PeerId
    neighbour: _Neighbour | None
    """None where it was not named: it is asked through others alone."""
    requester: StateRequester
    waiting: dict[Question, asyncio.Future[StateResponse]] = field(default_factory=dict)
    """Routed questions without an answer."""
    in_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    routed_not_before_s: float = float("-inf")
    silent_by: dict[_Neighbour, float] = field(default_factory=dict)
    """When a question through a neighbour stayed without an answer."""

    def __str__(self) -> str:
        return f"{SCHEME}{self.peer_id}" if self.neighbour is None else str(self.neighbour.url)

    def resolve(self, question: Question, response: StateResponse) -> None:
        """Give an answer to the caller that waits for it."""
        waiting = self.waiting.get(question)
        if waiting is None or waiting.done():
            return
        if response.header is None and response.part is None:
            waiting.set_exception(ObjectNotFoundError(problem="the host can't make it", where=str(self)))
        else:
            waiting.set_result(response)


class PeerNetwork:
    """Belongs to one event loop."""

    def __init__(
        self,
        genesis: GenesisId,
        *,
        requests_per_s: float = REQUESTS_PER_S,
        pause_s: float = PAUSE_S,
        listening: Listening | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open no connection and no port yet.

        Args:
            genesis: with the hash zero where it is not known: a peer says it then.
            requests_per_s: to each host, whichever way.
            pause_s: how long a silent or busy host is left alone.
        """
        self._genesis, self._listening, self._clock = genesis, listening, clock
        self._per_s, self._pause_s = requests_per_s, pause_s
        self._neighbours: dict[PeerUrl, _Neighbour] = {}
        self._hosts: dict[PeerUrl | PeerId, AskedHost] = {}
        self._listener: AnswerListener | None = None
        self._port = UNUSED_PORT

    async def start(self) -> None:
        """Listen where that is wanted; before anything else.

        Raises:
            InvalidInputError: the address can't be listened on.
        """
        if self._listening is not None:
            listener = AnswerListener(self._answered, self._clock)
            port = await listener.start(self._listening.listen)
            self._listener = listener
            self._port = port if self._listening.public is None else self._listening.public.port

    def named(self, url: PeerUrl) -> AskedHost:
        """Return the host of a URL."""
        if (host := self._hosts.get(url)) is None:
            neighbour = self._neighbours[url] = _Neighbour(url)
            host = self._hosts[url] = AskedHost(url.peer_id, neighbour, self._requester(url.peer_id))
        return host

    def heard(self, announced_hash: CryptoHash) -> list[AskedHost]:
        """Return hosts that nobody named and whose announcement of an epoch was passed on; none where no port is listened on."""
        found: dict[PeerId, SnapshotHost] = {}
        for neighbour in self._neighbours.values() if self._listener is not None else ():
            found |= {peer: said for peer, said in neighbour.announced().items() if said.announced_hash == announced_hash and said.shards}
        named = {url.peer_id for url in self._neighbours}
        others = [peer for peer in found if peer not in named][:HEARD_HOSTS_MAX]
        return [self._hosts.setdefault(peer, AskedHost(peer, None, self._requester(peer))) for peer in others]

    def announced(self, host: AskedHost) -> SnapshotHost | None:
        """Return the newest announcement of a host that was passed on."""
        said = [one for neighbour in self._neighbours.values() if (one := neighbour.announced().get(host.peer_id)) is not None]
        return max(said, key=lambda one: one.epoch_height, default=None)

    async def connect(self, host: AskedHost) -> StateClient:
        """Return the connection to a named host, made where there is none.

        Raises:
            TransientStoreError, PeerProtocolError: it can't be reached, or refuses.
        """
        neighbour = host.neighbour
        if neighbour is None:
            raise TransientStoreError(problem="nothing says where the host listens", where=str(host))
        async with neighbour.lock:
            if neighbour.client is not None and neighbour.client.is_open:
                return neighbour.client
            await _close(neighbour)
            own = OwnSide(neighbour.key, self._genesis, self._port)
            client = await StateClient.open(own, neighbour.url.peer_id, await neighbour.url.resolve(), self._clock)
            client.requester = host.requester
            client.on_other_answer, client.on_ack = host.resolve, self._acknowledged
            neighbour.client = client
            await client.heard_hosts(HOSTS_WAIT_S)
            return client

    async def ask(self, host: AskedHost, question: Question, timeout_s: float = ANSWER_TIMEOUT_S) -> StateResponse:
        """Ask a host for a part or header, when its limits allow it; return its answer.

        Raises:
            TransientStoreError: no answer in time, or no way to the host, or it is busy.
            ObjectNotFoundError: the host says that it does not have it.
            PeerProtocolError: it does not keep to the protocol.
        """
        if self._listener is not None and (host.neighbour is None or self._clock() >= host.routed_not_before_s):
            try:
                return await self._ask_routed(self._listener, host, question, timeout_s)
            except TransientStoreError as error:
                if host.neighbour is None or error.retry_after_s:
                    raise
                host.routed_not_before_s = self._clock() + ROUTED_PAUSE_S
                try:
                    client = await self.connect(host)
                except StatecastError:
                    # It has no other way.
                    host.routed_not_before_s = float("-inf")
                    raise error from None
                return await client.ask(*question, timeout_s)
        return await (await self.connect(host)).ask(*question, timeout_s)

    async def leave(self, host: AskedHost) -> None:
        """Drop the connection to a host that is not asked any more; where a port is listened on, it may pass messages on."""
        if host.neighbour is not None and self._listener is None:
            await _close(host.neighbour)

    async def close(self) -> None:
        """Say good-bye to all."""
        await asyncio.gather(*map(_close, self._neighbours.values()))
        if self._listener is not None:
            await self._listener.close()

    def _requester(self, peer_id: PeerId) -> StateRequester:
        return StateRequester(str(peer_id), self._per_s, pause_s=self._pause_s)

    async def _ask_routed(self, listener: AnswerListener, host: AskedHost, question: Question, timeout_s: float) -> StateResponse:
        neighbour, client = await self._way(host)
        reply_to = await self._reply_to(neighbour, client)
        while (wait_s := host.requester.wait_s(self._clock())) > 0:
            await asyncio.sleep(min(wait_s, _LOOK_S))
        asked = listener.expect(client.own, host.peer_id)
        answer: asyncio.Future[StateResponse] = asyncio.get_running_loop().create_future()
        host.requester.ask(*question, self._clock())
        host.waiting[question] = answer
        asked.ask(self._clock())
        try:
            async with asyncio.timeout(timeout_s):
                # A stock host that is asked for two things before it has dialled dials twice, and loses one of them.
                async with host.in_turn:
                    body = StateRequest(*question, reply_to).to_bytes()
                    await client.send(Routed(client.router.make(host.peer_id, body, self._clock())))
                    if not asked.links:
                        await _until_linked(asked, answer)
                return await answer
        except TimeoutError:
            host.silent_by[neighbour] = self._clock()
            raise TransientStoreError(
                problem=f"no answer in {timeout_s:g} s to {shown_question(question)}, asked through {neighbour.url} to be sent to {reply_to}",
                where=str(host),
            ) from None
        finally:
            asked.ended()
            host.requester.forget(question)
            host.waiting.pop(question, None)
            answer.cancel()

    async def _way(self, host: AskedHost) -> tuple[_Neighbour, StateClient]:
        """Return the neighbour that a question goes through: the host itself, or the one that was not silent, or longest ago."""
        problems: list[str] = []

        def order(neighbour: _Neighbour) -> tuple[float, bool]:
            return host.silent_by.get(neighbour, float("-inf")), neighbour is not host.neighbour

        for neighbour in sorted(self._neighbours.values(), key=order):
            try:
                return neighbour, await self.connect(self._hosts[neighbour.url])
            except StatecastError as error:
                problems.append(f"{neighbour.url}: {error.problem}")
        raise TransientStoreError(problem=f"no peer passes a question on: {'; '.join(problems)}", where=str(host))

    async def _reply_to(self, neighbour: _Neighbour, client: StateClient) -> PeerAddress:
        assert self._listening is not None, "or nothing is asked so"
        if self._listening.public is not None:
            return self._listening.public
        if (own := _one_address(self._listening.listen.host)) is not None:
            return PeerAddress.of(own, self._port)
        if neighbour.seen_as is None:
            await client.ask_for_peers(_PEERS_WAIT_S)
            seen = client.peers.get(neighbour.key.peer_id)
            neighbour.seen_as = None if seen is None or seen.address is None else PeerAddress(seen.address.ip, self._port)
        if neighbour.seen_as is None:
            raise TransientStoreError(
                problem="the peer does not say at which address it sees this machine: give --near-address", where=str(neighbour.url)
            )
        return neighbour.seen_as

    def _answered(self, peer_id: PeerId, response: StateResponse) -> None:
        for host in self._of(peer_id):
            if (question := host.requester.answer(response)) is not None:
                host.resolve(question, response)

    def _acknowledged(self, peer_id: PeerId, ack: StateRequestAck) -> None:
        question = (ack.shard_id, ack.sync_hash, ack.part_id)
        for host in self._of(peer_id):
            waiting = host.waiting.get(question)
            if waiting is None or waiting.done():
                continue
            if ack.kind is AckKind.BUSY:
                waiting.set_exception(host.requester.told_busy(question, self._clock()))
            elif ack.kind is AckKind.ERROR:
                waiting.set_exception(TransientStoreError(problem="the host says that it could not answer", where=str(host)))

    def _of(self, peer_id: PeerId) -> list[AskedHost]:
        return [host for host in self._hosts.values() if host.peer_id == peer_id]


async def _until_linked(asked: AskedBy, answer: asyncio.Future[StateResponse]) -> None:
    """Wait until the host has dialled; or for its answer, which may come another way."""
    linked = asyncio.ensure_future(asked.linked.wait())
    try:
        await asyncio.wait((linked, answer), return_when=asyncio.FIRST_COMPLETED)
    finally:
        linked.cancel()


async def _close(neighbour: _Neighbour) -> None:
    if neighbour.client is not None:
        neighbour.announced()
        await neighbour.client.close()
        neighbour.client = None


def _one_address(host: str) -> str | None:
    """Return an address to listen on where it is one that others can be told."""
    return None if host in ("", "0.0.0.0", "::") else host
