"""A store's credentials, payer and connection: credentials, public buckets, requester pays, endpoints, TLS."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from pipelines.stores.client_environment import is_plain_http_elsewhere, is_set
from pipelines.stores.gcs_credentials import find_credentials
from pipelines.stores.gcs_store import GcsStore
from pipelines.stores.open_store import open_store
from pipelines.stores.s3_store import S3Store, has_credentials
from schemas.errors import InvalidInputError, StoreDeniedError, StoreError, TransientStoreError
from tests.support.certificates import loopback_tls
from tests.support.servers import aws_environment, fake_gcs_server, make_gcs_bucket, make_s3_bucket, moto_server
from tests.support.store_proxy import Answer, Fault, Request, StoreProxy, store_proxy
from tests.support.stored_bytes import stored_bytes

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")

PROJECT = Path(__file__).parents[2]
BUCKET = "public-bucket"

READ_PUBLIC = """
import sys, time
from pipelines.stores.open_store import open_store
began_s = time.monotonic()
store = open_store(sys.argv[1], endpoint_url=sys.argv[2], retry=None)
assert store.get("object", 0, 100) == b"public"
assert [info.name for info in store.list()] == ["object"]
print(time.monotonic() - began_s)
"""

READ_OVER_TLS = """
import sys
from pipelines.stores.open_store import open_store
store = open_store(sys.argv[1], endpoint_url=sys.argv[2], anonymous=True, retry=None)
store.put("object", b"over TLS")
store.swap("pointer", b"over TLS too", None)
assert store.get("object", 0, 100) == b"over TLS"
"""


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """A moto S3 server with a bucket and an object."""
    with aws_environment(), moto_server() as url:
        make_s3_bucket(url, BUCKET, public=True)
        open_store(f"s3://{BUCKET}", endpoint_url=url).put("object", b"public")
        yield url


@pytest.fixture
def s3(moto_url: str) -> Iterator[StoreProxy]:
    """A proxy before it that writes requests down."""
    with store_proxy(moto_url) as proxy:
        yield proxy


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials anywhere, and no metadata server to ask."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "GS_", "CLOUDSDK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def key_file(folder: Path) -> Path:
    """Write the key file of an identity of a project that nothing else names."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "key.json"
    document = {
        "type": "service_account",
        "project_id": "somebodys-project",
        "private_key": pem.decode(),
        "client_email": "producer@somebodys-project.example",
        "token_uri": "http://127.0.0.1:9/token",
    }
    path.write_text(json.dumps(document))
    return path


@dataclass(frozen=True, slots=True)
class SilentServer:
    """A server that takes connections and never answers."""

    address: str
    callers: list[socket.socket] = field(default_factory=list)


