"""A plain HTTP proxy before an object store's server, in a thread of this process, that injects faults by a seed.

The faults are those that real stores show: refused for the moment, a connection that breaks before or after the request was carried
out, a slow reply. With no rates it passes everything on.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

UNAVAILABLE_XML = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>injected</Message></Error>"
BACKEND_TIMEOUT_S = 60.0


@dataclass(slots=True)
class FaultPlan:
    """Which share of requests goes wrong in which way; may be changed at any time."""

    seed: int = 0
    unavailable: float = 0.0
    """503, nothing was done."""
    broken: float = 0.0
    """The connection is closed, nothing was done."""
    reply_lost: float = 0.0
    """The connection is closed after the request was carried out."""
    slow_s: float = 0.0
    """Every reply comes so much later, on the average."""
    injected: Counter[str] = field(default_factory=Counter)
    generator: random.Random = field(init=False)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.generator = random.Random(self.seed)

    def next_fault(self) -> tuple[str, float]:
        """Return what goes wrong with the next request, and how long it is held up."""
        with self.lock:
            dice, delay_s = self.generator.random(), self.slow_s * 2 * self.generator.random()
            fault = "none"
            for name, share in (("unavailable", self.unavailable), ("broken", self.broken), ("reply lost", self.reply_lost)):
                if dice < share:
                    fault = name
                    break
                dice -= share
            self.injected[fault] += 1
            return fault, delay_s

    def quiet(self) -> None:
        """Let everything pass from now on."""
        self.unavailable = self.broken = self.reply_lost = self.slow_s = 0.0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    backend: str
    plan: FaultPlan

    def log_message(self, *arguments: object) -> None:
        pass

    def _handle(self) -> None:
        assert "chunked" not in self.headers.get("Transfer-Encoding", ""), "requests come with their length"
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault, delay_s = self.plan.next_fault()
        time.sleep(delay_s)
        if fault == "unavailable":
            self._answer(503, [("Content-Type", "application/xml")], UNAVAILABLE_XML)
        elif fault == "broken":
            self.close_connection = True
        else:
            status, headers, reply = self._forward(body)
            if fault == "reply lost":
                self.close_connection = True
            else:
                self._answer(status, headers, reply)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.backend, timeout=BACKEND_TIMEOUT_S)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ("expect", "connection")}
            connection.request(self.command, self.path, body=body, headers=headers)
            reply = connection.getresponse()
            return reply.status, reply.getheaders(), reply.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *arguments: object) -> None:
        # Clients are killed in the middle of their requests.
        pass


@contextmanager
def fault_proxy(backend_url: str, plan: FaultPlan) -> Iterator[str]:
    """Run the proxy before a server; yield its URL."""
    handler = type("Handler", (_Handler,), {"backend": urlsplit(backend_url).netloc, "plan": plan})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
