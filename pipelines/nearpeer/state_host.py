"""A peer that announces epochs and answers requests for their state: connections, and what is said on them.

It has no chain: it sends no blocks, so no node asks it for any, and it counts as a peer anyway. What it serves lies verified on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

from pipelines.nearpeer.announcing import Announcements, HostedEpoch
from pipelines.nearpeer.answer_times import AnswerTimes
from pipelines.nearpeer.connection import REQUEST_BYTES_MAX, T2_BYTES_MAX, Connection, FilePiece, accept, dial
from pipelines.nearpeer.edge_keeper import EdgeKeeper
from pipelines.nearpeer.handshake import Connected, DialerHandshake, ListenerHandshake, OwnSide
from pipelines.nearpeer.handshake_room import HANDSHAKES_PER_ADDRESS_PER_MINUTE_MAX, HandshakeRoom
from pipelines.nearpeer.peer_graph import PeerGraph
from pipelines.nearpeer.request_policy import Refused, RequestLimits, RequestPolicy, Wanted
from pipelines.nearpeer.routing import CHECKED_PER_S_MAX, Fate, Rate, Router
from pipelines.stores.pace import Pace
from schemas.errors import PeerProtocolError, StatecastError, TransientStoreError
from schemas.ids import CryptoHash
from schemas.nearcore.peer.edge import PeerEdge
from schemas.nearcore.peer.identity import PeerAddress, PeerId, PeerInfo
from schemas.nearcore.peer.peer_message import (
    DirectStateRequest,
    Disconnect,
    PeerMessage,
    PeersRequest,
    PeersResponse,
    Routed,
    RoutingTableUpdate,
    SyncSnapshotHosts,
    Tier,
    Unread,
    UpdateNonceRequest,
    read_message,
    state_frame_head,
)
from schemas.nearcore.peer.routed_message import AckKind, Pong, RoutedMessage, StateRequest, StateRequestAck, read_ping, read_routed_body
from schemas.nearcore.peer.state_response import StateResponse

NEIGHBOURS_MAX: Final = 400
"""Connections of tier 2, at once."""
PEERS_INTERVAL_S: Final = 60.0
"""How often a neighbour is sent something, so that it keeps us as a peer that is alive."""
T3_IDLE_S: Final = 15.0
"""How long a connection of tier 3 stays after its last answer."""
REDIAL_S_MAX: Final = 60.0
LAST_EDGES_MAX: Final = 4_096
"""Neighbours that are gone whose last edge is remembered."""
WAITING_BYTES_MAX: Final = 4 << 20
"""Bytes of messages that wait for a neighbour to read; more are dropped, so that it holds up no other."""
MESSAGES_PER_S_MAX: Final = 200
"""Messages of a neighbour that are looked at a second; more are waited for."""
ROUTING_TABLE: Final = 7
READ_FIELDS: Final = frozenset({ROUTING_TABLE, 8, 10, 17, 18, 29, 30})
"""Messages that a host has a use for; the others are not decoded."""
SMALL_TABLE_BYTES: Final = 1_024
"""Up to which a routing table is decoded at once: the answer to a new nonce. A whole one takes seconds of a core."""
TABLE_BYTES_PER_S_MAX: Final = 1 << 20
"""Of larger ones, all neighbours together: they wait their turn, one of each neighbour."""
TABLE_BURST_S: Final = 30.0
TABLES_BYTES_MAX: Final = 64 << 20
"""Of those that wait; more are dropped."""
NONCES_PER_MINUTE_MAX: Final = 6
"""Of a neighbour: each takes two signatures, and nodes ask once in ten minutes."""
PEERS_PER_MINUTE_MAX: Final = 60
NEIGHBOURS_PER_ADDRESS_MAX: Final = 16
"""A network of 64 bits counts as one address of IPv6."""
NOTES_PER_S_MAX: Final = 10
"""Connections that ended, in the log; all are counted."""
EDGES_INTERVAL_S: Final = 1.0
"""How often neighbours are told of new connections, all at once."""
EDGES_SLICE: Final = 500
"""Edges that are taken up before others have their turn."""


@dataclass(frozen=True, slots=True)
class StateObject:
    """Bytes of a header or part in a file, in the form of a response."""

    file: Path
    size: int
    offset: int
    """A dumped header's first byte is not sent."""
    version: int
    """Of the response."""


