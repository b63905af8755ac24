"""Two peers of ours over loopback: what is announced is found, asked for and served, directly and by routed messages."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.nearpeer.announcing import Announcements, HostedEpoch, host_holds
from pipelines.nearpeer.connection import STATE_BYTES_MAX, Connection, accept, dial
from pipelines.nearpeer.handshake import DialerHandshake, ListenerHandshake, OwnSide
from pipelines.nearpeer.request_policy import RequestLimits
from pipelines.nearpeer.routing import Router
from pipelines.nearpeer.state_client import StateClient
from pipelines.nearpeer.state_host import HostSettings, StateHost, StateObject
from schemas.errors import PeerProtocolError, TransientStoreError
from schemas.nearcore.peer.identity import PeerAddress
from schemas.nearcore.peer.peer_message import GenesisId, PeerMessage, Routed, RoutingTableUpdate, Tier, read_message
from schemas.nearcore.peer.routed_message import (
    BODY_PING,
    BODY_PONG,
    AckKind,
    Pong,
    RoutedMessage,
    StateRequest,
    StateRequestAck,
    read_routed_body,
)
from schemas.nearcore.peer.state_response import RESPONSE_V3, RESPONSE_V4, StateResponse
from tests.support.peer_recordings import named_hash, named_key

CHAIN = GenesisId("localnet", named_hash("genesis"))
SYNC_HASH = named_hash("sync")
EPOCH = HostedEpoch(7, named_hash("two before"), SYNC_HASH, (0, 3))
LOOPBACK = "127.0.0.1"
WAIT_S = 20.0
"""Longest wait for what comes in milliseconds."""


@dataclass
class Files:
    """Two parts of one shard, and a header, as they lie in a data folder."""

    folder: Path
    version: int = RESPONSE_V4
    asked: list[tuple[int, int | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for part in range(2):
            payload = bytes([part]) * (300_000 + part)
            tagged = b"\x01" + len(payload).to_bytes(4, "little") + payload
            (self.folder / f"part-{part}").write_bytes(tagged if self.version == RESPONSE_V4 else payload)
        (self.folder / "header").write_bytes(b"\x01the header")

    def find(self, epoch: HostedEpoch, shard_id: int, part_id: int | None) -> StateObject | None:
        """Find a part; there are two of shard 3."""
        self.asked.append((shard_id, part_id))
        name = "header" if part_id is None else f"part-{part_id}"
        file = self.folder / name
        if shard_id != 3 or not file.exists():
            return None
        offset = int(part_id is None)
        return StateObject(file, file.stat().st_size - offset, offset, self.version)

    def expected(self, part_id: int | None) -> bytes:
        """Return what the other side must get."""
        return (self.folder / ("header" if part_id is None else f"part-{part_id}")).read_bytes()[int(part_id is None) :]


def side(name: str, version: int = 87, port: int = 24567) -> OwnSide:
    """Return a peer of a key made of a name."""
    return OwnSide(named_key(name), CHAIN, port, newest_version=version)


@dataclass
class Hosting:
    """A host that runs."""

    host: StateHost
    files: Files
    address: PeerAddress
    notes: list[str]

    async def client(self, name: str = "asker", version: int = 87) -> StateClient:
        """Connect another peer to it."""
        return await StateClient.open(side(name, version), named_key("host").peer_id, self.address)


@asynccontextmanager
async def hosting(
    folder: Path, settings: HostSettings | None = None, version: int = RESPONSE_V4, *, name: str = "host"
) -> AsyncIterator[Hosting]:
    """Run a host that has announced the epoch."""
    notes: list[str] = []
    files = Files(folder, version)
    host = StateHost([side(name)], files, settings or HostSettings(), lambda what, _: notes.append(what))
    (port,) = await host.start([(LOOPBACK, 0)])
    assert await host.announce(EPOCH)
    try:
        yield Hosting(host, files, PeerAddress.of(LOOPBACK, port), notes)
    finally:
        await host.close()


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine, not for ever."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work()

    asyncio.run(bounded())


def test_what_is_announced_is_heard_and_served(tmp_path: Path) -> None:
    """Header and parts, asked for directly by peers of old and new versions: the bytes of the files."""

    async def work() -> None:
        async with hosting(tmp_path) as one:
            for version in (74, 87, 1005):
                client = await one.client(f"asker-{version}", version)
                await client.heard_hosts(WAIT_S)
                host = client.hosts[named_key("host").peer_id]
                assert (host.announced_hash, host.epoch_height, host.shards) == (EPOCH.announced_hash, 7, (0, 3)) and host_holds(host)
                header = await client.ask(3, SYNC_HASH, None)
                assert header.header is not None and bytes(header.header) == one.files.expected(None)
                parts = await asyncio.gather(*(client.ask(3, SYNC_HASH, part) for part in range(2)))
                assert [bytes(part.part or b"") for part in parts] == [one.files.expected(0), one.files.expected(1)]
                await client.close()
            assert one.host.policy.counted == {"answered": 9}

    run(work)


def test_an_epoch_before_compressed_parts_is_answered_in_the_old_form(tmp_path: Path) -> None:
    """A bare PartialState in version 3, whose header says that more can be made."""

    async def work() -> None:
        async with hosting(tmp_path, version=RESPONSE_V3) as one:
            client = await one.client()
            header, part = await client.ask(3, SYNC_HASH, None), await client.ask(3, SYNC_HASH, 1)
            assert (header.version, header.can_generate, bytes(header.header or b"")) == (RESPONSE_V3, True, one.files.expected(None))
            assert (part.part_id, bytes(part.part or b"")) == (1, one.files.expected(1))
            await client.close()

    run(work)


def test_what_was_not_announced_is_not_looked_for(tmp_path: Path) -> None:
    """Another epoch, another shard, a part that is not: silence, and no file is opened for the first two."""

    async def work() -> None:
        async with hosting(tmp_path) as one:
            client = await one.client()
            for shard, sync_hash, part in ((3, named_hash("other"), 0), (5, SYNC_HASH, 0), (3, SYNC_HASH, 9)):
                with pytest.raises(TransientStoreError, match="no answer"):
                    await client.ask(shard, sync_hash, part, timeout_s=0.2)
                client.requester = replace_requester(client)
            assert one.files.asked == [(3, 9)]
            assert one.host.policy.counted == {"not announced": 2, "no such part": 1}
            await client.close()

    run(work)


def replace_requester(client: StateClient) -> Any:
    """Return a requester that does not pause."""
    return type(client.requester)(client.requester.where)


class Requester:
    """The requester's side of a stock node, as far as routed requests go: a neighbour that is dialled back on tier 3."""

    def __init__(self, name: str, listens: bool = True) -> None:
        self.own = side(name)
        self.listens = listens
        self.router = Router(self.own.key)
        self.acks: list[StateRequestAck] = []
        self.answers: asyncio.Queue[tuple[str, StateResponse]] = asyncio.Queue()
        self.pongs: asyncio.Queue[RoutedMessage] = asyncio.Queue()
        self.dialled = 0
        self.answering: list[Connection] = []

    async def connect(self, to: Hosting, name: str = "host") -> None:
        """Listen for tier 3, and connect on tier 2."""
        self.server = await asyncio.start_server(self._accepted, LOOPBACK, 0)
        self.reply_to = PeerAddress.of(LOOPBACK, self.server.sockets[0].getsockname()[1])
        if not self.listens:
            self.server.close()
            await self.server.wait_closed()
        handshake = DialerHandshake(self.own, Tier.T2, named_key(name).peer_id, int(time.time()) | 1)
        self.connection, _ = await dial(to.address, handshake, time.time)
        self.reading = asyncio.create_task(self._read(self.connection, "tier 2"))

    async def ask(self, part_id: int | None) -> None:
        """Send a routed request."""
        body = StateRequest(3, SYNC_HASH, part_id, self.reply_to)
        message = self.router.make(named_key("host").peer_id, body.to_bytes(), time.time())
        await self.connection.send(Routed(message))

    async def answer(self) -> tuple[str, StateResponse]:
        """Return the next answer, and where it came."""
        async with asyncio.timeout(WAIT_S):
            return await self.answers.get()

    async def close(self) -> None:
        """Go."""
        self.reading.cancel()
        await self.connection.close()
        self.server.close()
        for connection in self.answering:
            await connection.close()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        self.answering.append(connection)
        self.dialled += 1
        await accept(connection, ListenerHandshake(self.own, {}, frozenset([named_key("host").peer_id])), time.time)
        await self._read(connection, "tier 3")

    async def _read(self, connection: Connection, where: str) -> None:
        message: PeerMessage | None
        while (message := await connection.read_message(STATE_BYTES_MAX)) is not None:
            if isinstance(message, StateResponse):
                await self.answers.put((where, message))
            elif isinstance(message, Routed) and isinstance(ack := read_routed_body(message.message.body), StateRequestAck):
                self.acks.append(ack)
            elif isinstance(message, Routed) and message.message.body[0] == BODY_PONG:
                await self.pongs.put(message.message)


