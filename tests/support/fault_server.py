"""A plain HTTP server in a process of its own that serves a folder and misbehaves on request.

Faults apply to state parts alone; documents are served as they are, unless ``everything`` is set. Run by `fault_server`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import zstandard

from pipelines.stores.pace import Pace
from schemas.nearcore.borsh import BorshWriter

PROJECT = Path(__file__).resolve().parents[2]

FAULTS = (
    "none",
    "flip",  # a byte changed
    "swap",  # another part's bytes
    "short",  # a shorter body, whole by its own length
    "endless",  # a body that never ends
    "bomb",  # a zstd bomb of any size
    "stall",  # half of the body, then nothing
    "close",  # half of the body, then the connection is closed
    "busy",  # 429 with Retry-After
    "unavailable",  # 503
    "busy-once",  # 429 the first time for each object
    "deny",  # 403
    "deny-range",  # closes half-way, and answers ranges with 403
    "no-range",  # closes half-way the first time, and answers ranges with the whole object
    "missing",  # 404
    "compress",  # Content-Encoding: gzip
    "redirect",  # to the same object under another name
    "redirect-loop",
)
STALL_S = 600.0
BOMB_DECODED_BYTES = 256 << 20
WRITE_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that runs."""

    url: str
    log: Path

    @property
    def requests(self) -> list[str]:
        """What was asked: ``/name`` or ``/name bytes=N-``, in order."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@contextmanager
def fault_server(
    root: Path, log: Path, fault: str = "none", *, bytes_per_s: float | None = None, everything: bool = False, only: str = ""
) -> Iterator[RunningServer]:
    """Serve a folder in another process.

    Args:
        log: file that gets a line a request.
        bytes_per_s: rate of all connections together.
        only: faults apply to names that contain this.
    """
    command = [sys.executable, "-m", "tests.support.fault_server", str(root), str(log), "--fault", fault, "--only", only]
    command += [] if bytes_per_s is None else ["--rate", str(bytes_per_s)]
    command += ["--everything"] if everything else []
    server = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        yield RunningServer(f"http://127.0.0.1:{port}", log)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path
    log: Path
    fault: str
    only: str
    everything: bool
    pace: Pace | None
    seen: set[str]
    lock: threading.Lock

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        name = unquote(self.path).lstrip("/").partition("?")[0].removeprefix("moved/")
        ranged = self.headers.get("Range")
        with self.lock, open(self.log, "a") as log:
            log.write(f"/{name}" + (f" {ranged}" if ranged else "") + "\n")
            first = name not in self.seen
            self.seen.add(name)
        path = self.root / name
        if not path.is_file():
            self._answer(404, b"")
            return
        fault = self.fault if (self.everything or "/state_part_" in name) and self.only in name else "none"
        data = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", ranged) if ranged else None
        if asked is not None and asked[2] and (fault == "none" or not self.everything):
            # As torrent clients ask of a web seed, and stores for an object up to its limit.
            body = data[int(asked[1]) : int(asked[2]) + 1]
            self._body(206, body, {"Content-Range": f"bytes {asked[1]}-{asked[2]}/{len(data)}"})
            return
        start = int(asked[1]) if asked is not None else 0
        self._serve(fault, path, data, start, first=first)

    def _serve(self, fault: str, path: Path, data: bytes, start: int, *, first: bool) -> None:
        match fault:
            case "busy":
                self._answer(429, b"", {"Retry-After": "1"})
            case "busy-once" if first:
                self._answer(429, b"", {"Retry-After": "1"})
            case "unavailable":
                self._answer(503, b"")
            case "deny":
                self._answer(403, b"")
            case "missing":
                self._answer(404, b"")
            case "redirect" if not self.path.startswith("/moved/"):
                self._answer(302, b"", {"Location": f"/moved{self.path}"})
            case "redirect-loop":
                self._answer(302, b"", {"Location": self.path})
            case "deny-range" if start:
                self._answer(403, b"")
            case "deny-range" | "no-range" if first:
                self._broken(data, stall=False)
            case "no-range":
                self._body(200, data, {})
            case "close":
                # Half of what is left each time: a client that resumes gets to the end.
                rest = data[start:]
                if len(rest) > 1000:
                    self._broken(rest, stall=False, status=206 if start else 200, start=start)
                else:
                    self._body(206 if start else 200, rest, _content_range(start, len(data)))
            case "stall":
                self._broken(data[start:], stall=True, status=206 if start else 200, start=start)
            case "endless":
                self._endless()
            case "compress":
                self._body(200, data, {"Content-Encoding": "gzip"})
            case _:
                body = _damaged(fault, path, data)
                if start >= len(body) and start:
                    self._answer(416, b"")
                elif start:
                    self._body(206, body[start:], _content_range(start, len(body)))
                else:
                    self._body(200, body, {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _body(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self._write(body)

    def _broken(self, body: bytes, *, stall: bool, status: int = 200, start: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/*")
        self.end_headers()
        self._write(body[: len(body) // 2])
        self.wfile.flush()
        if stall:
            time.sleep(STALL_S)
        self.close_connection = True

    def _endless(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        while True:
            self._write(bytes(WRITE_BYTES))

    def _write(self, body: bytes) -> None:
        for begin in range(0, len(body), WRITE_BYTES):
            piece = body[begin : begin + WRITE_BYTES]
            if self.pace is not None:
                time.sleep(self.pace.book_passed(len(piece)))
            self.wfile.write(piece)


def _content_range(start: int, size: int) -> dict[str, str]:
    return {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if start else {}


def _damaged(fault: str, path: Path, data: bytes) -> bytes:
    match fault:
        case "flip":
            return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
        case "swap":
            others = [other for other in sorted(path.parent.iterdir()) if other != path]
            return others[0].read_bytes() if others else data[::-1]
        case "short":
            return data[: len(data) // 2]
        case "bomb":
            return zstd_bomb()[: len(data)].ljust(len(data), b"\0")
    return data


@lru_cache
def zstd_bomb() -> bytes:
    """Return a small V1 part that decodes to `BOMB_DECODED_BYTES`."""
    return BorshWriter().u8(1).byte_vec(zstandard.ZstdCompressor(level=3).compress(bytes(BOMB_DECODED_BYTES))).to_bytes()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: object) -> None:
        pass


def main() -> None:
    """Serve until killed; the port is the first line on standard output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("--fault", choices=FAULTS, default="none")
    parser.add_argument("--only", default="")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--everything", action="store_true")
    options = parser.parse_args()
    _Handler.root, _Handler.log, _Handler.fault, _Handler.only = options.root, options.log, options.fault, options.only
    _Handler.everything = options.everything
    _Handler.pace = None if options.rate is None else Pace(options.rate)
    _Handler.seen, _Handler.lock = set(), threading.Lock()
    if options.fault == "bomb":
        # Made before the first request, or the server would seem to stall.
        zstd_bomb()
    server = _Server(("127.0.0.1", 0), _Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
