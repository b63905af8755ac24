"""Calls of a JSON-RPC endpoint: what is retried, what is refused, how much is asked and taken, and what is never said."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from pipelines.near.epoch.rpc_client import RpcAnswer, RpcClient, RpcLimits
from schemas.errors import InvalidInputError, SourceError
from tests.support.rpc_server import Fault, reset, rpc_server, send

QUICK = RpcLimits(timeout_s=120, requests_per_s=10_000, attempts_max=3, wait_first_s=0.001, wait_max_s=0.002)
BLOCK = {"block_id": 204}


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now_s += seconds


def bad_at(numbers: set[int], fault: Fault) -> Fault:
    """Return a fault of some requests."""
    return lambda handler, number: number in numbers and fault(handler, number)


def status(code: int, body: bytes = b"busy") -> Fault:
    """Return a fault that is an HTTP status."""

    def answer(handler: BaseHTTPRequestHandler, number: int) -> bool:
        send(handler, code, body)
        return True

    return answer


def error_body(name: str | None, code: int = -32000) -> bytes:
    """Return an answer with an error."""
    cause = {} if name is None else {"cause": {"name": name}}
    return json.dumps({"jsonrpc": "2.0", "id": "statecast", "error": {"code": code, "message": "Server error", **cause}}).encode()


def cut(handler: BaseHTTPRequestHandler, number: int) -> bool:
    """Send half of an answer and hang up."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"result"')
    handler.close_connection = True
    return True


def hang_up(handler: BaseHTTPRequestHandler, number: int) -> bool:
    """Reset the connection."""
    reset(handler)
    return True


PASSING: dict[str, Fault] = {
    "500": status(500),
    "502 with HTML": status(502, b"<html>"),
    "429": status(429),
    "408": status(408),
    "reset": hang_up,
    "half an answer": cut,
    "garbage": status(200, b"\xff{"),
    "no JSON-RPC": status(200, b"{}"),
    "a list": status(200, b"[1]"),
    "nested": status(200, b"[" * 100_000),
    "INTERNAL_ERROR": status(200, error_body("INTERNAL_ERROR")),
    "TIMEOUT_ERROR": status(408, error_body("TIMEOUT_ERROR")),
    "too many": status(200, error_body(None, -429)),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_fault_of_the_moment_is_tried_again(fault: Fault) -> None:
    """The third attempt gets the answer."""
    with rpc_server(fault=bad_at({0, 1}, fault)) as server:
        answer = RpcClient(server.url, QUICK).call("block", BLOCK)
    assert answer.result["header"]["height"] == 204
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_fault_that_stays_is_an_error_that_names_the_endpoint(fault: Fault) -> None:
    """After the attempts are used up, and not before."""
    with rpc_server(fault=fault) as server, pytest.raises(SourceError, match="no usable answer in 3 attempts") as caught:
        RpcClient(server.url, QUICK).call("block", BLOCK)
    assert server.url in caught.value.where
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (status(401), "refuses access"),
        (status(403), "refuses access"),
        (status(404), "HTTP 404"),
        (status(302), "HTTP 302"),
        (status(200, error_body("METHOD_NOT_FOUND")), "METHOD_NOT_FOUND"),
        (status(400, error_body("PARSE_ERROR")), "PARSE_ERROR"),
        (status(200, error_body(None)), "error -32000"),
        (status(200, error_body("see http://host/key")), "error -32000"),
    ],
)
def test_what_will_not_get_better_is_not_tried_again(fault: Fault, word: str) -> None:
    """One request, and the error says what was answered, as far as it is a plain name."""
    with rpc_server(fault=fault) as server, pytest.raises(SourceError, match=word) as caught:
        RpcClient(server.url, QUICK).call("block", BLOCK)
    assert len(server.requests) == 1
    assert "http://host" not in str(caught.value)


@pytest.mark.parametrize("name", ["UNKNOWN_BLOCK", "GARBAGE_COLLECTED_BLOCK", "UNKNOWN_EPOCH", "NOT_SYNCED_YET"])
@pytest.mark.parametrize("code", [200, 422, 500])
def test_not_to_know_is_an_answer(name: str, code: int) -> None:
    """Whatever status a node's version says it with."""
    with rpc_server(fault=status(code, error_body(name))) as server:
        assert RpcClient(server.url, QUICK).call("block", BLOCK) == RpcAnswer(not_known=name)


def test_an_answer_that_is_too_long_is_refused() -> None:
    """Not read to its end, and not asked for again."""
    limits = RpcLimits(answer_bytes_max=1000)
    with rpc_server() as server, pytest.raises(SourceError, match="more than 1000 bytes"):
        RpcClient(server.url, limits).call("block", BLOCK)
    assert len(server.requests) == 1