OPEN = HostSettings(RequestLimits(private_addresses=True))


def test_a_routed_request_is_acknowledged_and_answered_by_a_dial_back(tmp_path: Path) -> None:
    """One connection of tier 3 for all answers, shaken hands on with a nonce of its own."""

    async def work() -> None:
        async with hosting(tmp_path, OPEN) as one:
            node = Requester("node")
            await node.connect(one)
            for part_id in (None, 0, 1):
                await node.ask(part_id)
            answers = [await node.answer() for _ in range(3)]
            assert {where for where, _ in answers} == {"tier 3"}
            got = {answer.part_id: bytes(answer.header or answer.part or b"") for _, answer in answers}
            assert got == {part_id: one.files.expected(part_id) for part_id in (None, 0, 1)}
            assert node.dialled == 1
            assert {(ack.part_id, ack.kind) for ack in node.acks} == {(part, AckKind.WILL_RESPOND) for part in (None, 0, 1)}
            await node.close()

    run(work)


def test_a_neighbour_that_can_t_be_dialled_is_answered_where_it_is(tmp_path: Path) -> None:
    """Behind NAT, or where private addresses are not dialled, which is the default."""

    async def work() -> None:
        async with hosting(tmp_path, OPEN) as one:
            node = Requester("node", listens=False)
            await node.connect(one)
            await node.ask(1)
            where, answer = await node.answer()
            assert (where, bytes(answer.part or b"")) == ("tier 2", one.files.expected(1))
            assert one.host.messages["dials back failed"] == 1
            await node.close()
        async with hosting(tmp_path) as one:
            node = Requester("node")
            await node.connect(one)
            await node.ask(0)
            where, answer = await node.answer()
            assert (where, node.dialled, answer.part_id) == ("tier 2", 0, 0)
            assert one.host.policy.counted["not dialled: address not public"] == 1
            await node.close()

    run(work)