@contextmanager
def silent_server() -> Iterator[SilentServer]:
    """Listen and never answer, as a metadata server's address does where packets vanish."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = SilentServer(f"127.0.0.1:{listener.getsockname()[1]}")

        def listen() -> None:
            with suppress(OSError):
                while True:
                    server.callers.append(listener.accept()[0])

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            # Wakes the thread, which closing would not.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for caller in server.callers:
                caller.close()


@pytest.mark.usefixtures("nobody")
def test_a_key_file_of_any_project_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The project in a key file need not be named a second time; gcsfs by itself would go on without credentials."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file(tmp_path)))
    store = open_store("gs://bucket", retry=None)
    assert isinstance(store, GcsStore)
    assert store._fs().credentials.credentials.service_account_email == "producer@somebodys-project.example"


@pytest.mark.usefixtures("nobody")
def test_a_key_file_that_is_named_and_broken_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No request goes without credentials by mistake."""
    (tmp_path / "key.json").write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(StoreDeniedError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        stored_bytes(open_store("gs://bucket", retry=None), "object")


@pytest.mark.usefixtures("nobody")
def test_no_identity_is_found_where_there_is_none() -> None:
    """No credentials are no error: public buckets need none."""
    assert find_credentials() is None
    assert not has_credentials()


@pytest.mark.usefixtures("nobody")
def test_a_public_s3_bucket_needs_no_credentials(s3: StoreProxy) -> None:
    """Requests go out unsigned."""
    store = open_store(f"s3://{BUCKET}", endpoint_url=s3.url)
    assert stored_bytes(store, "object") == b"public"
    assert [info.name for info in store.list()] == ["object"]
    assert s3.requests
    assert not any("authorization" in asked.headers for asked in s3.requests)


@pytest.mark.parametrize("variable", ["", "AWS_NO_SIGN_REQUEST"])
def test_credentials_are_used_unless_told_not_to(s3: StoreProxy, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """AWS_NO_SIGN_REQUEST=YES leaves them out."""
    if variable:
        monkeypatch.setenv(variable, "YES")
    stored_bytes(open_store(f"s3://{BUCKET}", endpoint_url=s3.url), "object")
    assert all(("authorization" in asked.headers) is not bool(variable) for asked in s3.requests)


@pytest.mark.usefixtures("nobody")
def test_a_silent_metadata_server_does_not_hold_an_s3_reader_up(s3: StoreProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last place where credentials are looked for may swallow packets; the search ends in seconds, and happens once."""
    with silent_server() as silent:
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{silent.address}")
        began_s = time.monotonic()
        assert stored_bytes(open_store(f"s3://{BUCKET}", endpoint_url=s3.url), "object") == b"public"
        took_s, asked = time.monotonic() - began_s, len(silent.callers)
        assert stored_bytes(open_store(f"s3://{BUCKET}", endpoint_url=s3.url), "object") == b"public"
        assert 0 < asked == len(silent.callers)
    assert took_s < 60


@pytest.mark.slow
@pytest.mark.usefixtures("nobody")
def test_a_silent_metadata_server_does_not_hold_a_gcs_reader_up() -> None:
    """Nor does Google's."""
    with silent_server() as silent, fake_gcs_server() as url, store_proxy(url) as proxy:
        make_gcs_bucket(url, BUCKET)
        open_store(f"gs://{BUCKET}", endpoint_url=url, anonymous=True).put("object", b"public")
        environment = {name: value for name, value in os.environ.items() if name != "NO_GCE_CHECK"} | {"GCE_METADATA_HOST": silent.address}
        command = [sys.executable, "-c", READ_PUBLIC, f"gs://{BUCKET}", proxy.url]
        done = subprocess.run(command, env=environment, cwd=PROJECT, timeout=600, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert float(done.stdout) < 60
        assert not any("authorization" in asked.headers for asked in proxy.requests)


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_denial_without_credentials_says_so(scheme: str) -> None:
    """The remedy is to give credentials."""
    with store_proxy("http://127.0.0.1:9") as proxy:
        proxy.script = lambda _: Answer(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
        with pytest.raises(StoreDeniedError, match="No credentials were used"):
            stored_bytes(open_store(f"{scheme}://{BUCKET}", endpoint_url=proxy.url), "object")


def demanding(marker: str, refusal: Answer) -> tuple[list[Request], object]:
    """Return a list and a script that puts every request without the marker into it and refuses it."""
    refused: list[Request] = []

    def script(asked: Request) -> Fault | None:
        if marker in asked.headers or marker in asked.query:
            return None
        refused.append(asked)
        return refusal

    return refused, script


ACCESS_DENIED = Answer(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
REQUESTER_PAYS = Answer(
    400,
    b'{"error": {"code": 400, "message": "Bucket is a requester pays bucket but no user project provided."}}',
    (("Content-Type", "application/json"),),
)


def use_everything(url: str, endpoint_url: str) -> None:
    """Call every method of a store."""
    store = open_store(url, endpoint_url=endpoint_url, retry=None)
    store.put("object", b"paid", create_only=True)
    pointer = store.swap("pointer", b"1", None)
    store.swap("pointer", b"2", pointer)
    assert (stored_bytes(store, "object"), store.get("object", 1, 3)) == (b"paid", b"ai")
    assert [info.name for info in store.list()] == ["object", "pointer"]
    for name in ("object", "pointer"):
        store.delete(name)
    assert store.info("object") is None


def test_an_s3_requester_that_agrees_to_pay_says_so_each_time(s3: StoreProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_REQUEST_PAYER=requester puts the header on every request."""
    refused, s3.script = demanding("x-amz-request-payer", ACCESS_DENIED)  # type: ignore[assignment]
    url = f"s3://{BUCKET}/requester-pays"
    with pytest.raises(StoreDeniedError, match="AWS_REQUEST_PAYER"):
        stored_bytes(open_store(url, endpoint_url=s3.url), "object")
    refused.clear()
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    use_everything(url, s3.url)
    assert refused == []


@pytest.mark.slow
def test_a_gcs_requester_that_agrees_to_pay_says_so_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """GS_USER_PROJECT is on every request of both clients, upload sessions too."""
    with fake_gcs_server() as backend, store_proxy(backend) as proxy:
        make_gcs_bucket(backend, BUCKET)
        refused, proxy.script = demanding("userProject", REQUESTER_PAYS)  # type: ignore[assignment]
        url = f"gs://{BUCKET}/requester-pays"
        with pytest.raises(StoreDeniedError, match="GS_USER_PROJECT"):
            open_store(url, endpoint_url=proxy.url, retry=None).put("object", b"x")
        refused.clear()
        monkeypatch.setenv("GS_USER_PROJECT", "payer")
        use_everything(url, proxy.url)
        assert refused == []
        assert all(asked.query["userProject"] == ["payer"] for asked in proxy.requests[-3:])


@pytest.mark.parametrize(("variable", "value"), [("AWS_REQUEST_PAYER", "me"), ("AWS_NO_SIGN_REQUEST", "perhaps")])
def test_a_variable_that_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """It is named."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidInputError, match=variable):
        stored_bytes(open_store(f"s3://{BUCKET}", retry=None), "object")


@pytest.mark.parametrize(("value", "expected"), [("YES", True), ("true", True), ("1", True), ("no", False), ("", False), ("0", False)])
def test_yes_and_no_are_spelled_as_people_do(monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
    """Upper or lower case."""
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", value)
    assert is_set("AWS_NO_SIGN_REQUEST") is expected


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_is_taken_from_either_variable(s3: StoreProxy, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """botocore reads one of them alone."""
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv(variable, "eu-central-1")
    stored_bytes(open_store(f"s3://{BUCKET}", endpoint_url=s3.url), "object")
    assert "/eu-central-1/s3/" in s3.requests[-1].headers["authorization"]


def test_an_endpoint_by_name_has_the_bucket_in_the_path(s3: StoreProxy) -> None:
    """Servers of one's own seldom have a name for each bucket."""
    store = open_store(f"s3://{BUCKET}", endpoint_url=s3.url.replace("127.0.0.1", "localhost"))
    assert isinstance(getattr(store, "inner", None), S3Store)
    assert stored_bytes(store, "object") == b"public"
    assert s3.requests[-1].path == f"/{BUCKET}/object"


def test_an_authority_of_ones_own_is_believed_once_it_is_named(moto_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without AWS_CA_BUNDLE the server's certificate is refused, once, since another attempt would end the same."""
    context, authority = loopback_tls(tmp_path)
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with store_proxy(moto_url, context) as proxy:
        with pytest.raises(StoreError, match="AWS_CA_BUNDLE") as caught:
            stored_bytes(open_store(f"s3://{BUCKET}", endpoint_url=proxy.url), "object")
        assert not isinstance(caught.value, TransientStoreError)
        assert proxy.requests == []
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
        assert stored_bytes(open_store(f"s3://{BUCKET}", endpoint_url=proxy.url), "object") == b"public"


@pytest.mark.slow
def test_gcs_believes_an_authority_that_both_clients_are_told_of(tmp_path: Path) -> None:
    """SSL_CERT_FILE is for gcsfs, REQUESTS_CA_BUNDLE for google-cloud-storage; they are read when a process starts."""
    context, authority = loopback_tls(tmp_path)
    with fake_gcs_server() as backend, store_proxy(backend, context) as proxy:
        make_gcs_bucket(backend, BUCKET)
        environment = {**os.environ, "SSL_CERT_FILE": str(authority), "REQUESTS_CA_BUNDLE": str(authority)}
        command = [sys.executable, "-c", READ_OVER_TLS, f"gs://{BUCKET}", proxy.url]
        subprocess.run(command, env=environment, cwd=PROJECT, timeout=120, check=True)
        assert any(asked.is_write for asked in proxy.requests)


@pytest.mark.parametrize(
    ("endpoint_url", "expected"),
    [
        ("http://127.0.0.1:4443", False),
        ("http://localhost:4443", False),
        ("http://[::1]:4443", False),
        ("https://storage.example", False),
        ("http://storage.example", True),
        ("http://10.0.0.7:9000", True),
        ("10.0.0.7:9000", True),
    ],
)
def test_which_endpoints_are_in_clear(endpoint_url: str, expected: bool) -> None:
    """Plain HTTP to another machine is."""
    assert is_plain_http_elsewhere(endpoint_url) is expected


@pytest.mark.usefixtures("nobody")
def test_a_token_does_not_go_out_in_clear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A bearer token belongs to its holder: GCS's is not sent over plain HTTP to another machine. Without credentials nothing is lost."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file(tmp_path)))
    with pytest.raises(InvalidInputError, match="without TLS"):
        stored_bytes(open_store("gs://bucket", endpoint_url="http://storage.example", retry=None), "object")
    monkeypatch.setenv("GS_NO_SIGN_REQUEST", "YES")
    store = open_store("gs://bucket", endpoint_url="http://storage.example", retry=None)
    assert isinstance(store, GcsStore)
    assert store._fs().credentials.credentials is None