@pytest.fixture
def stalled() -> Iterator[Fault]:
    """A fault that sends the beginning of an answer and then nothing, until the test is over."""
    over = threading.Event()

    def stall(handler: BaseHTTPRequestHandler, number: int) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"result"')
        handler.wfile.flush()
        over.wait(60)
        return True

    yield stall
    over.set()


def test_an_endpoint_that_stalls_is_given_up(stalled: Fault) -> None:
    """Bytes must keep coming."""
    limits = RpcLimits(timeout_s=0.05, attempts_max=2, wait_first_s=0.001)
    with rpc_server(fault=stalled) as server, pytest.raises(SourceError, match="no answer within"):
        RpcClient(server.url, limits).call("block", BLOCK)


def test_an_endpoint_that_drips_is_given_up(stalled: Fault) -> None:
    """And the answer must be whole in time, however steadily it comes."""
    ticks = itertools.count()
    limits = RpcLimits(timeout_s=10, attempts_max=1)
    client_clock = lambda: next(ticks) * 11.0  # noqa: E731
    with rpc_server(fault=stalled) as server, pytest.raises(SourceError, match="not whole after 10 s"):
        RpcClient(server.url, limits, clock=client_clock, sleep=lambda seconds: None).call("block", BLOCK)


def test_the_rate_is_kept() -> None:
    """Of twelve requests at two a second each but the first waits half a second, those of retries too."""
    clock = Clock()
    limits = RpcLimits(requests_per_s=2, attempts_max=3, wait_first_s=0.001, wait_max_s=0.002)
    with rpc_server(fault=bad_at({4, 5}, status(500))) as server:
        client = RpcClient(server.url, limits, clock=clock, sleep=clock.sleep)
        for _ in range(10):
            client.call("block", BLOCK)
    assert len(server.requests) == 12
    assert clock.slept == pytest.approx([0.5] * 11)


def test_an_endpoint_that_has_rested_is_not_waited_for() -> None:
    """The rate is a distance, not a debt."""
    clock = Clock()
    with rpc_server() as server:
        client = RpcClient(server.url, RpcLimits(requests_per_s=2), clock=clock, sleep=clock.sleep)
        for _ in range(3):
            client.call("block", BLOCK)
            clock.now_s += 0.5
    assert clock.slept == []


# keys in the URL


def secret_url(url: str) -> str:
    """Return an endpoint's URL with a key wherever one can be."""
    return url.replace("http://", "http://user:secretpassword@") + "/secretpath?apikey=secretquery"


FAULTS: list[Fault] = [status(500), status(403), hang_up, cut, status(200, b"secretpath"), status(200, error_body("secretname"))]


@pytest.mark.parametrize("fault", FAULTS)
def test_keys_are_sent_and_never_said(fault: Fault, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither in an error nor in a name, nor in what is logged on the way."""
    with rpc_server(fault=fault) as server:
        client = RpcClient(secret_url(server.url), QUICK)
        with pytest.raises(SourceError) as caught:
            client.call("block", BLOCK)
    assert server.paths[0] == "/secretpath?apikey=secretquery"
    assert server.headers[0]["authorization"].startswith("Basic ")
    said = f"{caught.value} {caught.value.to_json()} {client!r} {client.source_id} {caught.value.__cause__!r} {capsys.readouterr()}"
    assert "secret" not in said
    assert server.url.removeprefix("http://") in client.source_id


def test_an_endpoint_that_is_not_there_is_said_without_its_key() -> None:
    """A refused connection is no timeout."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(SourceError, match="refused") as caught:
            RpcClient(secret_url(url), QUICK).call("block", BLOCK)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["", "secret", "ftp://secret/", "http://", "http://host:secret/", "http://host:99999/secret", "http://host/#secret", "https:///secret"],
)
def test_what_is_no_endpoint_is_refused_without_repeating_it(url: str) -> None:
    """It may be a key that was given in the wrong place."""
    with pytest.raises(InvalidInputError, match="--rpc") as caught:
        RpcClient(url)
    assert "secret" not in str(caught.value)


def test_calls_are_json_rpc() -> None:
    """A POST with method and params."""
    with rpc_server() as server:
        answer: Any = RpcClient(server.url, QUICK).call("validators", {"epoch_id": "3jRZ8aoF7c92LXvfL7FCe4tqNzypHe5n7fDD3DP3hZ7H"})
    assert server.requests == [("validators", {"epoch_id": "3jRZ8aoF7c92LXvfL7FCe4tqNzypHe5n7fDD3DP3hZ7H"})]
    assert answer.result["epoch_height"] == 6
