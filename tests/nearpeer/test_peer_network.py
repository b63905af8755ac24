"""Hosts that are asked through others: three peers of ours over loopback, of which the middle one passes messages on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.nearpeer.connection import STATE_BYTES_MAX, Connection, accept, dial
from pipelines.nearpeer.handshake import DialerHandshake, ListenerHandshake
from pipelines.nearpeer.node_key import NodeKey
from pipelines.nearpeer.peer_network import AskedHost, Listening, PeerNetwork
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.nearpeer.request_policy import RequestLimits
from pipelines.nearpeer.state_host import HostSettings, StateHost
from schemas.address import Address
from schemas.errors import InvalidInputError, PeerProtocolError, StatecastError, TransientStoreError
from schemas.nearcore.peer.identity import PeerAddress
from schemas.nearcore.peer.peer_message import Routed, SyncSnapshotHosts, Tier
from schemas.nearcore.peer.routed_message import StateRequest, read_routed_body
from tests.nearpeer.test_state_host import CHAIN, EPOCH, LOOPBACK, OPEN, SYNC_HASH, WAIT_S, Files, Hosting, hosting, run, side
from tests.support.peer_recordings import named_key

HOST, TRANSIT = named_key("host").peer_id, named_key("transit").peer_id
ANY_PORT = Listening(Address(LOOPBACK, 0))
NOWHERE = Listening(Address(LOOPBACK, 0), PeerAddress.of(LOOPBACK, 9))
"""Of which hosts are told an address at which nobody listens."""


@dataclass
class Three:
    """A host, a transit that it dials, and who asks."""

    host: Hosting
    transit: StateHost
    transit_url: PeerUrl
    network: PeerNetwork

    @property
    def unreachable(self) -> AskedHost:
        """The host, named with an address at which nobody listens."""
        return self.network.named(PeerUrl(HOST, Address(LOOPBACK, 9)))

    @property
    def reachable(self) -> AskedHost:
        """The host, named as it is."""
        return self.network.named(PeerUrl(HOST, Address(LOOPBACK, self.host.address.port)))


@asynccontextmanager
async def three(folder: Path, listening: Listening | None = ANY_PORT, limits: RequestLimits = OPEN.limits) -> AsyncIterator[Three]:
    """Run them; the host has announced the epoch, and is connected with the transit."""
    transit = StateHost([side("transit")], Files(folder), OPEN, lambda *_: None)
    (port,) = await transit.start([(LOOPBACK, 0)])
    settings = HostSettings(limits, peers=((TRANSIT, PeerAddress.of(LOOPBACK, port)),))
    network = PeerNetwork(CHAIN, requests_per_s=1000, pause_s=0.2, listening=listening)
    await network.start()
    try:
        async with hosting(folder, settings) as one:
            await until(lambda: transit.neighbours == 1)
            url = PeerUrl(TRANSIT, Address(LOOPBACK, port))
            network.named(url)
            yield Three(one, transit, url, network)
    finally:
        await network.close()
        await transit.close()


async def until(condition: object) -> None:
    """Wait for what comes soon."""
    assert callable(condition)
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


async def got(of: Three, host: AskedHost, part_id: int | None, timeout_s: float = WAIT_S) -> bytes:
    """Ask for a part or header."""
    response = await of.network.ask(host, (3, SYNC_HASH, part_id), timeout_s)
    data = response.header if part_id is None else response.part
    return bytes(data or b"")


def test_a_host_that_can_t_be_dialled_is_asked_through_another_and_dials_back(tmp_path: Path) -> None:
    """Header and parts, over one connection of tier 3; the asker has none to it, and the host knows it by the edge that the transit tells."""

    async def work() -> None:
        async with three(tmp_path) as all_three:
            host = all_three.unreachable
            assert await got(all_three, host, None) == all_three.host.files.expected(None)
            parts = await asyncio.gather(*(got(all_three, host, part) for part in range(2)))
            assert parts == [all_three.host.files.expected(0), all_three.host.files.expected(1)]
            assert all_three.host.host.neighbours == 1 and len(all_three.host.host._links) == 1
            assert all_three.host.host.policy.counted == {"answered": 3}
            assert host.waiting == {} and not host.requester._open

    run(work)


def test_a_host_that_was_only_heard_of_is_asked(tmp_path: Path) -> None:
    """By the announcement that a connected peer passes on; without a port, hosts that nobody named are left alone."""

    async def work() -> None:
        for listening, count in ((ANY_PORT, 1), (None, 0)):
            async with three(tmp_path, listening) as all_three:
                said = all_three.host.host._announcements.of_key(named_key("host"))
                await all_three.network.connect(all_three.network.named(all_three.transit_url))
                for neighbour in all_three.transit._neighbours.values():
                    await neighbour.connection.send(SyncSnapshotHosts(said))
                if not count:
                    await asyncio.sleep(0.05)
                else:
                    await until(lambda network=all_three.network: network.heard(EPOCH.announced_hash))
                heard = all_three.network.heard(EPOCH.announced_hash)
                assert [str(host) for host in heard] == [f"near://{HOST}"] * count
                for host in heard:
                    assert all_three.network.announced(host) == said[0]
                    assert await got(all_three, host, 1) == all_three.host.files.expected(1)

    run(work)


def test_where_the_dial_back_fails_answers_come_over_tier_2(tmp_path: Path) -> None:
    """From a connected host at once, as stock hosts are not known to do; and of one that says nothing it is asked directly."""

    async def work() -> None:
        async with three(tmp_path, NOWHERE) as all_three:
            host = all_three.reachable
            assert await got(all_three, host, 0) == all_three.host.files.expected(0)
            assert all_three.host.host.messages["dials back failed"] == 1
            all_three.host.host._routed_to_us = nothing  # type: ignore[method-assign, assignment]
            assert await got(all_three, host, 1, timeout_s=0.3) == all_three.host.files.expected(1)
            began_s = time.monotonic()
            assert await got(all_three, host, None, timeout_s=WAIT_S) == all_three.host.files.expected(None)
            assert time.monotonic() - began_s < WAIT_S / 2, "what brought nothing is not tried each time"

    async def nothing(*_: object) -> None:
        """Say nothing to routed questions."""

    run(work)


def test_a_host_that_can_t_answer_says_so(tmp_path: Path) -> None:
    """The asker's port is closed and they are not connected; or the host has enough to do, and is then left alone for a while."""

    async def work() -> None:
        async with three(tmp_path, NOWHERE) as all_three:
            with pytest.raises(TransientStoreError, match="could not answer"):
                await got(all_three, all_three.unreachable, 0)
        busy = RequestLimits(private_addresses=True, under_way_max=1, per_s_max=0)
        async with three(tmp_path, limits=busy) as all_three:
            await got(all_three, all_three.unreachable, 0)
            with pytest.raises(TransientStoreError, match="busy") as error:
                await got(all_three, all_three.unreachable, 1)
            assert error.value.retry_after_s == 0.2

    run(work)


