"""A peer that asks one host for headers and parts: over one connection of tier 2 that it dials, with no port of its own.

Needs neither a public address nor a chain; works behind NAT. What comes is what the host says and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final, Self

from pipelines.nearpeer.announcing import host_holds
from pipelines.nearpeer.connection import STATE_BYTES_MAX, Connection, dial
from pipelines.nearpeer.edge_keeper import EdgeKeeper
from pipelines.nearpeer.handshake import Connected, DialerHandshake, OwnSide
from pipelines.nearpeer.routing import Fate, Router
from pipelines.nearpeer.state_requester import ANSWER_TIMEOUT_S, Question, StateRequester
from schemas.errors import ObjectNotFoundError, PeerProtocolError, StatecastError, TransientStoreError
from schemas.ids import CryptoHash
from schemas.nearcore.peer.identity import PeerAddress, PeerId, PeerInfo
from schemas.nearcore.peer.peer_message import (
    Disconnect,
    PeerMessage,
    PeersRequest,
    PeersResponse,
    Routed,
    RoutingTableUpdate,
    SyncSnapshotHosts,
    Tier,
    UpdateNonceRequest,
)
from schemas.nearcore.peer.routed_message import RoutedMessage, StateRequestAck, read_routed_body
from schemas.nearcore.peer.snapshot_host import SnapshotHost
from schemas.nearcore.peer.state_response import StateResponse

HOSTS_MAX: Final = 1_000
PEERS_MAX: Final = 1_000
_LOOK_S: Final = 0.25


class StateClient:
    """One host, connected."""

    def __init__(self, connection: Connection, connected: Connected, own: OwnSide, clock: Callable[[], float]) -> None:
        self._connection, self._clock = connection, clock
        self.connected, self.own = connected, own
        self.router = Router(own.key)
        """Of the key of this connection, which is its only one: nothing is passed on."""
        self.hosts: dict[PeerId, SnapshotHost] = {}
        """Announcements that the host passed on, its own among them, by peer; each is signed by the peer that it names."""
        self.peers: dict[PeerId, PeerInfo] = {}
        """Peers that the host named."""
        self.requester = StateRequester(str(connected.peer_id))
        self.on_other_answer: Callable[[Question, StateResponse], None] = lambda _question, _response: None
        """Gets an answer to a question that was asked another way than here, but of the same requester."""
        self.on_ack: Callable[[PeerId, StateRequestAck], None] = lambda _host, _ack: None
        """Gets what a host that was asked by a routed message says of it; the host has signed it."""
        self._keeper = EdgeKeeper(own.key, connected.peer_id, connected.edge, dialled=True, asked_at_s=int(clock()))
        self._waiting: dict[Question, asyncio.Future[StateResponse]] = {}
        self._heard_hosts = asyncio.Event()
        self._heard_peers = asyncio.Event()
        self._ended: StatecastError | None = None
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, own: OwnSide, target: PeerId, address: PeerAddress, clock: Callable[[], float] = time.time) -> Self:
        """Connect to a host and shake hands.

        Raises:
            PeerProtocolError: it refuses, or does not keep to the protocol.
            TransientStoreError: nobody answers in time.
        """
        handshake = DialerHandshake(own, Tier.T2, target, int(clock()) | 1)
        connection, connected = await dial(address, handshake, clock)
        return cls(connection, connected, handshake.own, clock)

    @property
    def is_open(self) -> bool:
        """Whether the host is still there."""
        return self._ended is None

    async def heard_hosts(self, timeout_s: float) -> None:
        """Wait until the host has told which peers serve which epochs, which it does unasked; not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._heard_hosts.wait()

    async def ask_for_peers(self, timeout_s: float) -> None:
        """Ask for the host's peers, and wait for them; not for long.

        Raises:
            TransientStoreError: the host is gone.
        """
        self._heard_peers.clear()
        await self._connection.send(PeersRequest())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._heard_peers.wait()

    async def ask(self, shard_id: int, sync_hash: CryptoHash, part_id: int | None, timeout_s: float = ANSWER_TIMEOUT_S) -> StateResponse:
        """Ask for a part or, without a part id, for a header, when the host's limits allow it; return its answer.

        Raises:
            TransientStoreError: no answer in time, or the host is gone.
            ObjectNotFoundError: the host says that it does not have it.
            PeerProtocolError: it did not keep to the protocol.
        """
        while (wait_s := self.requester.wait_s(self._clock())) > 0:
            self._check()
            await asyncio.sleep(min(wait_s, _LOOK_S))
        self._check()
        key = (shard_id, sync_hash, part_id)
        answer: asyncio.Future[StateResponse] = asyncio.get_running_loop().create_future()
        self._waiting[key] = answer
        try:
            await self._connection.send(self.requester.ask(shard_id, sync_hash, part_id, self._clock()))
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise self.requester.give_up(key, timeout_s, self._clock()) from None
        finally:
            self.requester.forget(key)
            self._waiting.pop(key, None)

    async def send(self, message: PeerMessage) -> None:
        """Send a message.

        Raises:
            TransientStoreError: the host is gone.
        """
        await self._connection.send(message)

    async def close(self) -> None:
        """Say good-bye and close."""
        self._reading.cancel()
        with contextlib.suppress(StatecastError, TimeoutError):
            async with asyncio.timeout(1):
                await self._connection.send(Disconnect())
        await self._connection.close()

    def _check(self) -> None:
        if self._ended is not None:
            raise self._ended

    async def _read(self) -> None:
        ended: StatecastError = TransientStoreError(problem="the host closed the connection", where=str(self.connected.peer_id))
        try:
            while (message := await self._connection.read_message(STATE_BYTES_MAX)) is not None:
                if isinstance(message, Disconnect):
                    break
                await self._heard(message)
                if (request := self._keeper.due(int(self._clock()))) is not None:
                    await self._connection.send(request)
        except StatecastError as error:
            ended = error
        self._ended = ended
        self._connection.abort()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ended)

    async def _heard(self, message: PeerMessage) -> None:
        match message:
            case StateResponse():
                self._answered(message)
            case SyncSnapshotHosts():
                for host in message.hosts:
                    if self._is_newer(host) and host_holds(host):
                        self.hosts[host.peer_id] = host
                self._heard_hosts.set()
            case PeersResponse():
                for peer in (*message.direct_peers, *message.peers):
                    if len(self.peers) < PEERS_MAX and peer.address is not None:
                        self.peers.setdefault(peer.peer_id, peer)
                self._heard_peers.set()
            case PeersRequest():
                # Nobody is named: a wrong address of the host itself would harm it.
                await self._connection.send(PeersResponse())
            case UpdateNonceRequest():
                await self._connection.send(self._keeper.answer(message, int(self._clock())))
            case RoutingTableUpdate():
                self._keeper.learn(message)
            case Routed():
                self._routed(message.message)
            case _:
                pass

    def _is_newer(self, host: SnapshotHost) -> bool:
        known = self.hosts.get(host.peer_id)
        return len(self.hosts) < HOSTS_MAX if known is None else host.epoch_height > known.epoch_height

    def _routed(self, message: RoutedMessage) -> None:
        fate = self.router.receive(message, self.connected.peer_id, self._clock())
        if fate is Fate.FORGED:
            raise PeerProtocolError(problem="a routed message's signature does not hold", where=self.requester.where)
        if fate is Fate.FOR_US and isinstance(ack := read_routed_body(message.body), StateRequestAck):
            self.on_ack(message.author, ack)

    def _answered(self, response: StateResponse) -> None:
        question = self.requester.answer(response)
        if question is None:
            return
        waiting = self._waiting.get(question)
        if waiting is None or waiting.done():
            self.on_other_answer(question, response)
            return
        if response.header is None and response.part is None:
            waiting.set_exception(ObjectNotFoundError(problem="the host can't make it", where=self.requester.where))
        else:
            waiting.set_result(response)