def test_too_many_requests_are_answered_by_busy(tmp_path: Path) -> None:
    """And those within the limit are served."""

    async def work() -> None:
        settings = HostSettings(RequestLimits(private_addresses=True, under_way_max=2, per_s_max=0))
        async with hosting(tmp_path, settings) as one:
            node = Requester("node")
            await node.connect(one)
            for part_id in (0, 1, None):
                await node.ask(part_id)
                # The same question again at once would be a copy.
            assert {(await node.answer())[1].part_id for _ in range(2)} == {0, 1}
            async with asyncio.timeout(WAIT_S):
                while AckKind.BUSY not in {ack.kind for ack in node.acks}:
                    await asyncio.sleep(0.01)
            assert one.host.policy.counted == {"answered": 2, "too many requests": 1}
            await node.close()

    run(work)


def test_a_host_dials_the_nodes_it_is_told_and_again_when_they_are_gone(tmp_path: Path) -> None:
    """It says its announcement on each connection."""

    async def work() -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()
        node = side("node")

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = Connection(reader, writer)
            await accept(connection, ListenerHandshake(node, {}), time.time)
            message = await connection.read_message(STATE_BYTES_MAX)
            await heard.put(type(message).__name__)
            connection.abort()

        server = await asyncio.start_server(accepted, LOOPBACK, 0)
        address = PeerAddress.of(LOOPBACK, server.sockets[0].getsockname()[1])
        async with hosting(tmp_path, HostSettings(peers=((node.key.peer_id, address),))):
            async with asyncio.timeout(WAIT_S):
                assert [await heard.get(), await heard.get()] == ["SyncSnapshotHosts"] * 2
        server.close()

    run(work)


