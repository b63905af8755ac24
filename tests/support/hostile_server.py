"""A web server in a process of its own that is as many hostile sources as its URLs name: the first folder of a path says which kind.

``http://…/KIND/WHERE/N`` serves the folder that the server was given, honestly but for the names that ``WHERE`` means: there it does
what `KINDS` says. ``N`` tells sources of one kind apart. ``http://…/honest/all/0`` is a source like any other; ``http://…/honest-slow/parts/N`` sends all
parts together at N bytes a second.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

PROJECT = Path(__file__).resolve().parents[2]

KINDS = (
    "silent",  # takes the request and says nothing
    "hang-up",  # closes at once
    "garbage",  # answers what is no HTTP
    "head-trickle",  # a byte of the head at a time
    "continue-trickle",  # one `100 Continue` after another, slowly
    "continue-flood",  # the same, as fast as it can
    "early-hints-flood",  # the same with 103
    "headers-flood",  # a head that never ends
    "body-trickle",  # a byte of the body at a time
    "chunk-trickle",  # the length of a chunk, a digit at a time
    "endless",  # a body that never ends
    "flip",  # a wrong byte
    "short",  # less than there is, whole by its own length
    "cut",  # less than it said
    "other-range",  # a range that nobody asked for
    "bad-length",  # a Content-Length that is none
    "bad-chunks",  # chunks that are none
    "bad-location",  # redirects to what is no URL
    "no-host",  # redirects to no host
    "bad-port",  # redirects to a port that is none
    "far-location",  # redirects to a scheme that nobody follows
    "redirect-loop",
    "bad-retry-after",  # 503 with a Retry-After that is no number and no date
    "far-retry-after",  # 503 with a date in a year of twenty digits
    "long-retry-after",  # 429, to be asked again in a year
    "not-implemented",  # 501
    "switching",  # 101, which nobody asked for
    "denied",  # 403
    "absent",  # 404
    "odd-status",  # 299
    "compressed",  # whatever was asked
)
"""Every kind but ``honest``."""

WHERES = {
    "all": r".",
    "documents": r"latest\.json|manifest|statements/|headers/|torrents/",
    "headers": r"headers/",
    "parts": r"/state_part_",
}

TRICKLE_S = 0.2
"""How often something comes of what is slow."""

FLOOD = {
    "continue-flood": b"HTTP/1.1 100 Continue\r\n\r\n",
    "early-hints-flood": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
    "headers-flood": b"X: y\r\n",
    "endless": bytes(16 << 10),
}
LOCATIONS = {
    "bad-location": "http://[::1/x",
    "no-host": "http://:80/x",
    "bad-port": "http://127.0.0.1:99999/x",
    "far-location": "file:///etc/hostname",
}
RETRY_AFTER = {
    "bad-retry-after": "\u00b2",
    "far-retry-after": "Fri, 31 Dec 99999999999999999999 23:59:59 GMT",
    "long-retry-after": "31536000",
}


@dataclass(frozen=True, slots=True)
class HostileServer:
    """A server that runs."""

    base_url: str
    log: Path

    def url(self, kind: str, where: str = "all", number: int = 0) -> str:
        """Return the URL of one source."""
        return f"{self.base_url}/{kind}/{where}/{number}"

    @property
    def requests(self) -> list[str]:
        """The paths that were asked for, in order."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@contextmanager
def hostile_server(root: Path, log: Path) -> Iterator[HostileServer]:
    """Serve a folder in another process.

    Args:
        log: file that gets the path of each request as a line.
    """
    command = [sys.executable, "-m", "tests.support.hostile_server", str(root), str(log)]
    server = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield HostileServer(f"http://127.0.0.1:{int(server.stdout.readline())}", log)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


