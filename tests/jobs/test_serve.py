"""``statecast serve`` as a process of its own: what it gives, what it does not, and its limits."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.commands import statecast
from tests.support.json_process import WAIT_S, JsonProcess, running_mirror
from tests.support.random_epochs import RandomEpoch, publish_random_epoch

SIZE = 1_000_000


@dataclass(frozen=True, slots=True)
class Served:
    """A mirror of one epoch with one large part and an empty one."""

    mirror: JsonProcess
    port: int
    epoch: RandomEpoch

    @property
    def part_path(self) -> str:
        """The large part's path."""
        return f"/{self.epoch.layout.shard_folder(0)}/state_part_000000_of_000002"

    @property
    def part(self) -> bytes:
        """The large part."""
        return (self.epoch.bucket / self.part_path[1:]).read_bytes()


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve an epoch without limits."""
    bucket = tmp_path_factory.mktemp("bucket")
    epoch = publish_random_epoch(bucket, shards={0: [SIZE, 0]})
    (bucket / ".hidden").write_text("secret")
    (bucket / ".statecast-tmp").mkdir()
    (bucket / ".statecast-tmp/half").write_text("secret")
    (bucket / "key.json").write_text("secret")
    (bucket / epoch.layout.folder / "notes.txt").write_text("secret")
    (bucket.parent / "outside").write_text("secret")
    (bucket / epoch.layout.shard_folder(0) / "state_part_000001_of_000009").symlink_to(bucket.parent / "outside")
    (bucket / epoch.layout.shard_folder(0) / "state_part_000002_of_000009").mkdir()
    with running_mirror(bucket) as (mirror, url):
        yield Served(mirror, urlsplit(url).port or 0, epoch)


def ask(port: int, path: str, method: str = "GET", **headers: str) -> Answer:
    """Ask as the path is written: nothing is cleaned up on the way."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def test_an_object_comes_whole_with_its_digest(served: Served) -> None:
    """Length, type, published SHA-256 as Repr-Digest and ETag, and leave to keep it."""
    answer = ask(served.port, served.part_path)
    digest = hashlib.sha256(served.part)
    assert (answer.status, answer.body) == (200, served.part)
    assert answer.headers["Content-Length"] == str(SIZE)
    assert answer.headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert answer.headers["ETag"] == f'"{digest.hexdigest()}"'
    assert "immutable" in answer.headers["Cache-Control"]
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_head_tells_the_same_and_sends_nothing(served: Served) -> None:
    """Every field of the answer to GET, without the body."""
    got, headed = ask(served.port, served.part_path), ask(served.port, served.part_path, "HEAD")
    assert (headed.status, headed.body) == (200, b"")
    ignored = {"Date", "Server"}
    assert {k: v for k, v in headed.headers.items() if k not in ignored} == {k: v for k, v in got.headers.items() if k not in ignored}


