"""Where hosts that were asked by routed messages bring their answers: one port, on which they dial back on tier 3.

Nobody else is let in: a connection is taken from an id that was asked within the last minute, under the key that asked it, and shows by its
signature that it is that id. Nothing is read of a host while no question to it is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pipelines.nearpeer.connection import STATE_BYTES_MAX, Connection, accept
from pipelines.nearpeer.handshake import ListenerHandshake, Outcome, OwnSide, TryAgain
from pipelines.nearpeer.handshake_room import HandshakeRoom
from schemas.address import Address
from schemas.errors import InvalidInputError, PeerProtocolError, StatecastError, TransientStoreError
from schemas.nearcore.peer.identity import PeerId, PeerInfo
from schemas.nearcore.peer.peer_message import FailureReason, Handshake, HandshakeFailure, PeerMessage, Tier
from schemas.nearcore.peer.state_response import StateResponse

EXPECTED_S: Final = 60.0
"""How long after a question its host may dial; nearcore's own rule since 2.13."""
IDLE_S: Final = 15.0
"""How long a connection stays when no question is open."""
LINKS_PER_HOST_MAX: Final = 2
"""A host that is asked for two things at once may dial twice, and says one of them on each."""

OnAnswer = Callable[[PeerId, StateResponse], None]
"""Gets a host, and what it says."""


@dataclass(slots=True, eq=False)
class AskedBy:
    """A host that one key asks."""

    own: OwnSide
    host: PeerId
    asked_at_s: float = float("-inf")
    open: int = 0
    """Questions without an answer."""
    links: int = 0
    """Connections of tier 3."""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    linked: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(self, now_s: float) -> None:
        """Take note of a question; `answered` ends it."""
        self.asked_at_s = now_s
        self.open += 1
        self.asked.set()

    def ended(self) -> None:
        """Take note that a question has its answer, or is given up."""
        self.open -= 1
        if not self.open:
            self.asked.clear()


class AnswerListener:
    """One port for any number of keys of this process."""

    def __init__(self, on_answer: OnAnswer, clock: Callable[[], float] = time.time) -> None:
        self._on_answer, self._clock = on_answer, clock
        self._asked: dict[tuple[PeerId, PeerId], AskedBy] = {}
        self._sides: dict[PeerId, OwnSide] = {}
        self._room = HandshakeRoom()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, listen: Address) -> int:
        """Listen; return the port.

        Raises:
            InvalidInputError: the address can't be listened on.
        """
        try:
            self._server = await asyncio.start_server(self._accept_soon, listen.host or None, listen.port, backlog=128)
        except OSError as error:
            raise InvalidInputError(problem=f"can't listen: {error.strerror}", where=f"--near-listen {listen}") from error
        return int(self._server.sockets[0].getsockname()[1])

    def expect(self, own: OwnSide, host: PeerId) -> AskedBy:
        """Return what stands for a host and the key that asks it."""
        self._sides[own.key.peer_id] = own
        return self._asked.setdefault((own.key.peer_id, host), AskedBy(own, host))

    async def close(self) -> None:
        """Close the port and all connections."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Aborted connections are closed when the loop comes round.
        await asyncio.sleep(0)

    def _accept_soon(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._accepted(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(StatecastError, TypeError, ValueError):
                connection = Connection(reader, writer)
                with self._room.place(connection.address.ip, self._clock(), connection.abort) as is_free:
                    if not is_free:
                        return
                    handshake = AnswererHandshake(self)
                    connected = await accept(connection, handshake, self._clock)
                await self._read(connection, self._asked[handshake.own_id, connected.peer_id])
        finally:
            writer.transport.abort()

    async def _read(self, connection: Connection, asked: AskedBy) -> None:
        if asked.links >= LINKS_PER_HOST_MAX:
            return
        asked.links += 1
        asked.linked.set()
        try:
            while True:
                # Nothing is read, and so nothing kept, of a host that nothing is asked.
                async with asyncio.timeout(IDLE_S):
                    await asked.asked.wait()
                try:
                    message = await connection.read_message(STATE_BYTES_MAX, IDLE_S)
                except TransientStoreError:
                    continue
                if message is None:
                    return
                if isinstance(message, StateResponse):
                    self._on_answer(asked.host, message)
        except TimeoutError:
            return
        finally:
            asked.links -= 1
            if not asked.links:
                asked.linked.clear()


@dataclass(slots=True)
class AnswererHandshake:
    """The machine of the key that the dialer means."""

    listener: AnswerListener
    own_id: PeerId = field(init=False)
    _machines: dict[PeerId, ListenerHandshake] = field(init=False, default_factory=dict)

    def receive(self, message: PeerMessage, now_s: int) -> Outcome:
        """Take what the dialer says; see `ListenerHandshake.receive`."""
        if not isinstance(message, Handshake):
            return None
        if message.tier is not Tier.T3:
            raise PeerProtocolError(problem="answers alone are taken here", where=str(message.sender))
        sides = self.listener._sides
        own = sides.get(message.target)
        if own is None:
            if not sides:
                raise PeerProtocolError(problem="nobody was asked", where=str(message.sender))
            return TryAgain(HandshakeFailure(FailureReason.TARGET, PeerInfo(next(iter(sides)))))
        asked = self.listener._asked.get((message.target, message.sender))
        expected = {message.sender} if asked is not None and (asked.open or now_s - asked.asked_at_s < EXPECTED_S) else set()
        self.own_id = message.target
        machine = self._machines.setdefault(message.target, ListenerHandshake(own, {}))
        machine.t3_expected = frozenset(expected)
        return machine.receive(message, now_s)
