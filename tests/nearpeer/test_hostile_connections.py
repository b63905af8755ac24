"""Dozens of connections that misbehave in every way at once: a good client is served as if it were alone, and nothing of them stays."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import psutil
import pytest

from pipelines.nearpeer.connection import Connection
from pipelines.nearpeer.handshake import Connected, DialerHandshake, OwnSide, TryAgain
from pipelines.nearpeer.node_key import NodeKey
from pipelines.nearpeer.request_policy import RequestLimits
from pipelines.nearpeer.routing import Router
from pipelines.nearpeer.state_client import StateClient
from pipelines.nearpeer.state_host import HostSettings
from pipelines.nearpeer.state_requester import StateRequester
from schemas.errors import StatecastError
from schemas.ids import CryptoHash
from schemas.nearcore.peer.identity import PeerAddress
from schemas.nearcore.peer.peer_message import DirectStateRequest, Disconnect, Routed, Tier
from schemas.nearcore.peer.routed_message import StateRequest
from tests.nearpeer.test_state_host import CHAIN, LOOPBACK, SYNC_HASH, WAIT_S, Hosting, hosting, run, side
from tests.support.peer_recordings import named_hash, named_key

HOST = named_key("host").peer_id
PARTS_PER_S = 25.0
LIMITS = RequestLimits(per_s_max=1_000)

Attack = Callable[["Attacker"], Awaitable[None]]


class Attacker:
    """One that connects again and again, each time from its own address and with a new key."""

    _numbers = count(1)

    def __init__(self, to: Hosting, victim: PeerAddress) -> None:
        self.to, self.victim = to, victim
        self.ip = f"127.0.{next(self._numbers) % 200 + 1}.1"
        self.opened: list[Connection] = []

    async def open(self) -> Connection:
        """Connect without a handshake."""
        reader, writer = await asyncio.open_connection(LOOPBACK, self.to.address.port, local_addr=(self.ip, 0))
        self.opened.append(Connection(reader, writer))
        return self.opened[-1]

    async def connect(self) -> tuple[Connection, Router]:
        """Connect and shake hands as a new peer."""
        connection = await self.open()
        key = NodeKey.generate()
        shake = DialerHandshake(OwnSide(key, CHAIN, 24567), Tier.T2, HOST, int(time.time()) | 1)
        await connection.send(shake.first())
        outcome: object = None
        while not isinstance(outcome, Connected):
            message = await connection.read_message(1 << 20, 5)
            if message is None:
                raise ConnectionError
            outcome = shake.receive(message, int(time.time()))
            if isinstance(outcome, TryAgain):
                await connection.send(outcome.message)
        return connection, Router(key)


async def half_frame(one: Attacker) -> None:
    """Say the beginning of a frame, and no more for a while."""
    connection = await one.open()
    connection._writer.write(b"\xff\xff\0\0" + b"\x22" * 50)
    await asyncio.sleep(0.7)
    connection.abort()


async def huge_frame(one: Attacker) -> None:
    """Announce a frame of gigabytes, after a handshake."""
    connection, _ = await one.connect()
    connection._writer.write(b"\xff\xff\xff\xff" + bytes(1000))
    await connection.read_frame(1 << 20, 5)
    connection.abort()


async def flood(one: Attacker) -> None:
    """Routed messages to nobody, as fast as they are taken."""
    connection, router = await one.connect()
    for number in range(150):
        body = b"\x02" + number.to_bytes(4, "little")
        await connection.send(Routed(router.make(named_key(str(number)).peer_id if number % 8 == 0 else HOST, body, time.time())))
        if number % 10 == 0:
            await asyncio.sleep(0.001)
    connection.abort()


async def forge(one: Attacker) -> None:
    """A routed message that its author did not sign."""
    connection, router = await one.connect()
    await connection.send(Routed(replace(router.make(HOST, b"\x02forged", time.time()), body=b"\x02other")))
    await connection.read_frame(1 << 20, 5)
    connection.abort()


async def read_nothing(one: Attacker) -> None:
    """Ask for parts and let them lie."""
    connection, _ = await one.connect()
    for _ in range(12):
        await connection.send(DirectStateRequest(3, SYNC_HASH, 1))
    await asyncio.sleep(1.5)
    connection.abort()


async def ask_for_nothing(one: Attacker) -> None:
    """Ask for what there is not, directly and routed."""
    connection, router = await one.connect()
    for number in range(100):
        sync_hash = CryptoHash(named_hash(str(number))) if number % 2 else SYNC_HASH
        await connection.send(DirectStateRequest(3, sync_hash, 7_000 + number))
        await connection.send(Routed(router.make(HOST, StateRequest(3, sync_hash, 7_000 + number, one.victim).to_bytes(), time.time())))
        await asyncio.sleep(0.005)
    connection.abort()


async def vanish(one: Attacker) -> None:
    """Ask for an answer somewhere else, and go."""
    connection, router = await one.connect()
    for part in (0, 1, None):
        await connection.send(Routed(router.make(HOST, StateRequest(3, SYNC_HASH, part, one.victim).to_bytes(), time.time())))
    await connection.close()


async def send_elsewhere(one: Attacker) -> None:
    """Pass on requests of authors whom nobody knows, who want their answers at somebody else's address."""
    connection, _ = await one.connect()
    for _ in range(50):
        author = Router(NodeKey.generate())
        await connection.send(Routed(author.make(HOST, StateRequest(3, SYNC_HASH, 0, one.victim).to_bytes(), time.time())))
        await asyncio.sleep(0.01)
    await connection.send(Disconnect())
    connection.abort()