class HostedState(Protocol):
    """Where what is announced lies."""

    def find(self, epoch: HostedEpoch, shard_id: int, part_id: int | None) -> StateObject | None:
        """Return a part or, without a part id, a header; None where there is no such part. Looks at no disk for what never was."""
        ...


@dataclass(frozen=True, slots=True)
class HostSettings:
    """How a host behaves."""

    limits: RequestLimits = field(default_factory=RequestLimits)
    upload_bytes_per_s: int | None = None
    upload_bytes_per_s_each: int | None = None
    """To one asker."""
    peers: tuple[tuple[PeerId, PeerAddress], ...] = ()
    """Nodes that are dialled, and dialled again when they are gone."""
    handshakes_per_address_per_minute_max: int = HANDSHAKES_PER_ADDRESS_PER_MINUTE_MAX
    neighbours_per_address_max: int = NEIGHBOURS_PER_ADDRESS_MAX


@dataclass(slots=True, eq=False)
class _Neighbour:
    """A connection of tier 2."""

    connection: Connection
    own: OwnSide
    peer_id: PeerId
    listen_port: int
    keeper: EdgeKeeper
    nonces: Rate = field(default_factory=lambda: Rate(NONCES_PER_MINUTE_MAX, 60.0))
    peers: Rate = field(default_factory=lambda: Rate(PEERS_PER_MINUTE_MAX, 60.0))


