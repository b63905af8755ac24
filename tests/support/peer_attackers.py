"""Peers that misbehave, each in one way, again and again; in a process of their own.

    python -m tests.support.peer_attackers PORT VICTIM_PORT COUNT

Each connects from an address of its own (127.0.n.1) under a new key, does its one thing, and begins anew. At the end of standard input they
go, and what was done is printed as JSON: how often each thing was begun, and how often it came to its end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from random import Random

from pipelines.nearpeer.connection import Connection
from pipelines.nearpeer.handshake import Connected, DialerHandshake, OwnSide, TryAgain
from pipelines.nearpeer.node_key import NodeKey
from pipelines.nearpeer.routing import Router
from schemas.errors import StatecastError
from schemas.ids import CryptoHash
from schemas.nearcore.peer.edge import PartialEdge
from schemas.nearcore.peer.identity import PeerAddress, PeerInfo
from schemas.nearcore.peer.peer_message import (
    DirectStateRequest,
    Disconnect,
    GenesisId,
    Handshake,
    PeersRequest,
    PeersResponse,
    Routed,
    RoutingTableUpdate,
    SyncSnapshotHosts,
    Tier,
    Unread,
    UpdateNonceRequest,
    write_message,
)
from schemas.nearcore.peer.routed_message import BODY_PING, StateRequest
from schemas.nearcore.peer.snapshot_host import SnapshotHost
from tests.support.peer_recordings import named_hash, named_key

LOOPBACK = "127.0.0.1"
CHAIN = GenesisId("localnet", named_hash("genesis"))
SYNC_HASH = named_hash("sync")
HOST = named_key("host").peer_id
BEGIN_S = 3.0
"""Within which all begin."""
HALF_S = 0.7
"""How long half a message is left so."""


class Attacker:
    """One that connects again and again, each time with a new key."""

    _numbers = count(1)

    def __init__(self, port: int, victim: PeerAddress) -> None:
        self.port, self.victim = port, victim
        number = next(self._numbers)
        self.ip = f"127.{number // 250 + 1}.{number % 250 + 1}.1"
        self.random = Random(number)
        self.opened: list[Connection] = []

    async def open(self) -> Connection:
        """Connect without a handshake; what was opened before is dropped."""
        for connection in self.opened:
            connection.abort()
        self.opened.clear()
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port, local_addr=(self.ip, 0))
        self.opened.append(Connection(reader, writer))
        return self.opened[-1]

    async def connect(self, key: NodeKey | None = None) -> tuple[Connection, Router]:
        """Connect and shake hands as a new peer."""
        connection = await self.open()
        key = key or NodeKey.generate()
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


Attack = Callable[[Attacker], Awaitable[None]]


async def say_nothing(one: Attacker) -> None:
    """Open a connection and leave it so."""
    connection = await one.open()
    await connection.read_frame(1 << 20, 5)


async def half_frame(one: Attacker) -> None:
    """Say the beginning of a frame, and no more for a while."""
    connection = await one.open()
    connection._writer.write(b"\xff\xff\0\0" + b"\x22" * 50)
    await asyncio.sleep(HALF_S)


async def huge_frame(one: Attacker) -> None:
    """Announce a frame of gigabytes, after a handshake."""
    connection, _ = await one.connect()
    connection._writer.write(b"\xff\xff\xff\xff" + bytes(1000))
    await connection.read_frame(1 << 20, 5)


async def half_a_large_frame(one: Attacker) -> None:
    """Begin a frame of 30 MB, and vanish within it."""
    connection, _ = await one.connect()
    connection._writer.write((30 << 20).to_bytes(4, "little") + b"\x3a" + bytes(100_000))
    await asyncio.sleep(HALF_S)


async def noise(one: Attacker) -> None:
    """Unknown messages, unknown fields, wrong lengths, nothing that can be read."""
    connection, _ = await one.connect()
    for number in range(100):
        data = one.random.choice((b"\xfa\x02\x03abc", b"\x08\x01", b"\x8a\x01\xff\xff\x03", one.random.randbytes(60), b""))
        await connection.send_pieces((data,))
        await connection.send(Unread(one.random.choice((12, 14, 15, 16, 25, 34, 36, 37, 99)), memoryview(one.random.randbytes(300))))
        if number % 10 == 0:
            await asyncio.sleep(0.05)


async def claim_another(one: Attacker) -> None:
    """Shake hands under the name of somebody else, with a nonce of another time, of another chain, for another peer."""
    connection = await one.open()
    key, now = NodeKey.generate(), int(time.time()) | 1
    shake = OwnSide(key, CHAIN, 24567).handshake(Tier.T2, 87, HOST, now)
    wrong: tuple[Handshake, ...] = (
        replace(shake, genesis=GenesisId("mainnet", named_hash("other"))),
        replace(shake, target=named_key("other").peer_id),
        replace(shake, protocol_version=3),
        replace(shake, sender=named_key("good").peer_id),
    )
    for sent in wrong:
        await connection.send(sent)
        await connection.read_frame(1 << 20, 5)


async def wrong_nonce(one: Attacker) -> None:
    """Shake hands with an even nonce."""
    connection = await one.open()
    await connection.send(OwnSide(NodeKey.generate(), CHAIN, 24567).handshake(Tier.T2, 87, HOST, int(time.time()) & ~1))
    await connection.read_frame(1 << 20, 5)


async def replay(one: Attacker) -> None:
    """Say the same routed question and the same handshake again."""
    connection, router = await one.connect()
    sent = write_message(Routed(router.make(HOST, StateRequest(3, SYNC_HASH, 0, one.victim).to_bytes(), time.time())))
    for number in range(200):
        await connection.send_pieces(sent)
        if number % 20 == 0:
            await asyncio.sleep(0.06)
    again = await one.open()
    shake = OwnSide(router.key, CHAIN, 24567).handshake(Tier.T2, 87, HOST, int(time.time()) - 100 | 1)
    for _ in range(3):
        await again.send(shake)
        await again.read_frame(1 << 20, 2)


async def flood(one: Attacker) -> None:
    """Routed messages to nobody, as fast as they are taken."""
    connection, router = await one.connect()
    for number in range(150):
        body = b"\x02" + number.to_bytes(4, "little")
        await connection.send(Routed(router.make(named_key(str(number)).peer_id if number % 8 == 0 else HOST, body, time.time())))
        if number % 10 == 0:
            await asyncio.sleep(0.001)


async def ping_and_renew(one: Attacker) -> None:
    """Pings, new nonces and requests for peers, of which each takes an answer."""
    connection, router = await one.connect()
    nonce = int(time.time()) | 1
    for number in range(60):
        body = bytes([BODY_PING]) + number.to_bytes(8, "little") + router.key.peer_id.to_bytes()
        await connection.send(Routed(router.make(HOST, body, time.time())))
        nonce += 2
        await connection.send(UpdateNonceRequest(PartialEdge(nonce, router.key.sign_edge(HOST, nonce))))
        await connection.send(PeersRequest())
        if number % 10 == 0:
            await asyncio.sleep(0.05)


async def tables(one: Attacker) -> None:
    """Whole routing tables, one after the other; lists of peers and hosts."""
    connection, router = await one.connect()
    shard_list = SnapshotHost(router.key.peer_id, SYNC_HASH, 9, tuple(range(500)), router.key.sign(bytes(32)))
    for number in range(6):
        key = named_key(str(number % 50))
        edge = router.key.edge_with(key.peer_id, int(time.time()) | 1, key.sign(bytes(32)))
        await connection.send(RoutingTableUpdate((edge,) * 3_000))
        await connection.send(SyncSnapshotHosts((shard_list,) * 200))
        await connection.send(PeersResponse((PeerInfo(key.peer_id, one.victim),) * 512))
        await asyncio.sleep(0.05)


async def forge(one: Attacker) -> None:
    """A routed message that its author did not sign."""
    connection, router = await one.connect()
    await connection.send(Routed(replace(router.make(HOST, b"\x02forged", time.time()), body=b"\x02other")))
    await connection.read_frame(1 << 20, 5)


async def read_nothing(one: Attacker) -> None:
    """Ask for parts and let them lie."""
    connection, _ = await one.connect()
    for _ in range(12):
        await connection.send(DirectStateRequest(3, SYNC_HASH, 1))
    await asyncio.sleep(1.5)


async def ask_for_nothing(one: Attacker) -> None:
    """Ask for what there is not, directly and routed."""
    connection, router = await one.connect()
    for number in range(100):
        sync_hash = CryptoHash(named_hash(str(number))) if number % 2 else SYNC_HASH
        await connection.send(DirectStateRequest(3, sync_hash, 7_000 + number))
        await connection.send(Routed(router.make(HOST, StateRequest(3, sync_hash, 7_000 + number, one.victim).to_bytes(), time.time())))
        await asyncio.sleep(0.005)


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


ATTACKS: tuple[Attack, ...] = (
    say_nothing,
    half_frame,
    huge_frame,
    half_a_large_frame,
    noise,
    claim_another,
    wrong_nonce,
    replay,
    flood,
    ping_and_renew,
    tables,
    forge,
    read_nothing,
    ask_for_nothing,
    vanish,
    send_elsewhere,
)


def name_of(attack: Attack) -> str:
    """Return what an attack is called."""
    return getattr(attack, "__name__", "")


async def attack_until(ended: asyncio.Event, port: int, victim: PeerAddress, number_of_attackers: int) -> dict[str, Counter[str]]:
    """Run attackers, each kind as many."""
    begun, done = Counter[str](), Counter[str]()

    async def again(attack: Attack) -> None:
        attacker = Attacker(port, victim)
        # All at once they would keep each other out.
        await asyncio.sleep(attacker.random.random() * BEGIN_S)
        try:
            while True:
                begun[name_of(attack)] += 1
                with suppress(StatecastError, OSError):
                    await attack(attacker)
                    done[name_of(attack)] += 1
                await asyncio.sleep(0.5 + attacker.random.random())
        finally:
            for connection in attacker.opened:
                connection.abort()

    attacks = [asyncio.create_task(again(ATTACKS[number % len(ATTACKS)])) for number in range(number_of_attackers)]
    await ended.wait()
    for task in attacks:
        task.cancel()
    await asyncio.gather(*attacks, return_exceptions=True)
    await asyncio.sleep(0)
    return {"begun": begun, "done": done}


def main() -> None:
    """Attack until standard input ends."""
    port, victim_port, number_of_attackers = map(int, sys.argv[1:])
    # All run on one machine: what attackers work themselves is not to be what slows others down.
    os.nice(5)

    async def work() -> None:
        ended, loop = asyncio.Event(), asyncio.get_running_loop()

        def wait() -> None:
            sys.stdin.read()
            loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=wait, daemon=True).start()
        victim = PeerAddress.of(LOOPBACK, victim_port)
        print(json.dumps(await attack_until(ended, port, victim, number_of_attackers)), flush=True)

    asyncio.run(work())


if __name__ == "__main__":
    main()
