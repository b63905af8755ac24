"""Health and metrics: what strangers send costs them a connection, and the command a count."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipelines.execution import status_server as module
from pipelines.execution.status_server import CONNECTIONS_MAX, Health, status_server
from schemas.address import Address

NO_REQUESTS = (
    b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\xfc\r\n\r\n", b"BAD \x1b]0;x\x07\r\n\r\n", b"A" * 70_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"GET http://[ HTTP/1.1 x\r\n\r\n",
)  # fmt: skip


class Up(Collector):
    """A metric."""

    def collect(self) -> Iterator[Metric]:
        """Yield it."""
        yield GaugeMetricFamily("up", "Whether it is up.", 1)


@pytest.fixture
def port() -> Iterator[int]:
    """Serve health with a secret in it."""
    facts = {"last_problem": "no answer from https://user:s3cr3t@host/"}
    with status_server(Address("127.0.0.1", 0), Up(), lambda: Health("", facts)) as port:
        yield port


def get(port: int, path: str) -> tuple[int, str]:
    """Ask for a page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def send(port: int, data: bytes) -> None:
    """Send something and wait until the server has done with it."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(data)
            while connection.recv(65_536):
                pass
        except ConnectionError:
            return


def refused(port: int) -> dict[str, int]:
    """Return the counts."""
    lines = [line for line in get(port, "/metrics")[1].splitlines() if line.startswith("statecast_status_requests_refused_total")]
    return {line.partition('"')[2].partition('"')[0]: int(float(line.rpartition(" ")[2])) for line in lines}


def test_health_and_metrics_are_answered(port: int) -> None:
    """Without secrets of URLs."""
    assert get(port, "/healthz") == (200, json.dumps({"status": "ok", "last_problem": "no answer from https://...@host/"}))
    assert "up 1.0" in get(port, "/metrics")[1] and get(port, "/else")[0] == 404


def test_what_is_no_request_is_counted_and_told_in_one_line(
    port: int, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it is; also a client that goes away in the midst."""
    for data in NO_REQUESTS:
        send(port, data)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /healthz HT")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    deadline_s = time.monotonic() + 10
    while (found := refused(port)["malformed"]) <= len(NO_REQUESTS) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert found == len(NO_REQUESTS) + 1
    assert [record.getMessage() for record in caplog.records] == ["1 requests for health or metrics got no answer, the last: malformed"]
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err + captured.out


def test_no_more_connections_than_a_bound_and_none_for_ever(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends a byte now and then holds one for no longer than another; what is one too many is closed at once."""
    before = threading.active_count()
    with ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))

        held = [connect() for _ in range(CONNECTIONS_MAX)]
        for _ in range(20):
            assert connect().recv(1) == b"", "closed"
        assert threading.active_count() <= before + CONNECTIONS_MAX
        with monkeypatch.context() as patch:
            patch.setattr(module, "CONNECTION_TIMEOUT_S", 0.0)
            for connection in held:
                connection.sendall(b"G")
                while connection.recv(4096):
                    pass
        assert refused(port) == {"malformed": 0, "too_many": 20, "too_slow": CONNECTIONS_MAX}
