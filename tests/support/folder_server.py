"""A plain web server over a folder, in a thread: GET and HEAD of files, with ranges or without."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Handler(SimpleHTTPRequestHandler):
    has_ranges: bool

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        file = Path(self.translate_path(self.path))
        if asked is None or not self.has_ranges or not file.is_file():
            super().do_GET()
            return
        data = file.read_bytes()
        start = int(asked[1])
        body = data[start : int(asked[2]) + 1 if asked[2] else None]
        self.send_response(206 if body else 416)
        self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(data)}" if body else f"bytes */{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def folder_server(folder: Path, *, has_ranges: bool = True) -> Iterator[str]:
    """Serve a folder on loopback; yield its URL."""
    handler = type("Handler", (_Handler,), {"has_ranges": has_ranges})
    with ThreadingHTTPServer(("127.0.0.1", 0), lambda *arguments: handler(*arguments, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
