"""A web server of a folder that sends so many bytes a second over all its connections, in a process of its own.

    python -m benchmarks.limited_server FOLDER BYTES_PER_SECOND

Prints its port and serves until it is killed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

from pipelines.stores.pace import Pace

WRITE_BYTES = 16 << 10


@contextmanager
def limited_server(folder: Path, bytes_per_s: float) -> Iterator[str]:
    """Run a server; yield its URL."""
    command = [sys.executable, "-m", "benchmarks.limited_server", str(folder), str(bytes_per_s)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, pace: Pace, **named: Any) -> None:
        self._pace = pace
        super().__init__(*arguments, **named)

    def copyfile(self, source: Any, outputfile: Any) -> None:
        _copy_paced(source, outputfile, self._pace)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def _copy_paced(source: IO[bytes], target: IO[bytes], pace: Pace) -> None:
    while data := source.read(WRITE_BYTES):
        time.sleep(pace.book(len(data)))
        target.write(data)


def main() -> None:
    """Serve."""
    folder, bytes_per_s = sys.argv[1:]
    handler = partial(_Handler, directory=folder, pace=Pace(float(bytes_per_s)))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
