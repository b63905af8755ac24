"""Several hosts that are asked for an epoch's headers and parts: which is asked next, and which is not asked any more.

One connection a host: each takes a place among the host's peers. Hosts that announce a shard are asked for it; others, which may
have it all the same after a restart, only where none does. A host that sends what is judged wrong is not asked again; a silent one is asked again
after pauses, and given up after a few silences in a row. Where a port is listened on, hosts that nobody named are asked too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pipelines.nearpeer.loop_thread import LoopThread
from pipelines.nearpeer.peer_network import AskedHost, Listening, PeerNetwork
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.nearpeer.state_requester import ANSWER_TIMEOUT_S, PAUSE_S, REQUESTS_PER_S, Question, shown_question
from schemas.errors import FetchError, IntegrityError, ObjectNotFoundError, StatecastError, TransientStoreError
from schemas.ids import CryptoHash
from schemas.nearcore.peer.peer_message import GenesisId
from schemas.nearcore.peer.snapshot_host import SnapshotHost
from schemas.nearcore.peer.state_response import StateResponse

FAILURES_MAX: Final = 5
"""Failures in a row, with nothing between them that came, after which a host is given up: some minutes of silence."""
_LOOK_S: Final = 0.05
HEARD_FAILURES_MAX: Final = 2
"""The same of a host that nobody named: announcements outlive their peers."""
_RETRY_FIRST_S: Final = 1.0

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
    asked: AskedHost
    failures_max: int
    banned: bool = False
    failures: int = 0
    """In a row."""
    not_before_s: float = 0.0
    """It is not asked earlier."""
    answers: int = 0
    size: int = 0
    lacks: set[Question] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    @property
    def is_asked(self) -> bool:
        """Whether it is asked at all."""
        return not self.banned and self.failures < self.failures_max

    def wait_s(self) -> float:
        """Return how long to wait before it may be asked."""
        return max(0.0, self.asked.requester.wait_s(time.time()), self.not_before_s - time.monotonic())

    def failed(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
        self.failures += 1
        self.not_before_s = time.monotonic() + _RETRY_FIRST_S * 2 ** (self.failures - 1)


class StateHosts:
    """Hosts of one chain, asked by callers in threads."""

    def __init__(
        self,
        urls: Sequence[PeerUrl],
        genesis: GenesisId,
        announced_hash: CryptoHash,
        pace: AskingPace = AskingPace(),
        listening: Listening | None = None,
    ) -> None:
        """Open no connection yet.

        Args:
            genesis: with the hash zero where it is not known.
            announced_hash: by which hosts announce the epoch: the block two before its sync block.
            listening: where hosts dial back; None to ask the named ones alone, over the connections to them.
        Raises:
            InvalidInputError: the address can't be listened on.
        """
        self._announced_hash, self._pace = announced_hash, pace
        self._first_look = asyncio.Lock()
        self._looked = False
        self._network = PeerNetwork(genesis, requests_per_s=pace.requests_per_s, pause_s=pace.pause_s, listening=listening)
        self._hosts = [_Host(self._network.named(url), pace.failures_max) for url in dict.fromkeys(urls)]
        self._loop = LoopThread()
        self._asking: set[Future[Any]] = set()
        self._closed = False
        try:
            self._loop.finish(self._network.start())
        except BaseException:
            self._loop.close()
            raise

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
                verdict = judge(response, str(host.asked))
            except IntegrityError as error:
                host.problems.append(f"{shown_question(question)}: {error.problem}")
                host.banned = True
                self._finish(self._network.leave(host.asked))
                continue
            host.answers += 1
            data = response.header if response.header is not None else response.part
            host.size += 0 if data is None else len(data)
            return str(host.asked), verdict

    def look(self) -> tuple[HostReport, ...]:
        """Connect to all hosts, wait until they tell what they announce, but not for long, and report."""
        self._finish(self._look_first())
        return self.reports()

    def reports(self) -> tuple[HostReport, ...]:
        """Return what became of asking each host."""
        return tuple(
            HostReport(
                str(host.asked),
                host.answers,
                host.size,
                host.problems[-1] if host.problems else "",
                self._network.announced(host.asked),
            )
            for host in self._hosts
        )

    def close(self) -> None:
        """Say good-bye; a caller that waits for an answer gets a TransientStoreError."""
        if self._closed:
            return
        self._closed = True
        for asked in list(self._asking):
            asked.cancel()
        self._loop.finish(self._network.close())
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
            host = min(usable, key=lambda one: (one.wait_s(), one.failures, one.answers))
            if (wait_s := host.wait_s()) > 0:
                await asyncio.sleep(min(wait_s, _LOOK_S))
                continue
            try:
                response = await self._network.ask(host.asked, question, self._pace.answer_timeout_s)
            except ObjectNotFoundError as error:
                host.lacks.add(question)
                host.problems.append(f"{shown_question(question)}: {error.problem}")
            except StatecastError as error:
                host.failed(error.problem)
            else:
                host.failures = 0
                return host, response

    def _usable(self, question: Question, without: frozenset[str]) -> list[_Host]:
        """Return the hosts that may be asked a question: those that announce its shard, or where none does, those that don't.

        Raises:
            FetchError: none is left.
        """
        usable = [host for host in self._hosts if host.is_asked and question not in host.lacks and str(host.asked) not in without]
        announcing = []
        for host in list(usable):
            said = self._network.announced(host.asked)
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

    async def _look_first(self) -> None:
        async def look(host: _Host) -> None:
            try:
                await self._network.connect(host.asked)
            except StatecastError as error:
                host.failed(error.problem)

        async with self._first_look:
            if not self._looked:
                await asyncio.gather(*map(look, self._hosts))
                heard = self._network.heard(self._announced_hash)
                self._hosts += [_Host(host, min(HEARD_FAILURES_MAX, self._pace.failures_max)) for host in heard]
                self._looked = True

    def _nobody(self, question: Question) -> FetchError:
        return FetchError(
            problem=f"no peer gives {shown_question(question)}",
            where="nearcore's network",
            remedy="Run again later, or name more peers: what is published already is kept. Nodes have an epoch's state until "
            "their next snapshot; `statecast inspect near://…` shows what a peer announces.",
            attempts={str(host.asked): host.problems[-3:] or ["it does not announce the shard"] for host in self._hosts},
        )
