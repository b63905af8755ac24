"""A web server in a process of its own that is as many hostile sources as its URLs name: the first folder of a path says which kind.

``http://…/KIND/WHERE/N`` serves the folder that the server was given, honestly but for the names that ``WHERE`` means: there it does
what `KINDS` says. ``N`` tells sources of one kind apart. ``http://…/honest/all/0`` is a source like any other; ``http://…/honest-slow/parts/N`` sends all
parts together at N bytes a second.

It speaks S3 too: ``s3://KIND.WHERE.N`` is the same source as a bucket, for a client that has `HostileServer.s3_environment`. A listing
counts as a document; `LISTING_KINDS` are honest but for it.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

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

LISTING_KINDS = (
    "list-endless",  # one page after another, each of new names
    "list-again",  # the first page again and again
    "list-huge",  # one page that never ends
    "list-nonsense",  # XML that is no listing
    "list-bomb",  # entities of entities
    "list-numbers",  # sizes that are none
    "list-elsewhere",  # names outside of what was asked for, and such as no store has
    "other-region",  # "ask another region", which is a host's name
    "odd-error",  # an error whose words are control characters
)
"""What a bucket does besides."""

S3_KINDS = (*KINDS, *LISTING_KINDS)
PAGE_NAMES = 100

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

    def s3_url(self, kind: str, where: str = "all", number: int = 0) -> str:
        """Return the URL of one source as a bucket."""
        return f"s3://{kind}.{where}.{number}"

    @property
    def s3_environment(self) -> dict[str, str]:
        """The variables with which a client of S3 asks this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.base_url,
            "AWS_ACCESS_KEY_ID": "anybody",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

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
            asks = self._answer_s3 if "." in path.partition("?")[0].split("/")[1] else self._answer_http
            await asks(writer, head, path)
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()

    async def _answer_http(self, writer: asyncio.StreamWriter, head: str, path: str) -> None:
        _, kind, where, number, name = unquote(path.partition("?")[0]).split("/", 4)
        found = re.search(r"(?im)^range: bytes=(\d+)-(\d*)", head)
        meant = re.search(WHERES[where], name) is not None
        if kind == "honest-slow" and meant and (self._root / name).is_file():
            async with self._line:
                await asyncio.sleep((self._root / name).stat().st_size / int(number))
        await self._answer(writer, kind if meant else "honest", path, self._root / name, found)

    async def _answer_s3(self, writer: asyncio.StreamWriter, head: str, path: str) -> None:
        asked, _, query = path.partition("?")
        _, bucket, name = f"{unquote(asked)}/".split("/", 2)
        name = name.rstrip("/")
        kind, where, _number = bucket.split(".")
        method, words = head.partition(" ")[0], parse_qs(query)
        meant = re.search(WHERES[where], name or "latest.json") is not None
        if method not in ("GET", "HEAD"):
            await _reply(writer, 403, b"<Error><Code>AccessDenied</Code></Error>")
        elif kind == "other-region" and meant:
            error = b"<Error><Code>PermanentRedirect</Code><Endpoint>127.0.0.1:9</Endpoint><Region>127.0.0.1:9/x?</Region></Error>"
            await _reply(writer, 301, error, {"x-amz-bucket-region": "127.0.0.1:9/x?"})
        elif kind == "odd-error" and meant:
            await _reply(writer, 400, b"<Error><Code>&#x9b;[/x]\xc2\x9b2J</Code><Message>[link=x]\xc2\x9d0;</Message></Error>")
        elif name:
            kind = "honest" if kind in LISTING_KINDS else kind
            found = re.search(r"(?im)^range: bytes=(\d+)-(\d*)", head)
            file = self._root / name
            if method == "HEAD" and (not meant or kind in ("honest", "flip")) and file.is_file():
                await _send(writer, _head(200, {**_stored(file.read_bytes()), "Content-Length": str(file.stat().st_size)}))
            else:
                await self._answer(writer, kind if meant else "honest", path, file, found, is_s3=True)
        elif kind == "list-huge":
            await _send(writer, _head(200, {}) + b"<ListBucketResult>")
            await _repeat(writer, b"<Contents><Key>x</Key><Size>1</Size></Contents>" * 1000, 0)
        else:
            page = self._page(kind, words.get("prefix", [""])[0], words.get("continuation-token", [""])[0])
            if kind in LISTING_KINDS or not meant:
                await _reply(writer, 200, page)
            else:
                await self._answer(writer, kind, path, page, None)

    def _page(self, kind: str, prefix: str, token: str) -> bytes:
        """Return a page of a listing as S3's ``ListObjectsV2`` answers."""
        if kind == "list-nonsense":
            return b"<a><Contents>7</Contents><IsTruncated>perhaps</IsTruncated></a>"
        if kind == "list-bomb":
            entities = "".join(f'<!ENTITY e{one} "{f"&e{one - 1};" * 10}">' for one in range(1, 12))
            return f'<!DOCTYPE x [<!ENTITY e0 "x">{entities}]><ListBucketResult><Name>&e11;</Name></ListBucketResult>'.encode()
        names = sorted(str(path.relative_to(self._root)) for path in self._root.rglob("*") if path.is_file())
        entries = [(name, str((self._root / name).stat().st_size)) for name in names if name.startswith(prefix)]
        more = ""
        if kind in ("list-endless", "list-again"):
            first = int(token or 0)
            entries = [(f"{prefix}{number:012}", "1") for number in range(first, first + PAGE_NAMES)]
            more = f"<NextContinuationToken>{first + PAGE_NAMES if kind == 'list-endless' else 0}</NextContinuationToken>"
        if kind == "list-numbers":
            entries = [(name, size) for name, _ in entries for size in ("\u00b2", "-1", "9" * 40, "")]
        if kind == "list-elsewhere":
            entries = [(name, "1") for name in ("../x", "/etc/hostname", f"{prefix}/../../x", f"{prefix}//", "x" * 70_000, "\u009b2J", ".")]
        listed = "".join(
            f'<Contents><Key>{escape(name)}</Key><Size>{size}</Size><ETag>"x"</ETag><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>'
            for name, size in entries
        )
        truncated = "true" if more else "false"
        return f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{listed}</ListBucketResult>".encode()

    async def _answer(
        self, writer: asyncio.StreamWriter, kind: str, url: str, found: Path | bytes, asked: re.Match[str] | None, *, is_s3: bool = False
    ) -> None:
        data = found if isinstance(found, bytes) else found.read_bytes() if found.is_file() else None
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
                await _object(writer, kind, data, asked, _stored(data) if is_s3 else {})


async def _object(writer: asyncio.StreamWriter, kind: str, data: bytes, asked: re.Match[str] | None, stored: dict[str, str]) -> None:
    """Answer with an object and the headers it is stored with, or what a kind makes of them."""
    start = int(asked[1]) if asked else 0
    body = data[start : int(asked[2]) + 1 if asked and asked[2] else None]
    status = 206 if asked else 200
    headers = {"Content-Range": f"bytes {start}-{start + len(body) - 1}/{len(data)}"} if asked else {}
    headers |= stored
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


def _stored(data: bytes) -> dict[str, str]:
    """Return the headers of a stored object, by which its versions are told apart."""
    return {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}


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
