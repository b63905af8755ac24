"""Frames over a socket: whole, cut, one after the other, and large ones into their own buffer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from pipelines.nearpeer import connection as module
from pipelines.nearpeer.connection import STATE_BYTES_MAX, Connection
from schemas.errors import PeerProtocolError


@asynccontextmanager
async def heard(pieces: Sequence[bytes], *, stays: bool = False) -> AsyncIterator[Connection]:
    """Give the reading end of a connection whose other end sends pieces, and then closes or stays."""

    accepted: list[asyncio.StreamWriter] = []

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        with contextlib.suppress(OSError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if stays:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(send, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    connection = Connection(reader, writer)
    try:
        yield connection
    finally:
        server.close()
        await ended(connection, *accepted)


async def ended(connection: Connection, *writers: asyncio.StreamWriter) -> None:
    """Drop both ends."""
    connection.abort()
    for writer in writers:
        writer.transport.abort()
    # Aborted connections are closed when the loop comes round.
    await asyncio.sleep(0)


def frame(body: bytes) -> bytes:
    """Return a body with its length before it."""
    return len(body).to_bytes(4, "little") + body


@pytest.mark.parametrize("sliced", [1 << 30, 300_001, 7_919])
def test_frames_of_all_sizes_follow_each_other(sliced: int) -> None:
    """Nothing of the next one is taken into one before, however the network cuts them."""
    bodies = [(b"%d," % size * size)[:size] for size in (9_000_000, 10, 0, 700_000, 1)]
    stream = b"".join(map(frame, bodies))

    async def read() -> list[bytes]:
        async with heard([stream[begin : begin + sliced] for begin in range(0, len(stream), sliced)]) as connection:
            return [bytes(found) for _ in bodies if (found := await connection.read_frame(STATE_BYTES_MAX, 30)) is not None]

    assert asyncio.run(read()) == bodies


@pytest.mark.parametrize("came", [3, 100, 400_000, 5_999_999])
def test_a_frame_that_is_cut_is_an_error(came: int) -> None:
    """Also where its large rest went past the reader."""

    async def read() -> None:
        async with heard([frame(bytes(6_000_000))[:came]]) as connection:
            await connection.read_frame(STATE_BYTES_MAX, 30)

    with pytest.raises(PeerProtocolError, match="ends within a frame"):
        asyncio.run(read())


def test_a_frame_that_never_ends_is_waited_for_no_longer_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no room is made for what it says that it has: the connection can then be closed."""
    monkeypatch.setattr(module, "BODY_TIMEOUT_S", 0.05)

    async def read() -> None:
        async with heard([frame(bytes(120_000_000))[:1_000_000]], stays=True) as connection:
            await connection.read_frame(STATE_BYTES_MAX, 30)

    with pytest.raises(PeerProtocolError, match="not whole after"):
        asyncio.run(read())


def test_a_side_that_reads_a_large_frame_sends_meanwhile() -> None:
    """Also more than the other side takes at once: writing is paused and goes on."""
    body, answer = bytes(8_000_000), bytes(6_000_000)
    got = bytearray()
    accepted: list[asyncio.StreamWriter] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        writer.write(frame(body)[:1_000_000])
        while len(got) < len(answer) + 4:
            got.extend(await reader.read(1 << 16))
        writer.write(frame(body)[1_000_000:])
        await writer.drain()

    async def both() -> int:
        server = await asyncio.start_server(take, "127.0.0.1", 0)
        connection = Connection(*await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1]))
        reading = asyncio.create_task(connection.read_frame(STATE_BYTES_MAX, 30))
        await connection.send_pieces((answer,))
        found = await reading
        server.close()
        await ended(connection, *accepted)
        return 0 if found is None else len(found)

    assert (asyncio.run(both()), len(got)) == (len(body), len(answer) + 4)
