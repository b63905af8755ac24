"""Frames over TCP: the one module of this room that reads and writes sockets.

A frame is ``u32`` little-endian length and one protobuf message (nearcore's `chain/network/src/peer/stream.rs`). No length is believed
further than the bytes that arrived, and every wait has an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np

from pipelines.nearpeer.handshake import Connected, DialerHandshake, HandshakeMachine, Outcome, TryAgain
from schemas.errors import PeerProtocolError, TransientStoreError
from schemas.nearcore.peer.identity import PeerAddress
from schemas.nearcore.peer.peer_message import PeerMessage, Piece, read_message, write_message

HANDSHAKE_BYTES_MAX: Final = 64 << 10
"""Largest frame before the handshake; real ones have some 400 bytes."""
T2_BYTES_MAX: Final = 32 << 20
"""Largest frame of a neighbour: its whole routing table."""
STATE_BYTES_MAX: Final = 128 << 20
"""Largest frame with state, where some is asked for: nearcore's own limit since 2.14."""
REQUEST_BYTES_MAX: Final = 64 << 10
"""Largest frame that a tier 3 connection may bring to the side that serves on it."""

CONNECT_TIMEOUT_S: Final = 5.0
HANDSHAKE_TIMEOUT_S: Final = 10.0
WRITE_TIMEOUT_S: Final = 120.0
BODY_TIMEOUT_S: Final = 120.0
"""Longest time from a frame's first byte to its last."""

FRAMES_BEFORE_HANDSHAKE_MAX: Final = 16
_SLICE_BYTES: Final = 1 << 20
_ROOM_BYTES: Final = 8 << 20
"""Room that is made for a frame before more of it has come: of address space; memory is taken as bytes come."""
_ROOM_GROWTH: Final = 4
"""How much room is made for a byte that has come."""


@dataclass(frozen=True, slots=True)
class FilePiece:
    """Bytes of a frame that lie in a file, which goes from disk to socket without passing through this process' memory."""

    file: Path
    size: int
    offset: int = 0