def test_wrong_frames_end_their_connection_and_nothing_else(tmp_path: Path) -> None:
    """A frame too long, half a frame, a forged message, no handshake, a wrong chain: the neighbour beside them is served."""

    async def raw(one: Hosting, data: bytes) -> None:
        reader, writer = await asyncio.open_connection(LOOPBACK, one.address.port)
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(WAIT_S):
            await reader.read()
        writer.close()

    async def work() -> None:
        async with hosting(tmp_path) as one:
            good = await one.client("good")
            for data in (b"\xff\xff\xff\x7f", b"\x10\0\0\0abc", b"GET / HTTP/1.1\r\n\r\n", b"\x02\0\0\0\x22\x00", b""):
                await raw(one, data)
            bad = await one.client("bad")
            forged = replace(Router(named_key("bad")).make(named_key("host").peer_id, b"\x00", time.time()), body=b"\x01")
            await bad._connection.send(Routed(forged))
            async with asyncio.timeout(WAIT_S):
                while bad.is_open:
                    await asyncio.sleep(0.01)
            stranger = replace(side("stranger"), genesis=GenesisId("mainnet", named_hash("another")))
            with pytest.raises(PeerProtocolError, match="chain localnet"):
                await StateClient.open(stranger, named_key("host").peer_id, one.address)
            with pytest.raises(PeerProtocolError, match="another peer lives"):
                await StateClient.open(side("asker"), named_key("nobody").peer_id, one.address)
            assert bytes((await good.ask(3, SYNC_HASH, 0)).part or b"") == one.files.expected(0)
            assert one.host.neighbours == 1
            await good.close()
            await bad.close()

    run(work)


def test_what_its_author_wrote_wrong_is_not_the_fault_of_who_passes_it_on(tmp_path: Path) -> None:
    """A request, an ack and a ping that are cut, signed by somebody else; a frame that is no message."""

    async def work() -> None:
        async with hosting(tmp_path) as one:
            client = await one.client()
            for kind in (14, 27, 32, 34):
                await client.send(Routed(Router(named_key("author")).make(named_key("host").peer_id, bytes([kind, 0]), time.time())))
            await client._connection.send_pieces((b"\x22\x05cut",))
            assert bytes((await client.ask(3, SYNC_HASH, 0)).part or b"") == one.files.expected(0)
            assert one.host.messages["routed messages that can't be read"] == 4
            assert one.host.messages["frames that are no message"] == 1
            await client.close()

    run(work)