ATTACKS: tuple[Attack, ...] = (half_frame, huge_frame, flood, forge, read_nothing, ask_for_nothing, vanish, send_elsewhere)


async def served_in(client: StateClient, seconds: float) -> int:
    """Ask for parts at an even pace; return how many came in time."""
    got, began_s = 0, time.monotonic()
    for number in count():
        wait_s = began_s + number / PARTS_PER_S - time.monotonic()
        if time.monotonic() - began_s >= seconds:
            return got
        await asyncio.sleep(max(0.0, wait_s))
        client.requester = StateRequester("host", per_s=10_000.0)
        got += bool((await client.ask(3, SYNC_HASH, number % 2, timeout_s=5)).part)
    raise AssertionError("unreachable")


@pytest.mark.slow
def test_a_good_client_is_served_beside_dozens_of_bad_ones(tmp_path: Path) -> None:
    """At four fifths of its rate alone at least; no descriptor, no task and no memory of the others stays, and no third party was dialled."""

    async def work() -> None:
        dialled: Counter[str] = Counter()

        def at_victim(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            dialled["victim"] += 1
            writer.transport.abort()

        victim = await asyncio.start_server(at_victim, LOOPBACK, 0)
        address = PeerAddress.of(LOOPBACK, victim.sockets[0].getsockname()[1])
        async with hosting(tmp_path, HostSettings(LIMITS)) as one:
            client = await one.client("good")
            alone = await served_in(client, 3.0)
            open_before = psutil.Process().num_fds()
            tasks_before = len(one.host._tasks)
            done: Counter[str] = Counter()
            attackers: list[Attacker] = []

            async def again(attack: Attack) -> None:
                attacker = Attacker(one, address)
                attackers.append(attacker)
                while True:
                    with suppress(StatecastError, OSError):
                        await attack(attacker)
                        done[getattr(attack, "__name__", "")] += 1
                    # They run in this very process: what they work themselves is not to be what slows the host down.
                    await asyncio.sleep(0.5)

            attacks = [asyncio.create_task(again(attack)) for attack in ATTACKS for _ in range(5)]
            beside = await served_in(client, 8.0)
            for task in attacks:
                task.cancel()
            await asyncio.gather(*attacks, return_exceptions=True)
            for connection in [connection for attacker in attackers for connection in attacker.opened]:
                connection.abort()
            assert set(done) == {getattr(attack, "__name__", "") for attack in ATTACKS}, done
            assert beside / 8 >= 0.8 * alone / 3, (alone, beside)
            assert dialled == {}

            async with asyncio.timeout(WAIT_S):
                while one.host.neighbours > 1 or len(one.host._tasks) > tasks_before or psutil.Process().num_fds() > open_before:
                    await asyncio.sleep(0.05)
            assert one.host._links == {} and len(one.host._routers[HOST]._rates) <= 1
            assert one.host.policy._queued_bytes == 0
            await client.close()
        victim.close()

    run(work)


def test_an_answer_that_can_t_be_sent_leaves_nothing(tmp_path: Path) -> None:
    """Of an author who is not connected and whose address is not dialled."""

    async def work() -> None:
        async with hosting(tmp_path, HostSettings(LIMITS)) as one:
            client = await one.client("neighbour")
            for number in range(3):
                author = Router(named_key(f"author {number}"))
                body = StateRequest(3, SYNC_HASH, 0, PeerAddress.of("192.0.2.1", 24567))
                await client._connection.send(Routed(author.make(HOST, body.to_bytes(), time.time())))
            await until(lambda: one.host.messages["answers failed"] == 3)
            assert one.host._links == {} and one.host.policy._queued_bytes == 0
            await client.close()

    run(work)


def test_a_neighbour_that_reads_nothing_holds_up_no_other(tmp_path: Path) -> None:
    """Messages for it are dropped once some wait, and the one who sends them is heard all the same."""

    async def work() -> None:
        async with hosting(tmp_path, HostSettings(LIMITS)) as one:
            attacker = Attacker(one, PeerAddress.of(LOOPBACK, 9))
            silent, router = await attacker.connect()
            silent._writer.transport.pause_reading()  # type: ignore[attr-defined]
            good = await one.client("good")
            body = b"\x63" + bytes(200_000)
            for number in range(90):
                message = Router(good_key()).make(router.key.peer_id, body + number.to_bytes(2, "little"), time.time())
                await good._connection.send(Routed(message))
            assert bytes((await good.ask(3, SYNC_HASH, 0, timeout_s=WAIT_S)).part or b"") == one.files.expected(0)
            assert one.host.messages["messages dropped: the neighbour does not read"] > 0
            silent.abort()
            await good.close()

    run(work)


def test_edges_of_peers_that_are_gone_are_not_kept_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer may come under any number of keys."""
    monkeypatch.setattr("pipelines.nearpeer.state_host.LAST_EDGES_MAX", 3)

    async def work() -> None:
        async with hosting(tmp_path, HostSettings(LIMITS)) as one:
            for number in range(5):
                client = await one.client(f"asker {number}")
                await client.close()
                await until(lambda: one.host.neighbours == 0)
            assert len(one.host._last_edges[HOST]) == 3 and named_key("asker 4").peer_id in one.host._last_edges[HOST]

    run(work)


def good_key() -> NodeKey:
    """Return the key of the client named good."""
    return side("good").key


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what comes soon."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)
