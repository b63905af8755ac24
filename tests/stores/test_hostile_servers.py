"""What a web server may do to whoever reads it: every answer becomes an error of the store, in time, and never leads where it must not."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.near.epoch.rpc_client import RpcClient, RpcLimits
from pipelines.stores import azure_store, body_pace, bounded_answer, http_client, http_store, s3_store
from pipelines.stores.answers import http_date, retry_after_s
from pipelines.stores.bucket_folder import BucketFolder
from pipelines.stores.http_folder import HttpFolder, check_reply, mapped_errors
from pipelines.stores.open_store import open_store
from pipelines.stores.per_process import PerProcess
from pipelines.stores.s3_store import S3Store
from schemas.address import is_public_address
from schemas.errors import (
    InvalidInputError,
    ObjectNotFoundError,
    RangeRefusedError,
    SourceError,
    StoreDeniedError,
    StoreError,
    TransientStoreError,
)
from tests.support.hostile_server import KINDS, LISTING_KINDS, S3_KINDS, HostileServer, hostile_server
from tests.support.servers import AZURITE_ACCOUNT, AZURITE_KEY

NAME = "folder/object"
DATA = bytes(range(256)) * 40

MEANING: dict[str, type[StoreError] | None] = {
    "flip": None,  # the bytes are for whoever knows their digest
    "short": None,
    "bad-length": None,  # HTTP takes a length that is none for no length
    "bad-location": StoreError,
    "no-host": StoreError,
    "bad-port": StoreError,
    "far-location": StoreError,
    "redirect-loop": StoreError,
    "not-implemented": StoreError,
    "switching": StoreError,
    "odd-status": StoreError,
    "compressed": StoreError,
    "endless": None,  # no more of it is taken than was asked for
    "denied": StoreDeniedError,
    "absent": ObjectNotFoundError,
    "other-range": RangeRefusedError,
}
"""What a kind means for a store; `TransientStoreError` where nothing is said."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileServer]:
    """One server for all kinds."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "folder").mkdir()
    (folder / NAME).write_bytes(DATA)
    with hostile_server(folder, tmp_path_factory.mktemp("log") / "log") as running:
        yield running


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of fractions of a second."""
    monkeypatch.setattr(http_store, "TIMEOUT_S", 0.6)
    monkeypatch.setattr(body_pace, "BODY_GRACE_S", 0.6)
    monkeypatch.setattr(bounded_answer, "ANSWER_TIMEOUT_S", 0.6)
    monkeypatch.setattr(bounded_answer, "DOCUMENT_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(azure_store, "READ_TIMEOUT_S", 0.6)
    monkeypatch.setattr(s3_store, "LISTED_PAGES_MAX", 5)
    monkeypatch.setattr(s3_store, "retry_after_s", lambda _text: 0.1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("impatient")
def test_whatever_a_server_answers_is_an_error_of_the_store(server: HostileServer, kind: str) -> None:
    """Of the class that says what to do about it, and soon."""
    store = open_store(server.url(kind), retry=None)
    began_s = time.monotonic()
    expected = MEANING.get(kind, TransientStoreError)
    if expected is None:
        store.get(NAME, 0, 1 << 20)
    else:
        with pytest.raises(StoreError) as caught:
            store.get(NAME, 0, 1 << 20)
        assert type(caught.value) is expected, caught.value
    assert time.monotonic() - began_s < 20


@pytest.fixture(scope="module")
def s3_client() -> PerProcess[Any]:
    """One client for all buckets: it is made once a module, of the limits that its first test has."""
    return PerProcess()


def _bucket(server: HostileServer, kind: str, s3_client: PerProcess[Any], monkeypatch: pytest.MonkeyPatch) -> S3Store:
    for name, value in server.s3_environment.items():
        monkeypatch.setenv(name, value)
    return S3Store(BucketFolder.parse(server.s3_url(kind)), None, False, s3_client)


SOON_S = 90.0
"""Longest on the slowest machine: what is not bounded takes for ever."""

HARMLESS_IN_S3 = {"honest", "flip", "short", *LISTING_KINDS[:-2]}
"""What keeps the bytes of an object for whoever knows their digest."""


@pytest.mark.parametrize("kind", ("honest", *S3_KINDS))
@pytest.mark.usefixtures("impatient")
def test_whatever_a_bucket_answers_is_an_error_of_the_store(
    server: HostileServer, kind: str, s3_client: PerProcess[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object, what is said of it, and the listing: each soon, and no more of it is held than was asked for."""
    store = _bucket(server, kind, s3_client, monkeypatch)
    began_s = time.monotonic()
    if kind in HARMLESS_IN_S3:
        assert len(store.get(NAME, 0, 1 << 20)) in (len(DATA), len(DATA) // 2)
    else:
        with pytest.raises(StoreError):
            store.get(NAME, 0, 1 << 20)
    with suppress(StoreError):
        store.info(NAME)
    try:
        listed = [info.name for info in store.list("folder")]
    except StoreError:
        listed = []
    assert set(listed) <= {NAME} or kind == "list-elsewhere"
    assert time.monotonic() - began_s < SOON_S


AT_PROVIDERS = {
    "gs": "download/storage/v1/b/states/o/folder/object",
    "az": "states/folder/object",
}
"""Where a provider's client looks for the object."""


@pytest.mark.parametrize("scheme", list(AT_PROVIDERS))
@pytest.mark.parametrize("kind", ["head-trickle", "body-trickle", "chunk-trickle", "endless"])
@pytest.mark.usefixtures("impatient")
def test_other_providers_are_waited_for_no_longer(scheme: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is more held of what they send."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", AZURITE_ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY)
    monkeypatch.setattr("gcsfs.retry.asyncio.sleep", _at_once)
    path = tmp_path / "served" / AT_PROVIDERS[scheme]
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    with hostile_server(tmp_path / "served", tmp_path / "log") as running:
        store = open_store(f"{scheme}://states", endpoint_url=running.url(kind), anonymous=scheme == "gs", retry=None)
        began_s = time.monotonic()
        with pytest.raises(StoreError) as caught:
            store.get(NAME, 0, 1 << 20)
        assert not isinstance(caught.value, ObjectNotFoundError), "it was asked for what it has"
    assert time.monotonic() - began_s < SOON_S


async def _at_once(_seconds: float) -> None:
    """Wait for nothing."""


@pytest.mark.parametrize(
    "kind", ["silent", "head-trickle", "continue-trickle", "continue-flood", "early-hints-flood", "headers-flood", "garbage"]
)
def test_a_node_that_answers_so_is_an_endpoint_that_gave_no_answer(server: HostileServer, kind: str) -> None:
    """The client of JSON-RPC is the same."""
    client = RpcClient(server.url(kind), RpcLimits(timeout_s=0.3, attempts_max=1))
    with pytest.raises(SourceError, match="no usable answer"):
        client.call("block", {})


@pytest.mark.parametrize(
    "text", ["\u00b2", "Fri, 31 Dec 99999999999999999999 23:59:59 GMT", "", "soon", "-5", "1e9", "nan", "Mon, 00", "\u0661"]
)
def test_a_pause_that_is_none_is_none(text: str) -> None:
    """Neither a number nor a date."""
    assert retry_after_s(text) == 0.0
    assert http_date(text) is None


def test_a_pause_is_bounded() -> None:
    """Whatever a server asks for."""
    assert retry_after_s("9" * 400) == 30.0
    assert retry_after_s("Fri, 31 Dec 9999 23:59:59 GMT") == 30.0
    assert retry_after_s("Fri, 31 Dec 9999 23:59:59 -2359") == 0.0
    assert retry_after_s("7", 5.0) == 5.0


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"]
)
@pytest.mark.parametrize("form", ["{}", "::ffff:{}", "64:ff9b::{}"])
def test_addresses_that_only_this_machine_reaches_are_not_public(address: str, form: str) -> None:
    """In whatever form an IPv4 address is written."""
    assert not is_public_address(form.format(address))
    assert is_public_address(form.format("8.8.8.8"))


def test_ipv6_addresses_that_only_this_machine_reaches_are_not_public() -> None:
    """Loopback, link-local, unique local, unspecified, multicast."""
    assert not any(map(is_public_address, ("::1", "fe80::1%eth0", "fd00::1", "::", "ff02::1", "2002:7f00:1::", "no address")))
    assert is_public_address("2a00:1450:4001:800::200e")


@pytest.mark.parametrize(
    "address",
    ["fec0::1", "::127.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b:1::7f00:1", "3fff::1", "5f00::1", "192.0.0.192", "168.63.129.16", "4000::1"],
)
def test_what_no_registry_gave_out_is_not_public(address: str) -> None:
    """Site-local, IPv4 within IPv6 in forms of old, gateways of one's own network, documentation, a cloud's host."""
    assert not is_public_address(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "127.1", "2130706433"])
def test_a_place_that_a_document_named_is_asked_on_the_public_internet_alone(host: str) -> None:
    """Under any name and spelling of an address."""
    folder = HttpFolder(f"http://{host}:9/x", 1.0, 4, is_named=False)
    with pytest.raises(StoreDeniedError, match="not public"), mapped_errors("x"):
        folder.request(NAME)


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "0x7f000001",
        "017700000001",
        "2130706433",
        "0xa.1",
        "localhost.",
        "LOCALHOST",
        "a.localhost.",
        "127.0.0.1.",
        "[::1]",
    ],
)
def test_no_proxy_is_asked_for_an_address_of_one_s_own_network_in_any_spelling(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy looks names up; what is an address whoever looks is judged here."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(StoreDeniedError, match="not public"), mapped_errors("x"):
        HttpFolder(f"http://{host}:9/x", 1.0, 4, is_named=False).request(NAME)


def test_a_redirect_into_the_own_network_is_followed_only_from_there(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public server must not have this machine ask others that only it reaches; a server in there may."""
    redirecting = _redirecting(f"{server.url('honest')}/{NAME}")
    try:
        port = redirecting.server_address[1]
        assert open_store(f"http://127.0.0.1:{port}").get(NAME, 0, 1 << 20) == DATA
        monkeypatch.setattr(http_client, "is_public_address", lambda address: address == "127.0.0.2")
        with pytest.raises(StoreDeniedError, match="not public"):
            open_store(f"http://127.0.0.2:{port}").get(NAME, 0, 1 << 20)
    finally:
        redirecting.shutdown()
        redirecting.server_close()


def test_proxies_of_the_environment_count(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """For stores, and for JSON-RPC; and ``no_proxy`` takes hosts out."""
    for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(variable)
    asked: list[str] = []
    proxy = _redirecting("", asked)
    try:
        monkeypatch.setenv("http_proxy", f"http://user:word@127.0.0.1:{proxy.server_address[1]}")
        with pytest.raises(StoreDeniedError, match="407"):
            open_store("http://far.example/bucket", retry=None).get(NAME, 0, 1 << 20)
        with pytest.raises(SourceError, match="refuses access"):
            RpcClient("http://far.example/rpc", RpcLimits(timeout_s=5)).call("block", {})
        assert asked == ["http://far.example/bucket/folder/object Basic dXNlcjp3b3Jk", "http://far.example/rpc Basic dXNlcjp3b3Jk"]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert open_store(server.url("honest")).get(NAME, 0, 1 << 20) == DATA
        assert len(asked) == 2
    finally:
        proxy.shutdown()
        proxy.server_close()


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://", "http://[::1", "http://h:99999"])
def test_a_proxy_that_is_none_is_a_fault_of_the_configuration(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named; what it holds may be secret."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(InvalidInputError, match="http_proxy"):
        open_store("http://far.example/bucket")


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1/x",
        "http://h:99999/x",
        "http://h:port/x",
        "s3://[::1/x",
        "gs://[x",
        "http://a b/",
        "ftp://[",
        f"/{'x' * 256}",
        "/x" * 3000,
    ],
)
def test_a_url_that_is_none_is_a_fault_of_whoever_gave_it(url: str) -> None:
    """Not of a server."""
    with pytest.raises(InvalidInputError):
        open_store(url)


def test_an_unknown_encoding_of_an_answer_is_told(server: HostileServer) -> None:
    """By its name."""
    folder = HttpFolder(server.url("compressed"), 5.0, 4)
    reply = folder.request(NAME)
    with pytest.raises(StoreError, match=r"compresses objects \(gzip\)"):
        check_reply(reply, 0, "x")
    reply.close()


def _redirecting(location: str, asked: list[str] | None = None) -> ThreadingHTTPServer:
    """Return a running server that redirects all requests; without a location one that is a proxy and asks for another password."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            if asked is not None:
                asked.append(f"{self.path} {self.headers.get('Proxy-Authorization')}")
            self.send_response(302 if location else 407)
            self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

    running = ThreadingHTTPServer(("", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    return running