@pytest.mark.parametrize(
    ("field", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=999999-", SIZE - 1, SIZE),
        ("bytes=500000-9999999", 500_000, SIZE),
        ("bytes=-5", SIZE - 5, SIZE),
        ("bytes=-9999999", 0, SIZE),
    ],
)
def test_one_range_is_served(served: Served, field: str, start: int, stop: int) -> None:
    """From a byte to a byte, to the end, and the last ones."""
    answer = ask(served.port, served.part_path, Range=field)
    assert (answer.status, answer.body) == (206, served.part[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["Content-Length"] == str(stop - start)


@pytest.mark.parametrize("field", ["bytes=1000000-", "bytes=1000000-1000001", "bytes=-0"])
def test_a_range_outside_is_refused(served: Served, field: str) -> None:
    """416, with the size."""
    answer = ask(served.port, served.part_path, Range=field)
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize("field", ["bytes=0-1,5-6", "bytes=9-3", "lines=1-2", "bytes=", f"bytes={'9' * 5000}-"])
def test_what_is_no_single_range_is_left_out(served: Served, field: str) -> None:
    """The whole object comes, as the standard lets a server do."""
    answer = ask(served.port, served.part_path, Range=field)
    assert (answer.status, len(answer.body)) == (200, SIZE)


def test_a_range_of_another_version_is_left_out(served: Served) -> None:
    """If-Range with the right ETag gives the range, with another one the whole."""
    etag = ask(served.port, served.part_path, "HEAD").headers["ETag"]
    assert ask(served.port, served.part_path, Range="bytes=0-9", If_Range=etag).status == 206
    assert ask(served.port, served.part_path, Range="bytes=0-9", If_Range='"other"').status == 200


def test_what_a_client_has_is_not_sent_again(served: Served) -> None:
    """If-None-Match with the ETag gives 304 without a body."""
    etag = ask(served.port, served.part_path, "HEAD").headers["ETag"]
    answer = ask(served.port, served.part_path, If_None_Match=f'"x", {etag}')
    assert (answer.status, answer.body) == (304, b"")


def test_an_empty_object_is_an_object(served: Served) -> None:
    """200 and no byte; no range of it exists."""
    path = served.part_path.replace("part_000000", "part_000001")
    assert (ask(served.port, path).status, ask(served.port, path).body) == (200, b"")
    assert ask(served.port, path, Range="bytes=0-").status == 416


def test_documents_are_served_fresh(served: Served) -> None:
    """The pointer and the manifest change, so they are asked for again each time."""
    for name in (served.epoch.layout.manifest, "chain_id=testnet/latest.json"):
        answer = ask(served.port, f"/{name}")
        assert (answer.status, answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (200, "application/json", "no-cache")
        assert answer.body == (served.epoch.bucket / name).read_bytes()
    assert ask(served.port, f"/{served.epoch.layout.torrent(0)}").body == served.epoch.torrent()


def test_names_may_be_quoted(served: Served) -> None:
    """As BitTorrent clients quote them for web seeds."""
    assert ask(served.port, served.part_path.replace("=", "%3d")).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/chain_id=testnet",
        "/chain_id=testnet/",
        "/key.json",
        "/.hidden",
        "/.statecast-tmp/half",
        "/../outside",
        "/%2e%2e/outside",
        "/..%2foutside",
        "//etc/passwd",
        "/chain_id=testnet/../../outside",
        "/EPOCH/notes.txt",
        "/EPOCH/shard_id=0",
        "/EPOCH/shard_id=00/state_part_000000_of_000002",
        "/EPOCH/shard_id=0/../shard_id=0/state_part_000000_of_000002",
        "/EPOCH/shard_id=0/state_part_000000_of_000002%00",
        "/EPOCH/shard_id=0/state_part_000001_of_000009",
        "/EPOCH/shard_id=0/state_part_000002_of_000009",
        "/EPOCH/shard_id=0/state_part_000000_of_000002.tmp",
        "/EPOCH/shard_id=0/.pad/1000",
        "/EPOCH/" + "a" * 3000,
    ],
)
def test_nothing_else_is_there(served: Served, path: str) -> None:
    """Listings, other files, ways out of the folder, links out of it, and other spellings are not found."""
    answer = ask(served.port, path.replace("EPOCH", served.epoch.layout.folder))
    # A client that cleans a path up asks for the object itself; what counts is that nothing else comes.
    assert answer.status in (400, 404) or answer.body == served.part
    assert b"secret" not in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(served: Served, method: str) -> None:
    """405, with those that there are."""
    answer = ask(served.port, served.part_path, method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_a_changed_part_is_not_given_the_published_digest(served: Served, tmp_path: Path) -> None:
    """A file of another size than the manifest says has no digest, and an ETag of its own."""
    epoch = publish_random_epoch(tmp_path, shards={0: [1000]})
    (path,) = (tmp_path / epoch.layout.shard_folder(0)).iterdir()
    path.write_bytes(b"short")
    with running_mirror(tmp_path) as (_, url):
        answer = ask(urlsplit(url).port or 0, f"/{path.relative_to(tmp_path)}")
    assert (answer.status, answer.body) == (200, b"short")
    assert "Repr-Digest" not in answer.headers


def test_every_request_leaves_a_line(served: Served) -> None:
    """Client, object, status, bytes and time of each request."""
    ask(served.port, served.part_path, Range="bytes=7-11", User_Agent="a test")
    line = served.mirror.wait_for(lambda line: line.get("range") == "bytes=7-11")
    assert (line["client"], line["method"], line["path"], line["status"]) == ("127.0.0.1", "GET", served.part_path, 206)
    assert (line["bytes_sent"], line["agent"]) == (5, "a test")


def test_health_is_told(served: Served) -> None:
    """For liveness probes."""
    answer = ask(served.port, "/healthz")
    document = json.loads(answer.body)
    assert (answer.status, document["status"], set(document)) == (200, "ok", {"status", "malformed_requests", "connections_turned_away"})


def test_what_is_no_request_is_refused_counted_and_told_in_one_line(served: Served) -> None:
    """With 400, and no traceback; a request's own words reach the log as text."""
    before = json.loads(ask(served.port, "/healthz").body)["malformed_requests"]
    malformed = (b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"A" * 100_000 + b"\r\n\r\n", b"G\x1b]0;x\x07 / HTTP/1.1\r\n\r\n")
    for data in malformed:
        with socket.create_connection(("127.0.0.1", served.port), timeout=WAIT_S) as connection:
            connection.sendall(data)
            assert b" 400 " in connection.recv(100)
    assert ask(served.port, "/%1b%5d0%3bx%07%5b/x%5d", User_Agent="\x9b31m").status == 404
    assert json.loads(ask(served.port, "/healthz").body)["malformed_requests"] == before + len(malformed)
    assert len([line for line in served.mirror.lines() if line.get("status") == 400 and not line["method"]]) >= len(malformed)
    assert served.mirror.errors == ""


def test_a_connection_too_many_is_told_to_come_back(tmp_path: Path) -> None:
    """503 with Retry-After; when one goes, the next is served."""
    publish_random_epoch(tmp_path)
    with running_mirror(tmp_path, "--connections", 2) as (_, url):
        port = urlsplit(url).port or 0
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        for connection in held:
            # An answer shows that the server has taken it.
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
        answer = ask(port, "/healthz")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        for connection in held:
            connection.close()
        deadline = time.monotonic() + WAIT_S
        while ask(port, "/healthz").status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_client_with_too_many_requests_is_told_to_come_back(tmp_path: Path) -> None:
    """429 with Retry-After while its answers are under way."""
    epoch = publish_random_epoch(tmp_path, shards={0: [20_000_000]})
    path = f"/{epoch.layout.shard_folder(0)}/state_part_000000_of_000001"
    with running_mirror(tmp_path, "--requests-per-client", 1) as (_, url):
        port = urlsplit(url).port or 0
        # With little room at the receiver, however much this machine's sockets have by default.
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        slow.connect(("127.0.0.1", port))
        slow.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        # It takes the first bytes and no more, so the answer stays under way.
        assert slow.recv(12) == b"HTTP/1.1 200"
        answer = ask(port, "/healthz")
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        slow.close()


def test_the_upload_limit_holds_for_all_clients_together(tmp_path: Path) -> None:
    """Four clients get no more than the limit between them, and not much less."""
    # A rate that is far below what any machine can do, so that what is measured is the limit.
    size, rate = 750_000, 500_000
    epoch = publish_random_epoch(tmp_path, shards={0: [size] * 4})
    paths = [f"/{epoch.layout.shard_folder(0)}/{name}" for name in epoch.parts()]
    with running_mirror(tmp_path, "--upload-limit", f"{rate}B") as (_, url):
        port = urlsplit(url).port or 0
        began_s = time.monotonic()
        with ThreadPoolExecutor(4) as executor:
            assert [len(answer.body) for answer in executor.map(lambda path: ask(port, path), paths)] == [size] * 4
        rate_measured = 4 * size / (time.monotonic() - began_s)
    # The first buffers are not waited for.
    assert 0.25 * rate < rate_measured < 1.3 * rate


def test_a_stop_lets_answers_end(tmp_path: Path) -> None:
    """SIGTERM while a body is being sent: it is sent to its end, then the process ends with 0."""
    size = 3_000_000
    epoch = publish_random_epoch(tmp_path, shards={0: [size]})
    path = f"/{epoch.layout.shard_folder(0)}/state_part_000000_of_000001"
    with running_mirror(tmp_path, "--upload-limit", "2MB") as (mirror, url):
        probe = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port or 0, timeout=WAIT_S)
        probe.request("GET", path)
        body = probe.getresponse()
        first = body.read(1000)
        mirror.process.send_signal(signal.SIGTERM)
        assert len(first) + len(body.read()) == size
        probe.close()
        assert mirror.ended() == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("nowhere", "--listen", ":0"), "no such folder"),
        ((".", "--listen", "8080"), "no address"),
        ((".", "--connections", "0"), "connections lie between"),
        ((".", "--upload-limit", "fast"), "number of bytes"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: tuple[str, ...], problem: str) -> None:
    """With the exit code of wrong usage."""
    outcome = statecast("serve", *arguments)
    assert outcome.code == 2
    assert problem in outcome.error_line


def test_a_port_that_is_taken_is_refused(served: Served, tmp_path: Path) -> None:
    """One line, no traceback."""
    outcome = statecast("serve", tmp_path, "--listen", f"127.0.0.1:{served.port}")
    assert outcome.code == 2
    assert "no mirror can listen" in outcome.error_line
