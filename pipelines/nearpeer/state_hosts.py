"""Several hosts that are asked for an epoch's headers and parts: who is asked next, and who is not asked any more.

One connection a host, from one key: each takes a place among the host's peers. Hosts that announce a shard are asked for it; others, which may
have it all the same after a restart, only where none does. Who sends what is judged wrong is not asked again; who is silent is asked again
after pauses, and given up after a few silences in a row.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pipelines.nearpeer.handshake import OwnSide
from pipelines.nearpeer.loop_thread import LoopThread
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.nearpeer.state_client import StateClient
from pipelines.nearpeer.state_requester import ANSWER_TIMEOUT_S, PAUSE_S, REQUESTS_PER_S, Question
from schemas.errors import FetchError, IntegrityError, ObjectNotFoundError, StatecastError, TransientStoreError
from schemas.ids import CryptoHash
from schemas.nearcore.peer.snapshot_host import SnapshotHost
from schemas.nearcore.peer.state_response import StateResponse

FAILURES_MAX: Final = 5
"""Failures in a row, with nothing between them that came, after which a host is given up: some minutes of silence."""
_LOOK_S: Final = 0.05
_RETRY_FIRST_S: Final = 1.0
HOSTS_WAIT_S: Final = 3.0
"""How long a host may take to say what it announces, which it does unasked after the handshake."""

Judged = TypeVar("Judged")


@dataclass(frozen=True, slots=True)
class AskingPace:
    """How hosts are asked."""

    requests_per_s: float = REQUESTS_PER_S
    """Of each host."""
    answer_timeout_s: float = ANSWER_TIMEOUT_S
    pause_s: float = PAUSE_S
    """How long a silent host is left alone."""
    failures_max: int = FAILURES_MAX
    """After how many failures in a row a host is given up."""


@dataclass(frozen=True, slots=True)
class HostReport:
    """What became of asking one host."""

    url: str
    answers: int
    """That were judged right."""
    size: int
    """Bytes of these."""
    problem: str
    """Why it is not asked any more, or what failed last; empty where nothing did."""
    announced: SnapshotHost | None
    """What it says of itself."""


@dataclass(slots=True, eq=False)
class _Host:
    url: PeerUrl
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    client: StateClient | None = None
    banned: bool = False
    failures: int = 0
    """In a row."""
    not_before_s: float = 0.0
    """No connection is tried earlier."""
    answers: int = 0
    size: int = 0
    lacks: set[Question] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    _said: SnapshotHost | None = None

    @property
    def announced(self) -> SnapshotHost | None:
        """What it says of itself, or said when it was last connected."""
        if self.client is not None:
            self._said = self.client.hosts.get(self.url.peer_id, self._said)
        return self._said

    def wait_s(self) -> float:
        """Return how long to wait before it may be asked."""
        if self.client is not None and self.client.is_open:
            return self.client.requester.wait_s(time.time())
        return max(0.0, self.not_before_s - time.monotonic())

    def failed(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
        self.failures += 1
        self.not_before_s = time.monotonic() + _RETRY_FIRST_S * 2 ** (self.failures - 1)


class StateHosts:
    """Hosts of one chain, asked by callers in threads."""

    def __init__(self, urls: Sequence[PeerUrl], own: OwnSide, announced_hash: CryptoHash, pace: AskingPace = AskingPace()) -> None:
        """Open no connection yet.

        Args:
            own: who asks: a key of this process alone.
            announced_hash: by which hosts announce the epoch: the block two before its sync block.
        """
        self._own, self._announced_hash, self._pace = own, announced_hash, pace
        self._first_look = asyncio.Lock()
        self._looked = False
        self._hosts = [_Host(url) for url in dict.fromkeys(urls)]
        self._loop = LoopThread()
        self._asking: set[Future[Any]] = set()
        self._closed = False

    @property
    def count(self) -> int:
        """How many hosts there are."""
        return len(self._hosts)

    def get(
        self,
        question: Question,
        judge: Callable[[StateResponse, str], Judged],
        without: frozenset[str] = frozenset(),
    ) -> tuple[str, Judged]:
        """Ask hosts until one gives what is judged right; return its URL and the verdict.

        Args:
            question: shard, sync hash and part; no part for the header.
            judge: gets an answer and the host's URL, in the caller's thread; an IntegrityError bans the host.
            without: URLs of hosts that are not asked.
        Raises:
            FetchError: no host is left to ask; what each did is listed.
            TransientStoreError: the hosts were closed.
        """
        while True:
            host, response = self._finish(self._answered(question, without))
            try:
                verdict = judge(response, str(host.url))
            except IntegrityError as error:
                host.problems.append(f"{_shown(question)}: {error.problem}")
                host.banned = True
                if host.client is not None:
                    self._finish(host.client.close())
                continue
            host.answers += 1
            data = response.header if response.header is not None else response.part
            host.size += 0 if data is None else len(data)
            return str(host.url), verdict

    def look(self) -> tuple[HostReport, ...]:
        """Connect to all hosts, wait until they tell what they announce, but not for long, and report."""
        self._finish(self._look_first())
        return self.reports()

    def reports(self) -> tuple[HostReport, ...]:
        """Return what became of asking each host."""
        return tuple(
            HostReport(
                str(host.url),
                host.answers,
                host.size,
                host.problems[-1] if host.problems else "",
                host.announced,
            )
            for host in self._hosts
        )

    def close(self) -> None:
        """Say good-bye; whoever waits for an answer gets a TransientStoreError."""
        if self._closed:
            return
        self._closed = True
        for asked in list(self._asking):
            asked.cancel()
        self._loop.finish(self._leave())
        self._loop.close()

    def _finish(self, work: Any) -> Any:
        if self._closed:
            work.close()
            raise TransientStoreError(problem="the hosts are asked no more", where="nearcore's network")
        asked = self._loop.submit(work)
        self._asking.add(asked)
        try:
            return asked.result()
        except CancelledError:
            raise TransientStoreError(problem="the hosts are asked no more", where="nearcore's network") from None
        finally:
            self._asking.discard(asked)

    async def _answered(self, question: Question, without: frozenset[str]) -> tuple[_Host, StateResponse]:
        await self._look_first()
        while True:
            usable = self._usable(question, without)
            host = min(usable, key=lambda one: (one.wait_s(), one.answers))
            if (wait_s := host.wait_s()) > 0:
                await asyncio.sleep(min(wait_s, _LOOK_S))
                continue
            try:
                client = await self._connected(host)
                response = await client.ask(*question, self._pace.answer_timeout_s)
            except ObjectNotFoundError as error:
                host.lacks.add(question)
                host.problems.append(f"{_shown(question)}: {error.problem}")
            except StatecastError as error:
                host.failed(error.problem)
            else:
                host.failures = 0
                return host, response

    def _is_asked(self, host: _Host) -> bool:
        return not host.banned and host.failures < self._pace.failures_max

    def _usable(self, question: Question, without: frozenset[str]) -> list[_Host]:
        """Return the hosts that may be asked a question: those that announce its shard, or where none does, those that don't.

        Raises:
            FetchError: none is left.
        """
        usable = [host for host in self._hosts if self._is_asked(host) and question not in host.lacks and str(host.url) not in without]
        announcing = []
        for host in list(usable):
            said = host.announced
            if said is None or said.announced_hash != self._announced_hash:
                continue
            if question[0] in said.shards:
                announcing.append(host)
            else:
                # Of this very epoch it has other shards.
                usable.remove(host)
        if not usable:
            raise self._nobody(question)
        return announcing or usable

    async def _connected(self, host: _Host) -> StateClient:
        async with host.lock:
            if host.client is not None and host.client.is_open:
                return host.client
            if host.client is not None:
                await host.client.close()
                host.client = None
            client = await StateClient.open(self._own, host.url.peer_id, await host.url.resolve())
            client.requester.per_s, client.requester.pause_s = self._pace.requests_per_s, self._pace.pause_s
            host.client = client
            await client.heard_hosts(HOSTS_WAIT_S)
            return client

    async def _look_first(self) -> None:
        async def look(host: _Host) -> None:
            try:
                await self._connected(host)
            except StatecastError as error:
                host.failed(error.problem)

        async with self._first_look:
            if not self._looked:
                await asyncio.gather(*map(look, self._hosts))
                self._looked = True

    async def _leave(self) -> None:
        await asyncio.gather(*(host.client.close() for host in self._hosts if host.client is not None))

    def _nobody(self, question: Question) -> FetchError:
        return FetchError(
            problem=f"no peer gives {_shown(question)}",
            where="nearcore's network",
            remedy="Run again later, or name more peers: what is published already is kept. Nodes have an epoch's state until "
            "their next snapshot; `statecast inspect near://…` shows what a peer announces.",
            attempts={str(host.url): host.problems[-3:] or ["it does not announce the shard"] for host in self._hosts},
        )


def _shown(question: Question) -> str:
    shard_id, sync_hash, part_id = question
    what = "the header" if part_id is None else f"part {part_id}"
    return f"{what} of shard {shard_id}, sync hash {CryptoHash(sync_hash)}"