class _Sources:
    def __init__(self, root: Path, log: Path) -> None:
        self._root = root
        self._log = log
        self._line = asyncio.Lock()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            path = head.split(" ")[1]
            with open(self._log, "a") as log:
                log.write(path + "\n")
            _, kind, where, number, name = unquote(path.partition("?")[0]).split("/", 4)
            found = re.search(r"(?im)^range: bytes=(\d+)-(\d*)", head)
            meant = re.search(WHERES[where], name) is not None
            if kind == "honest-slow" and meant and (self._root / name).is_file():
                async with self._line:
                    await asyncio.sleep((self._root / name).stat().st_size / int(number))
            await self._answer(writer, kind if meant else "honest", path, self._root / name, found)
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()

    async def _answer(self, writer: asyncio.StreamWriter, kind: str, url: str, path: Path, asked: re.Match[str] | None) -> None:
        data = path.read_bytes() if path.is_file() else None
        if kind in FLOOD and kind != "endless":
            if kind == "headers-flood":
                writer.write(b"HTTP/1.1 200 OK\r\n")
            await _repeat(writer, FLOOD[kind], 0)
        match kind:
            case "silent":
                await asyncio.sleep(3600)
            case "hang-up":
                return
            case "garbage":
                await _send(writer, b"\x16\x03\x01 what is this?\r\n\r\n" * 100)
            case "head-trickle":
                await _send(writer, b"HTTP/1.1 200 OK\r\nX: ")
                await _repeat(writer, b"a", TRICKLE_S)
            case "continue-trickle":
                await _repeat(writer, b"HTTP/1.1 100 Continue\r\n\r\n", TRICKLE_S)
            case "not-implemented":
                await _reply(writer, 501)
            case "switching":
                await _reply(writer, 101)
            case "denied":
                await _reply(writer, 403)
            case "odd-status":
                await _reply(writer, 299, b"what?")
            case "redirect-loop":
                await _reply(writer, 302, headers={"Location": url})
            case _ if kind in LOCATIONS:
                await _reply(writer, 302, headers={"Location": LOCATIONS[kind]})
            case _ if kind in RETRY_AFTER:
                await _reply(writer, 429 if kind == "long-retry-after" else 503, headers={"Retry-After": RETRY_AFTER[kind]})
            case _ if data is None or kind == "absent":
                await _reply(writer, 404)
            case _:
                await _object(writer, kind, data, asked)


async def _object(writer: asyncio.StreamWriter, kind: str, data: bytes, asked: re.Match[str] | None) -> None:
    """Answer with an object, or what a kind makes of it."""
    start = int(asked[1]) if asked else 0
    body = data[start : int(asked[2]) + 1 if asked and asked[2] else None]
    status = 206 if asked else 200
    headers = {"Content-Range": f"bytes {start}-{start + len(body) - 1}/{len(data)}"} if asked else {}
    match kind:
        case "body-trickle":
            await _send(writer, _head(200, {"Content-Length": str(len(data))}))
            for at in range(len(data)):
                await _send(writer, data[at : at + 1])
                await asyncio.sleep(TRICKLE_S)
        case "chunk-trickle":
            await _send(writer, _head(200, {"Transfer-Encoding": "chunked"}))
            await _repeat(writer, b"0", TRICKLE_S)
        case "endless":
            await _send(writer, _head(200, {}))
            await _repeat(writer, FLOOD[kind], 0)
        case "flip":
            changed = bytearray(body)
            changed[len(body) // 2] ^= 1
            await _reply(writer, status, bytes(changed), headers)
        case "short":
            await _reply(writer, status, body[: len(body) // 2], headers)
        case "cut":
            await _send(writer, _head(status, {**headers, "Content-Length": str(len(body))}) + body[: len(body) // 2])
        case "other-range":
            await _reply(writer, 206, body, {"Content-Range": f"bytes {start + 7}-{start + 6 + len(body)}/*"})
        case "bad-length":
            await _send(writer, _head(status, {**headers, "Content-Length": "\u00b2, -7"}) + body)
        case "bad-chunks":
            await _send(writer, _head(status, {**headers, "Transfer-Encoding": "chunked"}) + b"zz\r\n" + body)
        case "compressed":
            await _reply(writer, 200, gzip.compress(data), {"Content-Encoding": "gzip"})
        case _:
            await _reply(writer, status, body, headers)


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items()), "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1")


async def _reply(writer: asyncio.StreamWriter, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
    await _send(writer, _head(status, {**(headers or {}), "Content-Length": str(len(body))}) + body)


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _repeat(writer: asyncio.StreamWriter, data: bytes, pause_s: float) -> None:
    while True:
        await _send(writer, data)
        await asyncio.sleep(pause_s)


async def _serve(root: Path, log: Path) -> None:
    server = await asyncio.start_server(_Sources(root, log).answer, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Serve until killed; the port is the first line on standard output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("log", type=Path)
    options = parser.parse_args()
    asyncio.run(_serve(options.root, options.log))


if __name__ == "__main__":
    main()