@dataclass(slots=True, eq=False)
class _AnswerLink:
    """A connection of tier 3, over which parts go to one asker."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    connection: Connection | None = None
    closing: asyncio.TimerHandle | None = None
    answers: int = 0
    """That are being sent, or wait."""


class StateHost:
    """Listens on one port for each key.

    Args:
        sides: a key, its port and the chain; one, or two that take epochs in turn.
        state: where what is announced lies.
        note: gets what happens, as a sentence and facts; for logs.
        sent: gets what was asked for and the sync hash of each header and part that went out whole.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        sides: Sequence[OwnSide],
        state: HostedState,
        settings: HostSettings,
        note: Callable[[str, dict[str, object]], None],
        *,
        sent: Callable[[Wanted, CryptoHash], None] = lambda _wanted, _sync_hash: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sent = sent
        self._sides, self._state, self._settings, self._clock, self._note = list(sides), state, settings, clock, note
        self._announcements = Announcements([side.key for side in sides])
        self.policy = RequestPolicy(settings.limits, settings.upload_bytes_per_s)
        self.messages: Counter[str] = Counter()
        """Connections and messages by what became of them."""
        self.bytes_sent = 0
        self.answer_times = AnswerTimes()
        self._pace = Pace(settings.upload_bytes_per_s) if settings.upload_bytes_per_s else None
        self._paces: dict[PeerId, Pace] = {}
        shared = Rate(CHECKED_PER_S_MAX)
        self._routers = {side.key.peer_id: Router(side.key, shared) for side in sides}
        self._neighbours: dict[tuple[PeerId, PeerId], _Neighbour] = {}
        self._last_edges: dict[PeerId, dict[PeerId, PeerEdge]] = {side.key.peer_id: {} for side in sides}
        self._links: dict[tuple[PeerId, PeerId], _AnswerLink] = {}
        self._graphs = {side.key.peer_id: PeerGraph() for side in sides}
        self._untold: dict[PeerId, list[PeerEdge]] = {side.key.peer_id: [] for side in sides}
        """Edges of each key that its neighbours have not heard of."""
        self._handshaking = HandshakeRoom(settings.handshakes_per_address_per_minute_max)
        self._tables: dict[_Neighbour, memoryview] = {}
        """Routing tables that wait to be decoded, the first first."""
        self._table_came = asyncio.Event()
        self._notes = Rate(NOTES_PER_S_MAX)
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def neighbours(self) -> int:
        """How many nodes are connected."""
        return len(self._neighbours)

    async def start(self, addresses: Sequence[tuple[str, int]]) -> list[int]:
        """Listen, one address for each side, and dial the named peers; return the ports.

        Raises:
            OSError: an address is taken.
        """
        ports = []
        for number, (side, (host, port)) in enumerate(zip(tuple(self._sides), addresses, strict=True)):
            server = await asyncio.start_server(self._accepting(number), host or "0.0.0.0", port, backlog=128)
            self._servers.append(server)
            ports.append(int(server.sockets[0].getsockname()[1]))
            if not side.listen_port:
                self._sides[number] = replace(side, listen_port=ports[-1])
        for side in self._sides:
            for peer_id, address in self._settings.peers:
                self._spawn(self._keep_dialled(side, peer_id, address))
        self._spawn(self._forget_idle())
        self._spawn(self._keep_telling_edges())
        self._spawn(self._read_tables())
        return ports

    async def close(self) -> None:
        """Say good-bye and close everything."""
        for server in self._servers:
            server.close()
        for neighbour in list(self._neighbours.values()):
            with contextlib.suppress(StatecastError, TimeoutError):
                async with asyncio.timeout(1):
                    await neighbour.connection.send(Disconnect())
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self._links.values():
            if link.connection is not None:
                link.connection.abort()
        # Aborted connections are closed when the loop comes round.
        await asyncio.sleep(0)

    async def announce(self, epoch: HostedEpoch) -> bool:
        """Announce an epoch to all peers that are connected to its key; False where it can't be any more."""
        said = self._announcements.announce(epoch)
        if said is None:
            return False
        for neighbour in [one for one in self._neighbours.values() if one.own.key.peer_id == said.peer_id]:
            self._send_soon(neighbour, SyncSnapshotHosts((said,)))
        return True

    def _accepting(self, number: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._spawn(self._accepted(self._sides[number], reader, writer))

        return accepted

    async def _accepted(self, side: OwnSide, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            connection = Connection(reader, writer)
        except (StatecastError, TypeError, ValueError):
            writer.transport.abort()
            return
        with self._handshaking.place(connection.address.ip, self._clock(), connection.abort) as is_free:
            if not is_free:
                self.messages["connection refused: too many handshakes"] += 1
                connection.abort()
                return
            try:
                connected = await accept(connection, ListenerHandshake(side, self._last_edges[side.key.peer_id]), self._clock)
            except StatecastError as error:
                self._failed(connection, "handshake", error)
                return
            except asyncio.CancelledError:
                connection.abort()
                raise
        await self._serve(side, connection, connected, dialled=False)

    async def _keep_dialled(self, side: OwnSide, peer_id: PeerId, address: PeerAddress) -> None:
        pause_s = 1.0
        while True:
            if (side.key.peer_id, peer_id) not in self._neighbours:
                try:
                    handshake = DialerHandshake(side, Tier.T2, peer_id, int(self._clock()) | 1)
                    connection, connected = await dial(address, handshake, self._clock)
                except StatecastError as error:
                    self.messages["dial failed"] += 1
                    self._note("a peer can't be reached", {"peer": str(peer_id), "address": str(address), "problem": error.problem})
                else:
                    pause_s = 1.0
                    await self._serve(side, connection, connected, dialled=True)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, REDIAL_S_MAX)

    async def _serve(self, side: OwnSide, connection: Connection, connected: Connected, *, dialled: bool) -> None:
        """Talk to a neighbour until it is gone."""
        key = side.key.peer_id, connected.peer_id
        if key in self._neighbours or self._is_full(connection):
            self.messages["connection refused: connected already, or too many"] += 1
            connection.abort()
            return
        keeper = EdgeKeeper(side.key, connected.peer_id, connected.edge, dialled, int(self._clock()))
        neighbour = _Neighbour(connection, side, connected.peer_id, connected.listen_port, keeper)
        self._neighbours[key] = neighbour
        self.messages["neighbours connected"] += 1
        alive = self._spawn(self._keep_alive(neighbour))
        try:
            # Said although it be nothing, as nodes do: a peer that waits for it goes on.
            await connection.send(SyncSnapshotHosts(self._announcements.of_key(side.key)))
            await connection.send(RoutingTableUpdate(self._own_edges(side.key.peer_id)))
            self._untold[side.key.peer_id].append(keeper.edge)
            await self._listen(neighbour)
        except StatecastError as error:
            self._failed(connection, str(connected.peer_id), error)
        finally:
            alive.cancel()
            del self._neighbours[key]
            self._remember_edge(side.key.peer_id, connected.peer_id, keeper.edge)
            self._routers[side.key.peer_id].forget(connected.peer_id)
            connection.abort()

    def _is_full(self, connection: Connection) -> bool:
        address = connection.address.ip.packed[:8]
        same = sum(one.connection.address.ip.packed[:8] == address for one in self._neighbours.values())
        return len(self._neighbours) >= NEIGHBOURS_MAX or same >= self._settings.neighbours_per_address_max

    async def _listen(self, neighbour: _Neighbour) -> None:
        rate, connection = Rate(MESSAGES_PER_S_MAX), neighbour.connection
        while (frame := await connection.read_frame(T2_BYTES_MAX)) is not None:
            while not rate.takes(self._clock()):
                # Its own queue fills up, and then it waits.
                await asyncio.sleep(0.1)
            try:
                message = read_message(frame, READ_FIELDS if len(frame) <= SMALL_TABLE_BYTES else READ_FIELDS - {ROUTING_TABLE})
            except PeerProtocolError:
                # nearcore passes over what it can't read: a newer node may have more to say.
                self.messages["frames that are no message"] += 1
                continue
            if isinstance(message, Disconnect):
                return
            if isinstance(message, Unread) and message.field == ROUTING_TABLE:
                self._take_table(neighbour, memoryview(frame))
            await self._heard(neighbour, message)
            # What came at once may be many messages: each neighbour has its turn after one.
            await asyncio.sleep(0)

    def _take_table(self, neighbour: _Neighbour, frame: memoryview) -> None:
        if neighbour in self._tables or sum(map(len, self._tables.values())) + len(frame) > TABLES_BYTES_MAX:
            self.messages["routing tables dropped"] += 1
            return
        self._tables[neighbour] = frame
        self._table_came.set()

    async def _read_tables(self) -> None:
        """Decode routing tables, or what is made to look like them, so that nobody else waits for it."""
        pace = Pace(TABLE_BYTES_PER_S_MAX, burst_s=TABLE_BURST_S)
        while True:
            await self._table_came.wait()
            neighbour = next(iter(self._tables))
            frame = self._tables[neighbour]
            await asyncio.sleep(pace.book(len(frame)))
            with contextlib.suppress(PeerProtocolError):
                table = await asyncio.to_thread(read_message, frame)
                if isinstance(table, RoutingTableUpdate):
                    await self._learn_edges(neighbour, table)
            del self._tables[neighbour]
            if not self._tables:
                self._table_came.clear()

    def _own_edges(self, own: PeerId) -> tuple[PeerEdge, ...]:
        return tuple(neighbour.keeper.edge for (key, _), neighbour in self._neighbours.items() if key == own)

    async def _keep_telling_edges(self) -> None:
        while True:
            await asyncio.sleep(EDGES_INTERVAL_S)
            for own in self._untold:
                self._tell_edges(own)

    def _tell_edges(self, own: PeerId) -> None:
        """Tell neighbours of new connections with others: nodes tell so too, other hosts would not."""
        told, self._untold[own] = RoutingTableUpdate(tuple(self._untold[own])), []
        for neighbour in [one for one in self._neighbours.values() if told.edges and one.own.key.peer_id == own]:
            self._send_soon(neighbour, told)

    async def _learn_edges(self, neighbour: _Neighbour, update: RoutingTableUpdate) -> None:
        before = neighbour.keeper.edge
        neighbour.keeper.learn(update)
        self._note_renewal(neighbour, before)
        graph = self._graphs[neighbour.own.key.peer_id]
        for start in range(0, len(update.edges), EDGES_SLICE):
            graph.learn(update.edges[start : start + EDGES_SLICE], self._clock())
            await asyncio.sleep(0)

    def _note_renewal(self, neighbour: _Neighbour, before: PeerEdge) -> None:
        if neighbour.keeper.edge is not before:
            self._untold[neighbour.own.key.peer_id].append(neighbour.keeper.edge)

    def _remember_edge(self, own: PeerId, peer_id: PeerId, edge: PeerEdge) -> None:
        edges = self._last_edges[own]
        edges.pop(peer_id, None)
        edges[peer_id] = edge
        if len(edges) > LAST_EDGES_MAX:
            # The one that went first: its nonce is of another time by now, or will be refused as the last one would.
            del edges[next(iter(edges))]

    async def _keep_alive(self, neighbour: _Neighbour) -> None:
        with contextlib.suppress(StatecastError):
            while True:
                await asyncio.sleep(PEERS_INTERVAL_S)
                await neighbour.connection.send(PeersRequest(32, 16))
                if (request := neighbour.keeper.due(int(self._clock()))) is not None:
                    await neighbour.connection.send(request)

    async def _heard(self, neighbour: _Neighbour, message: PeerMessage) -> None:
        match message:
            case PeersRequest() if neighbour.peers.takes(self._clock()):
                # Its own address as it is seen here: a node that does not know it can't be answered by anybody.
                asker = PeerInfo(neighbour.peer_id, PeerAddress(neighbour.connection.address.ip, neighbour.listen_port))
                await neighbour.connection.send(PeersResponse((), (asker,)))
            case UpdateNonceRequest() if neighbour.nonces.takes(self._clock()):
                before = neighbour.keeper.edge
                await neighbour.connection.send(neighbour.keeper.answer(message, int(self._clock())))
                self._note_renewal(neighbour, before)
            case RoutingTableUpdate():
                await self._learn_edges(neighbour, message)
            case DirectStateRequest():
                wanted = Wanted(neighbour.peer_id, message.shard_id, message.part_id, None, neighbour.connection.address.ip)
                self._answer(neighbour, wanted, message.sync_hash, None)
            case Routed():
                await self._route(neighbour, message.message)
            case _:
                pass

    async def _route(self, neighbour: _Neighbour, message: RoutedMessage) -> None:
        router = self._routers[neighbour.own.key.peer_id]
        match router.receive(message, neighbour.peer_id, self._clock()):
            case Fate.FOR_US:
                try:
                    await self._routed_to_us(neighbour, message)
                except PeerProtocolError:
                    # Its author has written it so: the peer that passed it on did right.
                    self.messages["routed messages that can't be read"] += 1
            case Fate.PASS_ON:
                self._pass_on(neighbour, message)
            case Fate.FORGED:
                raise PeerProtocolError(problem="a routed message's signature does not hold", where=str(neighbour.peer_id))
            case Fate.DROPPED:
                self.messages["routed messages dropped"] += 1

    async def _routed_to_us(self, neighbour: _Neighbour, message: RoutedMessage) -> None:
        if (nonce := read_ping(message.body)) is not None:
            pong = Pong(nonce, neighbour.own.key.peer_id).to_bytes()
            answer = self._routers[neighbour.own.key.peer_id].make(CryptoHash(message.digest()), pong, self._clock())
            await neighbour.connection.send(Routed(answer))
            return
        body = read_routed_body(message.body)
        if isinstance(body, StateRequest):
            direct = self._neighbours.get((neighbour.own.key.peer_id, message.author))
            ip = None if direct is None else direct.connection.address.ip
            wanted = Wanted(message.author, body.shard_id, body.part_id, body.reply_to, ip)
            self._answer(neighbour, wanted, body.sync_hash, body)

    def _pass_on(self, neighbour: _Neighbour, message: RoutedMessage) -> None:
        own = neighbour.own.key.peer_id
        target = message.target
        if isinstance(target, CryptoHash):
            back = self._routers[own].way_back(target, self._clock())
            next_hop = None if back is None else self._neighbours.get((own, back))
        else:
            next_hop = self._neighbours.get((own, target)) or self._towards(own, target)
        if next_hop is None or next_hop is neighbour:
            self.messages["routed messages without a way"] += 1
            return
        # Before it: a peer that gets it may want to know its author.
        self._tell_edges(own)
        self._send_soon(next_hop, Routed(message.one_hop_on()))

    def _towards(self, own: PeerId, target: PeerId) -> _Neighbour | None:
        connected = [peer for key, peer in self._neighbours if key == own]
        hop = self._graphs[own].next_hop(target, connected, self._clock())
        return None if hop is None else self._neighbours.get((own, hop))

    def _send_soon(self, neighbour: _Neighbour, message: PeerMessage) -> None:
        """Send a message without waiting for the neighbour, or drop it where too much waits already."""
        if neighbour.connection.bytes_waiting > WAITING_BYTES_MAX:
            self.messages["messages dropped: the neighbour does not read"] += 1
            return

        async def send() -> None:
            with contextlib.suppress(StatecastError):
                await neighbour.connection.send(message)

        self._spawn(send())

    def _answer(self, neighbour: _Neighbour, wanted: Wanted, sync_hash: CryptoHash, routed: StateRequest | None) -> None:
        side = neighbour.own
        epoch = self._announcements.hosted(side.key, sync_hash, wanted.shard_id)
        found: StateObject | None = None

        def size_of(hosted: HostedEpoch, asked: Wanted) -> int | None:
            nonlocal found
            found = self._state.find(hosted, asked.shard_id, asked.part_id)
            return None if found is None else found.size

        decision = self.policy.decide(wanted, epoch, size_of, self._clock())
        if isinstance(decision, Refused):
            # Never an empty answer: a node takes it for a header. Asked directly, silence is what a busy host says.
            if routed is not None and (decision.busy or decision.is_coming):
                self._acknowledge(neighbour, wanted, sync_hash, AckKind.BUSY if decision.busy else AckKind.WILL_RESPOND)
            return
        assert found is not None, "its size was asked"
        self._spawn(self._send_state(neighbour, wanted, sync_hash, found))

    def _acknowledge(self, neighbour: _Neighbour, wanted: Wanted, sync_hash: CryptoHash, kind: AckKind) -> None:
        own = neighbour.own.key.peer_id
        ack = StateRequestAck(wanted.shard_id, sync_hash, wanted.part_id, kind)
        message = self._routers[own].make(wanted.asker, ack.to_bytes(), self._clock())
        self._send_soon(self._neighbours.get((own, wanted.asker), neighbour), Routed(message))

    async def _send_state(self, neighbour: _Neighbour, wanted: Wanted, sync_hash: CryptoHash, found: StateObject) -> None:
        began_s = self._clock()
        facts: dict[str, object] = {"peer": str(wanted.asker), "shard": wanted.shard_id, "part": wanted.part_id, "bytes": found.size}
        try:
            pieces = _frame(wanted, sync_hash, found)
            if wanted.reply_to is None:
                await neighbour.connection.send_pieces(pieces, self._waits(wanted.asker))
            else:
                self._acknowledge(neighbour, wanted, sync_hash, AckKind.WILL_RESPOND)
                await self._send_to_author(neighbour, wanted, wanted.reply_to, pieces)
        except (StatecastError, OSError) as error:
            self.messages["answers failed"] += 1
            if wanted.reply_to is not None:
                # It asks another host at once, and does not wait for what will not come.
                self._acknowledge(neighbour, wanted, sync_hash, AckKind.ERROR)
            self._note("an answer failed", {**facts, "problem": getattr(error, "problem", str(error))})
        else:
            self.messages["parts sent" if wanted.part_id is not None else "headers sent"] += 1
            self.bytes_sent += found.size
            self._sent(wanted, sync_hash)
            seconds = self._clock() - began_s
            self.answer_times.add(seconds)
            self._note("answered", {**facts, "seconds": round(seconds, 3)})
        finally:
            self.policy.ended(wanted, sync_hash, found.size)

    async def _send_to_author(
        self, neighbour: _Neighbour, wanted: Wanted, address: PeerAddress, pieces: tuple[bytes | FilePiece, ...]
    ) -> None:
        """Send an answer over tier 3, or where the asker can't be dialled and is a neighbour, where it is connected already."""
        own = neighbour.own.key.peer_id
        link = self._links.setdefault((own, wanted.asker), _AnswerLink())
        link.answers += 1
        try:
            # One dial at a time, and all answers through it: a node that is dialled twice at once loses one of them.
            async with link.lock:
                await self._send_over(link, neighbour, wanted, address, pieces)
        finally:
            link.answers -= 1
            if not link.answers and link.connection is None and self._links.get((own, wanted.asker)) is link:
                del self._links[own, wanted.asker]

    async def _send_over(
        self, link: _AnswerLink, neighbour: _Neighbour, wanted: Wanted, address: PeerAddress, pieces: tuple[bytes | FilePiece, ...]
    ) -> None:
        own, waits = neighbour.own.key.peer_id, self._waits(wanted.asker)
        direct = self._neighbours.get((own, wanted.asker))
        if link.closing is not None:
            link.closing.cancel()
            link.closing = None
        if link.connection is None:
            known = direct is not None or wanted.asker in self._last_edges[own] or self._graphs[own].knows(wanted.asker, self._clock())
            refused = self.policy.may_dial(wanted.asker, address, known=known, now_s=self._clock())
            if refused is None:
                try:
                    link.connection = await self._dial_author(neighbour.own, wanted.asker, address)
                except StatecastError as error:
                    self.messages["dials back failed"] += 1
                    refused = Refused(error.problem)
                finally:
                    self.policy.dial_ended(wanted.asker)
            if refused is not None and direct is None:
                raise TransientStoreError(problem=f"the asker can't be dialled: {refused.reason}", where=str(address))
        connection = link.connection
        try:
            if connection is None:
                assert direct is not None, "or it was refused"
                await direct.connection.send_pieces(pieces, waits)
            else:
                await connection.send_pieces(pieces, waits)
        except TransientStoreError:
            link.connection = None
            raise
        finally:
            if link.connection is not None:
                link.closing = asyncio.get_running_loop().call_later(T3_IDLE_S, self._close_link, own, wanted.asker)

    async def _dial_author(self, side: OwnSide, author: PeerId, address: PeerAddress) -> Connection:
        # A nonce that no edge of tier 2 ever had: those signatures are public, and this one shows that the author itself is there.
        last = self._last_edges[side.key.peer_id].get(author)
        neighbour = self._neighbours.get((side.key.peer_id, author))
        used = max((edge.nonce for edge in (last, neighbour.keeper.edge if neighbour else None) if edge is not None), default=0)
        nonce = int(self._clock()) | 1
        if nonce <= used:
            nonce = used + 2 if used % 2 else used + 1
        connection, _ = await dial(address, DialerHandshake(side, Tier.T3, author, nonce), self._clock)
        self._spawn(self._drain(side.key.peer_id, author, connection))
        return connection

    async def _drain(self, own: PeerId, author: PeerId, connection: Connection) -> None:
        """Read and drop what an asker says on tier 3, until it closes."""
        try:
            with contextlib.suppress(StatecastError):
                while await connection.read_frame(REQUEST_BYTES_MAX) is not None:
                    pass
        finally:
            link = self._links.get((own, author))
            if link is not None and link.connection is connection:
                link.connection = None
            connection.abort()

    def _close_link(self, own: PeerId, author: PeerId) -> None:
        link = self._links.pop((own, author), None)
        if link is not None and link.connection is not None:
            self._spawn(link.connection.close())

    def _waits(self, asker: PeerId) -> Callable[[int], float]:
        each = self._settings.upload_bytes_per_s_each
        paces = [self._pace] if self._pace is not None else []
        if each is not None:
            paces.append(self._paces.setdefault(asker, Pace(each)))
        return lambda size: max((pace.book(size) for pace in paces), default=0.0)

    async def _forget_idle(self) -> None:
        while True:
            await asyncio.sleep(60)
            self.policy.forget_idle(self._clock())
            for asker in [asker for asker in self._paces if all(asker != peer for _, peer in self._neighbours)]:
                del self._paces[asker]

    def _failed(self, connection: Connection, whom: str, error: StatecastError) -> None:
        self.messages[f"connection ended: {error.kind}"] += 1
        if self._notes.takes(self._clock()):
            self._note("a connection ended", {"peer": whom, "address": str(connection.address), "problem": error.problem})
        connection.abort()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _frame(wanted: Wanted, sync_hash: CryptoHash, found: StateObject) -> tuple[bytes | FilePiece, ...]:
    header = memoryview(b"") if wanted.part_id is None else None
    before, after = StateResponse(wanted.shard_id, sync_hash, found.version, header, wanted.part_id).around(found.size)
    head = state_frame_head(len(before) + found.size + len(after)) + before
    return head, FilePiece(found.file, found.size, found.offset), after