def test_messages_go_on_over_hops_and_their_answers_come_back(tmp_path: Path) -> None:
    """By the edges that neighbours tell; a peer that nobody knows of has no way."""

    async def work() -> None:
        async with AsyncExitStack() as stack:
            far = await stack.enter_async_context(hosting(tmp_path))
            middle = await stack.enter_async_context(hosting(tmp_path, dialling(far, "host"), name="middle"))
            near = await stack.enter_async_context(hosting(tmp_path, dialling(middle, "middle"), name="near"))
            async with asyncio.timeout(WAIT_S):
                while not len(near.host._graphs[named_key("near").peer_id]):
                    await asyncio.sleep(0.01)
            node = Requester("node")
            await node.connect(near, "near")
            ping = bytes([BODY_PING]) + (77).to_bytes(8, "little") + node.own.key.peer_id.to_bytes()
            for target in ("nobody", "host"):
                await node.connection.send(Routed(node.router.make(named_key(target).peer_id, ping, time.time())))
            async with asyncio.timeout(WAIT_S):
                pong = await node.pongs.get()
            assert (pong.author, pong.hops) == (named_key("host").peer_id, 2)
            assert pong.body == Pong(77, named_key("host").peer_id).to_bytes()
            assert near.host.messages["routed messages without a way"] == 1
            await node.close()

    def dialling(to: Hosting, name: str) -> HostSettings:
        return HostSettings(peers=((named_key(name).peer_id, to.address),))

    run(work)


def test_a_routing_table_is_decoded_where_nobody_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole one takes seconds; a second one of a neighbour that waits is dropped, and what it asks meanwhile is answered."""
    threads: dict[str, int] = {}

    def note(frame: bytes | memoryview, *fields: frozenset[int]) -> PeerMessage:
        message = read_message(frame, *fields)
        threads[type(message).__name__] = threading.get_ident()
        return message

    monkeypatch.setattr("pipelines.nearpeer.state_host.read_message", note)

    async def work() -> None:
        async with hosting(tmp_path) as one:
            client = await one.client()
            edge = named_key("a").edge_with(named_key("b").peer_id, 1, named_key("b").sign_edge(named_key("a").peer_id, 1))
            for _ in range(2):
                await client.send(RoutingTableUpdate((edge,) * 1_000))
            await client.ask(3, SYNC_HASH, 0)
            async with asyncio.timeout(WAIT_S):
                while "RoutingTableUpdate" not in threads:
                    await asyncio.sleep(0.01)
            own = threading.get_ident()
            assert threads["RoutingTableUpdate"] != own and threads["DirectStateRequest"] == own
            assert one.host.messages["routing tables dropped"] == 1
            await client.close()

    run(work)


def test_one_address_has_so_many_neighbours(tmp_path: Path) -> None:
    """The next one is refused until one has gone; keys cost nothing."""

    async def work() -> None:
        async with hosting(tmp_path, HostSettings(neighbours_per_address_max=2)) as one:
            clients = [await one.client(f"asker {number}") for number in range(3)]
            async with asyncio.timeout(WAIT_S):
                while clients[2].is_open:
                    await asyncio.sleep(0.01)
            assert (clients[0].is_open, clients[1].is_open, one.host.neighbours) == (True, True, 2)
            await clients[0].close()
            async with asyncio.timeout(WAIT_S):
                while one.host.neighbours > 1:
                    await asyncio.sleep(0.01)
            clients.append(await one.client("asker 3"))
            assert bytes((await clients[3].ask(3, SYNC_HASH, 0)).part or b"") == one.files.expected(0)
            for client in clients[1:]:
                await client.close()

    run(work)


def test_two_keys_take_epochs_in_turn() -> None:
    """Each keeps its announcement until the epoch after the next; what was announced is not announced again, nor taken back."""
    keys = [named_key("even"), named_key("odd")]
    said = Announcements(keys)
    epochs = [replace(EPOCH, epoch_height=height, sync_hash=named_hash(str(height))) for height in (6, 7, 8)]
    first, second, third = (said.announce(epoch) for epoch in epochs)
    assert first is not None and second is not None and third is not None
    assert (first.peer_id, second.peer_id, third.peer_id) == (keys[0].peer_id, keys[1].peer_id, keys[0].peer_id)
    assert said.announce(epochs[0]) is None and said.announce(epochs[2]) is None
    assert said.hosted(keys[1], named_hash("7"), 3) == epochs[1]
    assert said.hosted(keys[0], named_hash("7"), 3) is None, "each key answers for what it announced"
    assert said.hosted(keys[0], named_hash("6"), 3) is None
    assert said.announce(replace(EPOCH, epoch_height=9, shards=())) is None
