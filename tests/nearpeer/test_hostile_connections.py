"""Two hundred connections that misbehave in every way at once: a good client is served as if it were alone, and nothing of them stays."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pipelines.nearpeer.node_key import NodeKey
from pipelines.nearpeer.request_policy import RequestLimits
from pipelines.nearpeer.routing import Router
from pipelines.nearpeer.state_client import StateClient
from pipelines.nearpeer.state_host import HostSettings
from pipelines.nearpeer.state_requester import Question, StateRequester
from schemas.errors import StatecastError
from schemas.nearcore.peer.identity import PeerAddress
from schemas.nearcore.peer.peer_message import Routed
from schemas.nearcore.peer.routed_message import StateRequest
from schemas.nearcore.peer.state_response import StateResponse
from tests.nearpeer.test_state_host import LOOPBACK, SYNC_HASH, WAIT_S, hosting, run, side
from tests.support.commands import PROJECT
from tests.support.peer_attackers import ATTACKS, HOST, Attacker, name_of
from tests.support.peer_recordings import named_key

SOAK_S = float(os.environ.get("STATECAST_SOAK_S", "30"))
"""How long the attackers are at it; an hour is `STATECAST_SOAK_S=3600`."""
ATTACKERS = 200
PARTS_PER_S = 25.0
"""Of all good clients together."""
CLIENTS = 4
ALONE_S = 10.0
SETTLE_S = 3.0
"""After which all attackers have begun."""
GROWTH_BYTES_MAX = 150 << 20
"""Of the host's memory: tables and frames that wait, and what allocators keep of them."""
LIMITS = RequestLimits(per_s_max=1_000)


class Good:
    """A client that asks for parts at an even pace, each second one by a routed question."""

    def __init__(self, client: StateClient) -> None:
        self.client = client
        self.missed = 0

    async def served_in(self, seconds: float) -> float:
        """Return how many parts a second came in time."""
        got, began_s = 0, time.monotonic()
        next_s = began_s
        self.client.requester = StateRequester("host", per_s=10_000.0)
        for number in count():
            if (now_s := time.monotonic()) - began_s >= seconds:
                return got / (now_s - began_s)
            await asyncio.sleep(max(0.0, next_s - now_s))
            # What came late is not caught up with, which would be more than the host gives one asker.
            next_s = max(next_s, now_s) + CLIENTS / PARTS_PER_S
            try:
                got += await (self._routed(number) if number % 2 else self._direct(number))
            except StatecastError:
                self.missed += 1
                self.client.requester = StateRequester("host", per_s=10_000.0)
        raise AssertionError("unreachable")

    async def _direct(self, number: int) -> bool:
        return bool((await self.client.ask(3, SYNC_HASH, number // 2 % 2, timeout_s=5)).part)

    async def _routed(self, number: int) -> bool:
        """Ask for what comes over tier 2, since private addresses are not dialled."""
        part = number // 2 % 2
        answer: asyncio.Future[StateResponse] = asyncio.get_running_loop().create_future()

        def take(_question: Question, response: StateResponse) -> None:
            if not answer.done():
                answer.set_result(response)

        self.client.on_other_answer = take
        self.client.requester.ask(3, SYNC_HASH, part, time.time())
        # Another address each time: the same question again within 50 ms would be a copy.
        body = StateRequest(3, SYNC_HASH, part, PeerAddress.of(LOOPBACK, 1 + number % 60_000)).to_bytes()
        await self.client.send(Routed(self.client.router.make(HOST, body, time.time())))
        try:
            async with asyncio.timeout(5):
                return bool((await answer).part)
        except TimeoutError:
            self.missed += 1
            return False
        finally:
            self.client.requester.forget((3, SYNC_HASH, part))


@contextmanager
def process(module: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a module of the tests' support."""
    command = [sys.executable, "-m", f"tests.support.{module}", *map(str, arguments)]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    try:
        yield started
    finally:
        if started.stdin is not None:
            with suppress(OSError):
                started.stdin.close()
        try:
            started.wait(WAIT_S)
        finally:
            started.kill()
            started.wait()
            if started.stdout is not None:
                started.stdout.close()


def said(by: subprocess.Popen[str], *, asked: bool = False) -> dict[str, Any]:
    """Return the next line of a process, which is asked for it."""
    assert by.stdin is not None and by.stdout is not None
    if asked:
        by.stdin.write("\n")
        by.stdin.flush()
    document = json.loads(by.stdout.readline())
    assert isinstance(document, dict)
    return document


@pytest.mark.slow
def test_a_good_client_is_served_beside_two_hundred_bad_ones(tmp_path: Path) -> None:
    """At four fifths of its rate alone at least; no descriptor, no task and no memory of the others stays, and no third party was dialled.

    Host, attackers and the good client are processes of their own.
    """

    async def work(host: subprocess.Popen[str]) -> None:
        dialled: list[object] = []

        def at_victim(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            dialled.append(writer.get_extra_info("peername"))
            writer.transport.abort()

        victim = await asyncio.start_server(at_victim, LOOPBACK, 0)
        port = said(host)["port"]
        address = PeerAddress.of(LOOPBACK, port)
        good = [Good(await StateClient.open(side(f"good {number}"), HOST, address)) for number in range(CLIENTS)]

        async def served_in(seconds: float) -> float:
            return sum(await asyncio.gather(*(one.served_in(seconds) for one in good)))

        await served_in(2.0)
        before, first = said(host, asked=True), await served_in(ALONE_S)
        alone = said(host, asked=True)
        with process("peer_attackers", port, victim.sockets[0].getsockname()[1], ATTACKERS) as attackers:
            await served_in(SETTLE_S)
            under_attack = said(host, asked=True)
            beside = await served_in(SOAK_S)
            after_attack = said(host, asked=True)
            assert attackers.stdin is not None
            attackers.stdin.close()
            attacks = await asyncio.to_thread(said, attackers)
        second = await served_in(ALONE_S)

        def is_as_before() -> bool:
            now = said(host, asked=True)
            return all(now[name] <= before[name] for name in ("descriptors", "tasks", "neighbours", "links", "tables", "queued_bytes"))

        async with asyncio.timeout(2 * WAIT_S):
            while not is_as_before():
                await asyncio.sleep(0.5)
        after = said(host, asked=True)
        cpu = [(b["cpu_s"] - a["cpu_s"]) / s for a, b, s in ((before, alone, ALONE_S), (under_attack, after_attack, SOAK_S))]
        figures = {
            "alone": [first, second],
            "beside": beside,
            "missed": sum(one.missed for one in good),
            "cpu": cpu,
            "attacks": attacks,
            "host": after,
        }
        figures["rss"] = [state["rss"] for state in (before, after_attack, after)]
        print(json.dumps(figures))
        assert set(attacks["begun"]) == {name_of(attack) for attack in ATTACKS}, attacks
        assert len(attacks["done"]) >= len(ATTACKS) // 2, attacks
        assert dialled == []
        assert beside >= 0.8 * (first + second) / 2, figures
        assert after["rss"] - before["rss"] < GROWTH_BYTES_MAX, figures
        for one in good:
            await one.client.close()
        victim.close()

    with process("host_process", tmp_path) as host:
        asyncio.run(work(host))


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
            attacker = Attacker(one.address.port, PeerAddress.of(LOOPBACK, 9))
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