class Connection:
    """One TCP connection, before and after its handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._sending = asyncio.Lock()
        self.bytes_sent = 0
        self.bytes_waiting = 0
        """Of messages that are being sent, or wait for those before them; what lies in files not counted."""
        host, port = writer.get_extra_info("peername")[:2]
        self.address = PeerAddress.of(host.split("%", 1)[0], port)
        """The other side's."""

    async def read_frame(self, bytes_max: int, timeout_s: float | None = None) -> bytes | memoryview | None:
        """Return the next frame; None where the other side has closed.

        Args:
            timeout_s: for its first byte; None for as long as it takes.
        Raises:
            PeerProtocolError: a frame over the limit, cut, or not whole in time.
            TransientStoreError: nothing came in time; another frame may be waited for.
        """
        try:
            async with asyncio.timeout(timeout_s):
                head = await self._reader.readexactly(4)
            size = int.from_bytes(head, "little")
            if size > bytes_max:
                raise PeerProtocolError(problem=f"a frame of {size} bytes is over the limit of {bytes_max}", where=str(self.address))
            if not size:
                return b""
            try:
                async with asyncio.timeout(BODY_TIMEOUT_S):
                    frame = await self._read_body(size)
            except TimeoutError:
                # What is there of it is lost, so the connection is of no more use.
                raise PeerProtocolError(problem=f"a frame is not whole after {BODY_TIMEOUT_S:g} s", where=str(self.address)) from None
            if len(frame) < size:
                raise PeerProtocolError(problem="the connection ends within a frame", where=str(self.address))
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise PeerProtocolError(problem="the connection ends within a frame", where=str(self.address)) from None
            return None
        except TimeoutError:
            raise TransientStoreError(problem="nothing came in time", where=str(self.address)) from None
        except OSError:
            return None
        return frame

    async def _read_body(self, size: int) -> bytes | memoryview:
        # What lies in the reader's buffer, or comes next: the whole of a small frame.
        begin = await self._reader.read(size)
        if 0 < len(begin) < size:
            return await _Body(self._writer.transport, begin, size).rest()
        return begin

    async def read_message(self, bytes_max: int, timeout_s: float | None = None) -> PeerMessage | None:
        """Return the next frame that is a message; None where the other side has closed. What is no message is ignored, as nearcore does.

        Raises:
            PeerProtocolError, TransientStoreError: see `read_frame`.
        """
        while (frame := await self.read_frame(bytes_max, timeout_s)) is not None:
            with contextlib.suppress(PeerProtocolError):
                return read_message(frame)
        return None

    async def send(self, message: PeerMessage) -> None:
        """Send a message.

        Raises:
            TransientStoreError: the other side is gone, or takes nothing.
        """
        await self.send_pieces(write_message(message))

    async def send_pieces(self, pieces: tuple[Piece | FilePiece, ...], before_slice: Callable[[int], float] = lambda _: 0.0) -> None:
        """Send one frame in pieces.

        Args:
            before_slice: told the bytes of a slice that is about to go; returns how many seconds it waits.
        Raises:
            TransientStoreError: the other side is gone, or takes nothing, or a file is not as long as it should be.
        """
        size = sum(piece.size if isinstance(piece, FilePiece) else len(piece) for piece in pieces)
        in_memory = sum(len(piece) for piece in pieces if not isinstance(piece, FilePiece))
        self.bytes_waiting += in_memory
        try:
            await self._send_in_turn(pieces, size, before_slice)
        finally:
            self.bytes_waiting -= in_memory

    async def _send_in_turn(self, pieces: tuple[Piece | FilePiece, ...], size: int, before_slice: Callable[[int], float]) -> None:
        async with self._sending:
            try:
                if self._writer.transport.is_closing():
                    raise ConnectionResetError(errno.ECONNRESET, "it is closed")
                self._writer.write(size.to_bytes(4, "little"))
                for piece in pieces:
                    if isinstance(piece, FilePiece):
                        await self._send_file(piece, before_slice)
                    else:
                        self._writer.write(piece)
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self._writer.drain()
            except (OSError, TimeoutError, RuntimeError) as error:
                # A frame that was begun can't be taken back: the connection is of no more use.
                self.abort()
                raise TransientStoreError(problem=f"sending failed: {error or 'too slow'}", where=str(self.address)) from None
            self.bytes_sent += size + 4

    async def _send_file(self, piece: FilePiece, before_slice: Callable[[int], float]) -> None:
        loop, transport = asyncio.get_running_loop(), self._writer.transport
        with piece.file.open("rb") as file:
            sent = 0
            while sent < piece.size:
                count = min(_SLICE_BYTES, piece.size - sent)
                if pause_s := before_slice(count):
                    await asyncio.sleep(pause_s)
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    went = await loop.sendfile(transport, file, piece.offset + sent, count)
                if went == 0:
                    raise OSError(f"{piece.file.name} is shorter than it was")
                sent += went

    def abort(self) -> None:
        """Drop the connection at once."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await self._writer.wait_closed()


class _Body(asyncio.BufferedProtocol):
    """The rest of a frame, received by the socket into the frame's own buffer; takes the place of a connection's protocol for so long.

    A stream reader would copy each byte three times.

    Args:
        begin: what has come of the frame; the connection's own reader has nothing left.
    """

    def __init__(self, transport: asyncio.WriteTransport, begin: bytes, size: int) -> None:
        self._transport, self._size = cast("asyncio.Transport", transport), size
        self._room, self._filled = np.empty(min(size, _ROOM_BYTES), np.uint8), len(begin)
        self._room[: len(begin)] = np.frombuffer(begin, np.uint8)
        self._outer = cast("asyncio.Protocol", transport.get_protocol())
        self._ended = asyncio.get_running_loop().create_future()

    async def rest(self) -> memoryview:
        """Return the frame; less of it where the connection ends before."""
        self._transport.set_protocol(self)
        try:
            await self._ended
        finally:
            self._give_back()
        return self._room.data[: self._filled]

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return room for what comes, and for nothing after the frame."""
        if self._filled == len(self._room):
            # A copy and not `ndarray.resize`, which fills what is new with zeros, and so takes its memory.
            more = np.empty(min(self._size, _ROOM_GROWTH * self._filled), np.uint8)
            more[: self._filled] = self._room
            self._room = more
        return self._room.data[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Count what came."""
        self._filled += nbytes
        if self._filled == self._size:
            self._end()

    def eof_received(self) -> bool | None:
        """End, and tell the connection."""
        self._end()
        return self._outer.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and tell the connection."""
        self._end()
        self._outer.connection_lost(exc)

    def pause_writing(self) -> None:
        """Tell the connection."""
        self._outer.pause_writing()

    def resume_writing(self) -> None:
        """Tell the connection."""
        self._outer.resume_writing()

    def _end(self) -> None:
        # At once: what comes next is the reader's.
        self._give_back()
        if not self._ended.done():
            self._ended.set_result(None)

    def _give_back(self) -> None:
        if self._transport.get_protocol() is self:
            self._transport.set_protocol(self._outer)


async def dial(address: PeerAddress, handshake: DialerHandshake, clock: Callable[[], float]) -> tuple[Connection, Connected]:
    """Connect to a peer and shake hands.

    Raises:
        PeerProtocolError: the peer refuses, or does not keep to the protocol.
        TransientStoreError: nobody answers in time.
    """
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(str(address.ip), address.port)
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or "no answer in time"
        raise TransientStoreError(problem=f"can't connect: {reason}", where=str(address)) from None
    connection = Connection(reader, writer)
    try:
        await connection.send(handshake.first())
        return connection, await _shake(connection, handshake, clock)
    except BaseException:
        connection.abort()
        raise


async def accept(connection: Connection, handshake: HandshakeMachine, clock: Callable[[], float]) -> Connected:
    """Shake hands with a peer that has connected; its answer is sent.

    Raises:
        PeerProtocolError, TransientStoreError: no connection came of it.
    """
    connected = await _shake(connection, handshake, clock)
    if connected.answer is not None:
        await connection.send(connected.answer)
    return connected


async def _shake(connection: Connection, handshake: HandshakeMachine, clock: Callable[[], float]) -> Connected:
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            for _ in range(FRAMES_BEFORE_HANDSHAKE_MAX):
                message = await connection.read_message(HANDSHAKE_BYTES_MAX)
                if message is None:
                    break
                outcome: Outcome = handshake.receive(message, int(clock()))
                if isinstance(outcome, Connected):
                    return outcome
                if isinstance(outcome, TryAgain):
                    await connection.send(outcome.message)
    except TimeoutError:
        raise TransientStoreError(problem="no handshake in time", where=str(connection.address)) from None
    raise PeerProtocolError(problem="closed without a handshake", where=str(connection.address))