def test_no_way_to_a_host_is_told(tmp_path: Path) -> None:
    """Nobody is connected; and a port that is taken is an error of usage."""

    async def work() -> None:
        network = PeerNetwork(CHAIN, listening=ANY_PORT)
        await network.start()
        assert network._listener is not None and network._listener._server is not None
        taken = network._listener._server.sockets[0].getsockname()[1]
        with pytest.raises(TransientStoreError, match="can't connect"):
            await network.ask(network.named(PeerUrl(HOST, Address(LOOPBACK, 9))), (3, SYNC_HASH, 0), 1)
        other = PeerNetwork(CHAIN, listening=Listening(Address(LOOPBACK, taken)))
        with pytest.raises(InvalidInputError, match="can't listen"):
            await other.start()
        await other.close()
        await network.close()

    run(work)


def test_one_question_goes_out_before_a_host_has_dialled(tmp_path: Path) -> None:
    """A stock host that is asked for two things at once dials twice, and loses one of the answers."""

    async def work() -> None:
        asked: list[StateRequest] = []

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = Connection(reader, writer)
            await accept(connection, ListenerHandshake(side("host"), {}), time.time)
            await connection.send(SyncSnapshotHosts(()))
            while (message := await connection.read_message(STATE_BYTES_MAX)) is not None:
                if isinstance(message, Routed) and isinstance(body := read_routed_body(message.message.body), StateRequest):
                    asked.append(body)
                    authors.append(message.message.author)
            connection.abort()

        authors: list[object] = []
        server = await asyncio.start_server(accepted, LOOPBACK, 0)
        network = PeerNetwork(CHAIN, requests_per_s=1000, listening=ANY_PORT)
        await network.start()
        host = network.named(PeerUrl(HOST, Address(LOOPBACK, server.sockets[0].getsockname()[1])))
        asking = [asyncio.create_task(network.ask(host, (3, SYNC_HASH, part), WAIT_S)) for part in range(3)]
        await until(lambda: asked)
        await asyncio.sleep(0.1)
        assert len(asked) == 1
        author = network._neighbours[PeerUrl(HOST, Address(LOOPBACK, server.sockets[0].getsockname()[1]))].key.peer_id
        assert authors == [author]
        back, _ = await dial(asked[0].reply_to, DialerHandshake(side("host"), Tier.T3, author, int(time.time()) | 1), time.time)
        await until(lambda: len(asked) == 3)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await network.close()
        await back.close()
        server.close()
        await asyncio.sleep(0.05)

    run(work)


def test_nobody_but_who_was_asked_is_let_in_for_answers(tmp_path: Path) -> None:
    """Another key, another tier, an unknown target, noise: refused, while the one that was asked answers."""

    async def work() -> None:
        async with three(tmp_path) as all_three:
            assert await got(all_three, all_three.unreachable, 0) == all_three.host.files.expected(0)
            asker = all_three.network._neighbours[all_three.transit_url].key.peer_id
            address = PeerAddress.of(LOOPBACK, all_three.network._port)
            now = int(time.time()) | 1
            for own, tier, target in (
                (side("stranger"), Tier.T3, asker),
                (side("host"), Tier.T2, asker),
                (side("host"), Tier.T3, NodeKey.generate().peer_id),
            ):
                with pytest.raises(StatecastError) as error:
                    await dial(address, DialerHandshake(own, tier, target, now), time.time)
                assert isinstance(error.value, (PeerProtocolError, TransientStoreError))
            for noise in (b"", b"\xff" * 100, b"\x04\0\0\0abcd"):
                _, writer = await asyncio.open_connection(LOOPBACK, address.port)
                writer.write(noise)
                writer.close()
            assert await got(all_three, all_three.unreachable, 1) == all_three.host.files.expected(1)
            listener = all_three.network._listener
            assert listener is not None
            await until(lambda: len(listener._tasks) == 1 and not listener._room._places)

    run(work)


def test_a_connection_for_answers_that_was_idle_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept open for a host that is asked nothing, and it dials again for the next question."""
    monkeypatch.setattr("pipelines.nearpeer.answer_listener.IDLE_S", 0.05)

    async def work() -> None:
        async with three(tmp_path) as all_three:
            await got(all_three, all_three.unreachable, 0)
            listener = all_three.network._listener
            assert listener is not None
            await until(lambda: not listener._tasks)
            assert await got(all_three, all_three.unreachable, 1) == all_three.host.files.expected(1)

    run(work)
