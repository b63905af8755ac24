"""Answers of the clients that speak aiohttp, bounded as a whole: their own timeouts begin anew with every byte, and a body is read to its end.

The client of S3 and the one of GCS get these in the place of aiohttp's.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from pipelines.stores.body_pace import READ_BYTES, BodyPace

if TYPE_CHECKING:
    from aiohttp.connector import Connection

ANSWER_TIMEOUT_S: Final = 30.0
"""Longest wait for the whole head of an answer to a request without a body, interim answers included, and for any bytes of a body."""

DOCUMENT_BYTES_MAX: Final = 64 << 20
"""Longest body that is no object: a page of a listing, an object's properties, an error."""

_READING = ("GET", "HEAD")


class BoundedAnswer(aiohttp.ClientResponse):
    """An answer whose head comes in time, and whose body has no more than was asked for."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Wait for the head; one to a request that sends a body has no bound of its own, since that may take its time.

        Raises:
            TimeoutError: it does not come in time.
        """
        return await asyncio.wait_for(super().start(connection), ANSWER_TIMEOUT_S if self.method in _READING else None)

    async def read(self) -> bytes:
        """Return the body: of a range at most one byte more than was asked for, which shows that there is more.

        Raises:
            TransientStoreError: it comes so slowly that it might never end.
            ClientPayloadError: it has more than `DOCUMENT_BYTES_MAX`.
        """
        if self._body is None:
            asked = re.fullmatch(r"bytes=([0-9]+)-([0-9]+)", self.request_info.headers.get("Range", ""))
            body_bytes_max = DOCUMENT_BYTES_MAX if asked is None else int(asked[2]) - int(asked[1]) + 1
            try:
                self._body = await read_bounded(self.content, body_bytes_max, str(self.url))
                if len(self._body) > body_bytes_max:
                    if asked is None:
                        raise aiohttp.ClientPayloadError(f"more than {body_bytes_max} bytes that are no object")
                    self.close()
            except BaseException:
                self.close()
                raise
        return self._body


async def read_bounded(stream: Any, body_bytes_max: int, where: str) -> bytes:
    """Read a stream to its end, or one byte past what it may have.

    Args:
        stream: has ``read(n)``, which gives no bytes at the end alone.
    Raises:
        TimeoutError: nothing of it comes.
        TransientStoreError: it comes so slowly that it might never end.
    """
    body = bytearray()
    async for buffer in _buffers(stream, where):
        body += buffer
        if len(body) > body_bytes_max:
            return bytes(body[: body_bytes_max + 1])
    return bytes(body)


async def _buffers(stream: Any, where: str) -> AsyncIterator[bytes]:
    pace = BodyPace(where)
    while True:
        began_s = time.monotonic()
        # What brings no bytes, as the length of a chunk, renews the client's own wait.
        buffer = await asyncio.wait_for(stream.read(READ_BYTES), ANSWER_TIMEOUT_S)
        pace.take(len(buffer), time.monotonic() - began_s)
        if not buffer:
            return
        yield buffer
