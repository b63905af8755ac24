"""An HTTP proxy before an object store's server that does one thing wrong at a time, as a test says, and writes down every request.

What it can do to a request: answer it itself, break its connection before or after it was carried out, change what it carries, cut or
change or delay its answer. Runs in threads of this process; with a certificate it speaks TLS.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

BACKEND_TIMEOUT_S = 60.0
READ_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    """Names in lower case."""
    body_bytes: int
    """By its Content-Length."""
    at_s: float

    @property
    def is_write(self) -> bool:
        """Whether it carries an object or a part of one, or begins or ends an upload."""
        return self.method in ("PUT", "POST", "PATCH")


@dataclass(frozen=True, slots=True)
class Answer:
    """Answered without asking the server."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class BreakBefore:
    """The connection is reset after so many bytes of the request; the server never sees it."""

    after_bytes: int = 0


@dataclass(frozen=True, slots=True)
class BreakAfter:
    """The server carries it out, then the connection is reset without an answer."""


@dataclass(frozen=True, slots=True)
class CutAnswer:
    """Half of the answer's body comes, then the end of the connection; ``is_hidden``: with a length that says that this is all."""

    is_hidden: bool = False


@dataclass(frozen=True, slots=True)
class ChangeAnswer:
    """A byte in the middle of the answer's body is another."""


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """A byte in the middle of the request's body is another."""


@dataclass(frozen=True, slots=True)
class Delay:
    """The answer comes so much later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class WithoutConditions:
    """The server is asked without the conditions of the request, as one that takes no notice of them carries it out."""


Fault = Answer | BreakBefore | BreakAfter | CutAnswer | ChangeAnswer | ChangeRequest | WithoutConditions | Delay
Script = Callable[[Request], Fault | None]


@dataclass(slots=True)
class StoreProxy:
    """A proxy that runs."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    script: Script = lambda _request: None
    hits: int = 0
    """How many faults there were."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail_once(self, fault: Fault, meets: Callable[[Request], bool] = lambda _request: True, times: int = 1) -> None:
        """Do this to the next requests that meet a condition, and forget what was before."""
        left = times

        def script(request: Request) -> Fault | None:
            nonlocal left
            if left == 0 or not meets(request):
                return None
            left -= 1
            return fault

        with self.lock:
            self.script, self.hits = script, 0
            self.requests.clear()

    def quiet(self) -> None:
        """Let everything pass."""
        self.fail_once(Delay(0), times=0)

    def judge(self, request: Request) -> Fault | None:
        """Write a request down and return what goes wrong with it."""
        with self.lock:
            self.requests.append(request)
            fault = self.script(request)
            self.hits += fault is not None
            return fault


_CONDITIONS = ("if-match", "if-none-match")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    backend: str
    proxy: StoreProxy

    def log_message(self, *arguments: object) -> None:
        pass

    def _handle(self) -> None:
        assert "chunked" not in self.headers.get("Transfer-Encoding", ""), "requests come with their length"
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, parts.path, parse_qs(parts.query, keep_blank_values=True), headers, length, time.monotonic())
        fault = self.proxy.judge(request)
        if isinstance(fault, BreakBefore):
            self._read(min(fault.after_bytes, length))
            self._reset()
            return
        body = self._read(length)
        if isinstance(fault, Answer):
            self._answer(fault.status, list(fault.headers), fault.body)
            return
        dropped = _CONDITIONS if isinstance(fault, WithoutConditions) else ()
        status, reply_headers, reply = self._forward(_changed(body) if isinstance(fault, ChangeRequest) else body, dropped)
        match fault:
            case BreakAfter():
                self._reset()
            case CutAnswer(is_hidden=False):
                self._answer(status, reply_headers, reply[: len(reply) // 2], len(reply))
                self._reset()
            case CutAnswer():
                self._answer(status, reply_headers, reply[: len(reply) // 2])
            case ChangeAnswer():
                self._answer(status, reply_headers, _changed(reply))
            case _:
                time.sleep(fault.seconds if isinstance(fault, Delay) else 0)
                self._answer(status, reply_headers, reply)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = _handle

    def _read(self, size: int) -> bytes:
        read = bytearray()
        while len(read) < size and (more := self.rfile.read(min(READ_BYTES, size - len(read)))):
            read += more
        return bytes(read)

    def _forward(self, body: bytes, dropped: tuple[str, ...]) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.backend, timeout=BACKEND_TIMEOUT_S)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ("expect", "connection", *dropped)}
            connection.request(self.command, self.path, body=body, headers=headers)
            reply = connection.getresponse()
            # An upload session of GCS has a URL of its own, made of either address; it must lead through here, over TLS if we speak it.
            ours = self.proxy.url
            here = [
                (name, value.replace(f"http://{self.backend}", ours).replace(f"http://{urlsplit(ours).netloc}", ours))
                for name, value in reply.getheaders()
            ]
            return reply.status, here, reply.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, length: int | None = None) -> None:
        self.send_response_only(status)
        told = str(len(body) if length is None else length)
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                told = value
            elif name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", told)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _reset(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            # Closing at once, without a lingering end, sends a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


def _changed(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *arguments: object) -> None:
        # Connections are broken on purpose.
        pass


@contextmanager
def store_proxy(backend_url: str, tls: ssl.SSLContext | None = None) -> Iterator[StoreProxy]:
    """Run the proxy before a server, over TLS where a context with a certificate is given."""
    proxy = StoreProxy()
    handler = type("Handler", (_Handler,), {"backend": urlsplit(backend_url).netloc, "proxy": proxy})
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    proxy.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
