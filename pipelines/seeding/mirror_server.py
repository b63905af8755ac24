"""A plain HTTP mirror: GET and HEAD of objects, whole or one range, with digests, limits and an access log. aiohttp speaks HTTP.

It is made to stand on the open net for readers that need no BitTorrent, and to be a web seed. TLS is a proxy's business. What is no
request is answered with 400, is a line of the access log, and is counted; ``/healthz`` has the counts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from pipelines.seeding.mirror_folder import MirrorFolder, MirrorObject
from pipelines.seeding.mirror_values import Access, MirrorLimits
from pipelines.stores.pace import Pace
from schemas.address import Address
from schemas.errors import InvalidInputError

BUFFER_BYTES: Final = 256 << 10
"""Bytes read and sent at once: what a connection holds in memory."""

SEND_TIMEOUT_S: Final = 60.0
"""A client that takes no buffer for so long is dropped."""

FIRST_REQUEST_TIMEOUT_S: Final = 15.0
"""A connection that asks for nothing for so long is dropped."""

KEEP_ALIVE_S: Final = 15.0

STOP_GRACE_S: Final = 10.0
"""How long answers under way may go on after a stop."""

HEADER_BYTES_MAX: Final = 8_190
"""Longest request line and header field."""


class _Busy(asyncio.Protocol):
    """Turns a connection away that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        transport.close()


class _Malformed(logging.Handler):
    """Hears of each request that the library could not parse, instead of a log with its traceback."""

    def __init__(self, on_malformed: Callable[[], None]) -> None:
        super().__init__()
        self._on_malformed = on_malformed

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
            self._on_malformed()
        elif record.levelno > logging.DEBUG:
            # A fault of ours.
            logging.getLogger(__name__).handle(record)


class Mirror:
    """A mirror of one folder."""

    def __init__(self, root: Path, limits: MirrorLimits, on_access: Callable[[Access], None]) -> None:
        """Take a folder.

        Raises:
            InvalidInputError: it is none.
        """
        if not root.is_dir():
            raise InvalidInputError(problem="there is no such folder", where=str(root))
        self._folder = MirrorFolder(root)
        self._limits = limits
        self._on_access = on_access
        self._pace = None if limits.upload_bytes_per_s is None else Pace(limits.upload_bytes_per_s)
        self._by_client: Counter[str] = Counter()
        self._silent: set[Any] = set()
        """Connections that have not asked for anything yet."""
        self._refused = {"malformed_requests": 0, "connections_turned_away": 0}

    async def serve(self, address: Address, on_listening: Callable[[int], None], stop: asyncio.Event) -> None:
        """Serve until told to stop; then end what is under way.

        Args:
            on_listening: called once with the port.
            stop: set from elsewhere, in this loop, to end it.
        Raises:
            InvalidInputError: the address can't be listened on.
        """
        loop = asyncio.get_running_loop()
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{name:.*}", self._answer)
        runner = web.AppRunner(
            application,
            access_log=None,
            logger=self._malformed_log(),
            keepalive_timeout=KEEP_ALIVE_S,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            shutdown_timeout=STOP_GRACE_S,
        )
        await runner.setup()
        try:
            listening = await loop.create_server(lambda: self._connection(loop, runner), address.host or None, address.port)
        except OSError as error:
            await runner.cleanup()
            raise InvalidInputError(
                problem=f"no mirror can listen there: {error.strerror or error}",
                where=str(address),
                remedy="Free the port or choose another.",
            ) from error
        on_listening(listening.sockets[0].getsockname()[1])
        await stop.wait()
        listening.close()
        await runner.cleanup()

    def _connection(self, loop: asyncio.AbstractEventLoop, runner: web.AppRunner) -> asyncio.Protocol:
        server = runner.server
        assert server is not None, "set up"
        if len(server.connections) >= self._limits.connections:
            self._refused["connections_turned_away"] += 1
            return _Busy()
        handler = server()
        # The library waits without end for a first request.
        self._silent.add(handler)
        loop.call_later(FIRST_REQUEST_TIMEOUT_S, self._drop_silent, handler)
        return handler

    def _malformed_log(self) -> logging.Logger:
        log = logging.Logger("mirror", logging.DEBUG)
        log.addHandler(_Malformed(self._note_malformed))
        return log

    def _note_malformed(self) -> None:
        """Count what is no request, and tell it as one that was refused; of which client, the library does not say."""
        self._refused["malformed_requests"] += 1
        self._on_access(Access(client="", method="", path="", status=400, bytes_sent=0, seconds=0.0, range="", agent=""))

    def _drop_silent(self, handler: Any) -> None:
        if handler in self._silent:
            self._silent.discard(handler)
            if handler.transport is not None:
                handler.transport.abort()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        began_s = time.monotonic()
        client = request.remote or ""
        self._silent.discard(request.protocol)
        sent = 0
        status = 499
        """As nginx calls it: the client went away."""
        self._by_client[client] += 1
        try:
            if self._by_client[client] > self._limits.requests_per_client:
                response: web.StreamResponse = _refusal(429, {"Retry-After": "1"})
            elif request.method not in ("GET", "HEAD"):
                response = _refusal(405, {"Allow": "GET, HEAD"})
            elif request.path == "/healthz":
                response = web.json_response({"status": "ok", **self._refused})
            else:
                response, sent = await self._answer_object(request)
            status = response.status
            return response
        finally:
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]
            self._on_access(
                Access(
                    client=client,
                    method=request.method,
                    path=request.path[:1024],
                    status=status,
                    bytes_sent=sent,
                    seconds=round(time.monotonic() - began_s, 4),
                    range=request.headers.get("Range", "")[:100],
                    agent=request.headers.get("User-Agent", "")[:100],
                )
            )

    async def _answer_object(self, request: web.Request) -> tuple[web.StreamResponse, int]:
        loop = asyncio.get_running_loop()
        # The decoded path; names hold no character that would need decoding twice.
        found = await loop.run_in_executor(None, self._folder.open, request.path.removeprefix("/"))
        if found is None:
            return _refusal(404, {}), 0
        try:
            return await self._send_object(request, found)
        finally:
            os.close(found.descriptor)

    async def _send_object(self, request: web.Request, found: MirrorObject) -> tuple[web.StreamResponse, int]:
        headers = _headers(found)
        if _names_etag(request.headers.get("If-None-Match"), found.etag):
            return web.Response(status=304, headers={name: headers[name] for name in ("ETag", "Cache-Control")}), 0
        start, stop, status = 0, found.size, 200
        asked = _asked_range(request, found)
        if asked is not None:
            start, stop = asked
            if start >= stop:
                return _refusal(416, {"Content-Range": f"bytes */{found.size}", "Accept-Ranges": "bytes"}), 0
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{found.size}"
            status = 206
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = stop - start
        await response.prepare(request)
        if request.method == "HEAD":
            return response, 0
        sent = await self._send_bytes(response, found.descriptor, start, stop)
        if sent < stop - start and request.transport is not None:
            # The length that was promised can't be kept, so the answer must not look whole.
            request.transport.abort()
        return response, sent

    async def _send_bytes(self, response: web.StreamResponse, descriptor: int, start: int, stop: int) -> int:
        """Send bytes of a file; return how many went out before the client left, fell asleep, or the file turned out to be cut."""
        loop = asyncio.get_running_loop()
        position = start
        try:
            while position < stop:
                data = await loop.run_in_executor(None, os.pread, descriptor, min(BUFFER_BYTES, stop - position), position)
                if not data:
                    break
                if self._pace is not None:
                    await asyncio.sleep(self._pace.book(len(data)))
                await asyncio.wait_for(response.write(data), SEND_TIMEOUT_S)
                position += len(data)
        except (OSError, TimeoutError):
            # A client that left is an OSError too.
            pass
        return position - start


def _headers(found: MirrorObject) -> dict[str, str]:
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{found.etag}"',
        "Last-Modified": formatdate(found.modified_ns // 10**9, usegmt=True),
        "Cache-Control": "public, max-age=31536000, immutable" if found.is_immutable else "no-cache",
        "Content-Type": "application/json" if found.is_json else "application/octet-stream",
        "X-Content-Type-Options": "nosniff",
    }
    if found.repr_digest is not None:
        headers["Repr-Digest"] = found.repr_digest
    return headers


def _asked_range(request: web.Request, found: MirrorObject) -> tuple[int, int] | None:
    """Return the bytes [start, stop) that are asked for, empty where they lie outside; None for the whole object.

    Several ranges, and what is no range, are answered with the whole object, as RFC 9110 14.2 has it; so is a range of an object that
    has changed (``If-Range``).
    """
    condition = request.headers.get("If-Range")
    if "Range" not in request.headers or (condition is not None and condition != f'"{found.etag}"'):
        return None
    if re.fullmatch(r"bytes=-0+", request.headers["Range"]):
        return 0, 0
    try:
        asked = request.http_range
    except ValueError:
        return None
    start, stop = asked.start, asked.stop
    if start is None and stop is None:
        return None
    if start is not None and start < 0:
        return max(0, found.size + start), found.size
    return start or 0, found.size if stop is None else min(stop, found.size)


def _names_etag(field: str | None, etag: str) -> bool:
    if field is None:
        return False
    return any(entry.strip().removeprefix("W/") in ("*", f'"{etag}"') for entry in field.split(","))


def _refusal(status: int, headers: dict[str, str]) -> web.Response:
    return web.Response(status=status, headers=headers, text=f"{status}\n")
