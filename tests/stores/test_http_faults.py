"""What goes wrong between a client and an object store's server, made by a proxy before real servers: one fault at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from pipelines.stores import azure_store, s3_store
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import read_object
from pipelines.stores.retrying import RetryPolicy
from pipelines.stores.store import Store
from schemas.errors import ObjectExistsError, ObjectMismatchError, RangeRefusedError, StoreDeniedError, StoreError, TransientStoreError
from tests.support.servers import (
    AZURITE_ACCOUNT,
    aws_environment,
    azure_environment,
    azurite_server,
    fake_gcs_server,
    make_azure_container,
    make_gcs_bucket,
    make_s3_bucket,
    moto_server,
    versitygw_server,
)
from tests.support.store_proxy import (
    Answer,
    BreakAfter,
    BreakBefore,
    ChangeAnswer,
    ChangeRequest,
    CutAnswer,
    Delay,
    Fault,
    Request,
    StoreProxy,
    store_proxy,
)
from tests.support.stored_bytes import stored_bytes

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")

SLOW_DOWN_XML = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>injected</Message></Error>"
AT_ONCE = RetryPolicy(attempts_max=4, timeout_s=60, wait_first_s=0.01, wait_max_s=0.02, wait_jitter_s=0.01)
BUCKET = "faulty-bucket"

FAULTS: dict[str, Fault] = {
    "500": Answer(500),
    "503 with Retry-After": Answer(503, SLOW_DOWN_XML, (("Retry-After", "0"), ("Content-Type", "application/xml"))),
    "429 with Retry-After": Answer(429, b"", (("Retry-After", "0"),)),
    "broken before": BreakBefore(),
    "reply lost": BreakAfter(),
    "slow": Delay(0.3),
}


@dataclass(frozen=True, slots=True)
class Faulted:
    """A store's server behind a proxy."""

    kind: str
    proxy: StoreProxy

    def store(self, folder: str, retry: RetryPolicy | None = AT_ONCE, through: str | None = None) -> Store:
        """Open a folder of the bucket."""
        scheme = {"gcs": "gs", "azurite": "az"}.get(self.kind, "s3")
        url = f"{scheme}://{BUCKET}/{folder}"
        endpoint_url = (through or self.proxy.url) + (f"/{AZURITE_ACCOUNT}" if self.kind == "azurite" else "")
        return open_store(url, endpoint_url=endpoint_url, anonymous=self.kind == "gcs", retry=retry)

    @property
    def client_attempts(self) -> int:
        """How often a broken answer is asked for before the store sees its fault, where no variable says so."""
        # Each the client's own, fixed.
        return {"gcs": 6, "azurite": 3}.get(self.kind, 1)


@pytest.fixture(scope="module", params=["moto", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("versitygw", "gcs", "azurite"))])
def faulted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulted]:
    """Each server that this machine can run; the S3 client leaves retries to the store."""
    kind = request.param
    servers: dict[str, Callable[[], AbstractContextManager[str]]] = {
        "moto": moto_server,
        "versitygw": lambda: versitygw_server(tmp_path_factory.mktemp("versitygw")),
        "gcs": fake_gcs_server,
        "azurite": azurite_server,
    }
    environment = azure_environment if kind == "azurite" else aws_environment
    with environment(), pytest.MonkeyPatch.context() as patch, servers[kind]() as url, store_proxy(url) as proxy:
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        make_bucket: dict[str, Callable[[str, str], None]] = {"gcs": make_gcs_bucket, "azurite": make_azure_container}
        make_bucket.get(kind, make_s3_bucket)(url, BUCKET)
        yield Faulted(kind, proxy)


@pytest.fixture(autouse=True)
def quiet(faulted: Faulted) -> None:
    """No test begins with what the one before let go wrong."""
    faulted.proxy.quiet()


def _folder(request: pytest.FixtureRequest) -> str:
    return "".join(character if character.isalnum() else "-" for character in request.node.name)[:100]


OPERATIONS: dict[str, tuple[Callable[[Store], object], Callable[[Request], bool], Callable[[Store], object], object]] = {
    "put": (lambda store: store.put("new", b"fresh"), lambda asked: asked.is_write, lambda store: stored_bytes(store, "new"), b"fresh"),
    "create-only put": (
        lambda store: store.put("created", b"fresh", create_only=True),
        lambda asked: asked.is_write,
        lambda store: stored_bytes(store, "created"),
        b"fresh",
    ),
    "swap": (
        lambda store: store.swap("pointer", b"after", store.info("pointer")),
        lambda asked: asked.is_write,
        lambda store: stored_bytes(store, "pointer"),
        b"after",
    ),
    "delete": (
        lambda store: store.delete("old"),
        lambda asked: asked.method == "DELETE",
        lambda store: store.info("old"),
        None,
    ),
    "info": (lambda store: store.info("pointer"), lambda _: True, lambda store: stored_bytes(store, "pointer"), b"before"),
    "get": (
        lambda store: stored_bytes(store, "pointer"),
        lambda asked: asked.method == "GET",
        lambda store: store.get("pointer", 1, 3),
        b"ef",
    ),
    "list": (
        lambda store: list(store.list()),
        lambda asked: asked.method == "GET",
        lambda store: [info.name for info in store.list()],
        ["old", "pointer"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_moment_is_not_seen(faulted: Faulted, request: pytest.FixtureRequest, fault: str) -> None:
    """Whatever is asked for happens, also when only the answer that says so was lost."""
    store = faulted.store(_folder(request))
    for operation, (act, meets, look, expected) in OPERATIONS.items():
        faulted.proxy.quiet()
        for info in store.list():
            store.delete(info.name)
        store.put("pointer", b"before")
        store.put("old", b"old")
        faulted.proxy.fail_once(FAULTS[fault], meets)
        act(store)
        assert faulted.proxy.hits == 1, (operation, "the fault was there")
        assert look(store) == expected, operation


def test_a_real_conflict_after_a_lost_reply_is_told(faulted: Faulted, request: pytest.FixtureRequest) -> None:
    """Another writer that came between a request and its repetition is not mistaken for ourselves."""
    store, rival = faulted.store(_folder(request)), faulted.store(_folder(request), retry=None)
    before = store.swap("pointer", b"before", None)

    def script(asked: Request) -> Fault | None:
        if not asked.is_write or proxy.hits:
            return None
        proxy.hits += 1
        proxy.lock.release()
        try:
            rival.put("pointer", b"of another")
        finally:
            proxy.lock.acquire()
        return Answer(500)

    proxy = faulted.proxy
    proxy.quiet()
    proxy.script = script
    with pytest.raises(ObjectExistsError):
        store.swap("pointer", b"ours", before)
    proxy.quiet()
    assert stored_bytes(store, "pointer") == b"of another"


@pytest.mark.parametrize("status", [429, 503])
def test_a_throttled_client_waits_as_long_as_it_is_asked_to(faulted: Faulted, request: pytest.FixtureRequest, status: int) -> None:
    """No request follows within the time of Retry-After, of any thread."""
    store = faulted.store(_folder(request))
    store.put("object", b"x")
    faulted.proxy.fail_once(Answer(status, SLOW_DOWN_XML, (("Retry-After", "2"),)))
    assert stored_bytes(store, "object") == b"x"
    times_s = [asked.at_s for asked in faulted.proxy.requests]
    assert len(times_s) >= 2
    assert times_s[1] - times_s[0] >= 2.0


@pytest.mark.parametrize("whole", [True, False])
def test_an_answer_that_breaks_off_is_no_object(faulted: Faulted, request: pytest.FixtureRequest, whole: bool) -> None:
    """A body shorter than its Content-Length is never taken for the object; it is read again."""
    data = Random(1).randbytes(300_000)
    faulted.store(_folder(request)).put("object", data)
    stop = 2 * len(data) if whole else len(data)
    faulted.proxy.fail_once(CutAnswer(), lambda asked: asked.method == "GET", times=faulted.client_attempts)
    if faulted.kind != "gcs":
        with pytest.raises(TransientStoreError):
            faulted.store(_folder(request), retry=None).get("object", 0, stop)
    faulted.proxy.fail_once(CutAnswer(), lambda asked: asked.method == "GET")
    assert faulted.store(_folder(request)).get("object", 0, stop) == data
    assert faulted.proxy.hits == 1


def test_a_whole_object_is_one_request(faulted: Faulted, request: pytest.FixtureRequest) -> None:
    """So what is read is one version of it, and costs what one request costs; an object above the size of a client's block too."""
    data = bytes(6 << 20) if faulted.kind == "moto" else bytes(60 << 20)
    store = faulted.store(_folder(request), retry=None)
    store.put("object", data)
    faulted.proxy.quiet()
    assert stored_bytes(store, "object") == data
    assert [asked.method for asked in faulted.proxy.requests] == ["GET"]


@pytest.mark.parametrize("stop", [8, 30, 1 << 20])
@pytest.mark.parametrize(("status", "told", "problem"), [(200, None, "no notice of ranges"), (206, "bytes 0-19/20", "another range")])
def test_an_answer_from_elsewhere_is_found_out(
    faulted: Faulted, request: pytest.FixtureRequest, status: int, told: str | None, problem: str, stop: int
) -> None:
    """Whether the object is longer than the range or shorter: no byte of its beginning is taken for one of its middle."""
    store = faulted.store(_folder(request))
    store.put("object", bytes(range(20)))
    headers = (("ETag", '"0x8D"'), ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT"), *((("Content-Range", told),) if told else ()))
    faulted.proxy.fail_once(Answer(status, bytes(range(20)), headers), lambda request: request.method == "GET", times=9)
    with pytest.raises(RangeRefusedError, match=problem):
        store.get("object", 5, stop)
    faulted.proxy.quiet()
    assert store.get("object", 5, stop) == bytes(range(5, min(stop, 20)))


def test_a_changed_upload_is_found_out(faulted: Faulted, request: pytest.FixtureRequest) -> None:
    """A byte that changes on the way is refused by the server, or seen in the checksum that it tells; it never counts as success."""
    data = Random(2).randbytes(300_000)
    store = faulted.store(_folder(request), retry=None)
    faulted.proxy.fail_once(ChangeRequest(), lambda asked: asked.is_write and asked.body_bytes > 10_000, times=10)
    with pytest.raises((ObjectMismatchError, TransientStoreError)) as caught:
        store.put("object", data)
    assert faulted.proxy.hits >= 1
    if faulted.kind == "versitygw":
        assert isinstance(caught.value, TransientStoreError)
        faulted.proxy.quiet()
        assert store.info("object") is None


@pytest.mark.parametrize("fault", [ChangeAnswer(), CutAnswer(is_hidden=True)], ids=["changed", "cut, and its length says so"])
def test_what_no_store_can_see_its_readers_must(faulted: Faulted, request: pytest.FixtureRequest, fault: Fault) -> None:
    """An answer that is whole by HTTP and wrong is passed on: this is why every reader compares hashes. A comparison of ours notices it."""
    data = Random(3).randbytes(1000)
    store = faulted.store(_folder(request), retry=None)
    store.put("object", data)
    faulted.proxy.fail_once(
        fault, lambda asked: (asked.method == "GET" and "alt" not in asked.query) or "media" in asked.query.get("alt", [])
    )
    # Azure's client compares the body with the range that the answer names, and asks for the rest.
    is_noticed = faulted.kind == "azurite" and isinstance(fault, CutAnswer)
    assert (store.get("object", 0, 1000) == data) is is_noticed


def test_a_large_upload_goes_on_after_a_reset_in_the_middle(
    faulted: Faulted, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 and Azure: only the part that broke is sent again. GCS: the one request of the session is. The object is right."""
    monkeypatch.setattr(s3_store, "MULTIPART_BYTES_MIN", 12 << 20)
    monkeypatch.setattr(s3_store, "UPLOAD_PART_BYTES", 5 << 20)
    monkeypatch.setattr(azure_store, "MULTIPART_BYTES_MIN", 12 << 20)
    monkeypatch.setattr(azure_store, "BLOCK_BYTES", 5 << 20)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    data = Random(4).randbytes(13 << 20)
    store = faulted.store(_folder(request), retry=None)

    def is_large(asked: Request) -> bool:
        return asked.body_bytes > 3 << 20 and asked.query.get("partNumber", ["2"]) == ["2"]

    faulted.proxy.fail_once(BreakBefore(2 << 20), is_large)
    info = store.put("large", data, create_only=True)
    sent = [asked.body_bytes for asked in faulted.proxy.requests if asked.body_bytes > 1 << 20]
    assert faulted.proxy.hits == 1
    assert sum(sent) - len(data) == (len(data) if faulted.kind == "gcs" else 5 << 20)
    assert (info.size, stored_bytes(store, "large") == data) == (len(data), True)


@pytest.mark.slow
def test_hundreds_of_mebibytes_survive_resets(faulted: Faulted, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object of the size of a large export file or state part, with the sizes of requests that are in use."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    data = Random(5).randbytes(200 << 20)
    store = faulted.store(_folder(request))
    faulted.proxy.fail_once(BreakBefore(16 << 20), lambda asked: asked.body_bytes > 24 << 20, times=2)
    store.put("large", data, create_only=True)
    assert faulted.proxy.hits == 2
    assert read_object(store, "large", len(data)) == data


def test_a_store_that_never_comes_back_ends_in_bounded_time(faulted: Faulted, request: pytest.FixtureRequest) -> None:
    """The time limit of the policy ends what the number of attempts would not; the client's own retries come on top once."""
    store = faulted.store(
        _folder(request), RetryPolicy(attempts_max=1000, timeout_s=1.0, wait_first_s=0.1, wait_max_s=0.2, wait_jitter_s=0.1)
    )
    faulted.proxy.fail_once(Answer(503, SLOW_DOWN_XML), times=-1)
    began_s = time.monotonic()
    with pytest.raises(TransientStoreError):
        store.put("object", b"x")
    took_s = time.monotonic() - began_s
    faulted.proxy.quiet()
    # A thousand attempts would take longer.
    assert took_s < 90


def test_an_error_shows_no_secret(faulted: Faulted, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """User names in an endpoint's URL, keys and upload sessions stay out of every error."""
    address = faulted.proxy.url.removeprefix("http://")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
    store = faulted.store(_folder(request), retry=None, through=f"http://somebody:hidden-secret@{address}")
    faulted.proxy.fail_once(Answer(400, b"<Error><Code>Bad</Code><Message>upload_id=hidden-session</Message></Error>"), times=-1)
    calls: list[Callable[[], object]] = [
        lambda: store.put("object", b"x"),
        lambda: stored_bytes(store, "object"),
        lambda: list(store.list()),
    ]
    for call in calls:
        with pytest.raises(StoreError) as caught:
            call()
        assert "hidden" not in str(caught.value)
    faulted.proxy.quiet()


def test_where_the_proxy_is_quiet_it_changes_nothing(faulted: Faulted, tmp_path: Path) -> None:
    """The proxy itself is not what these tests see."""
    faulted.proxy.quiet()
    store = faulted.store("quiet", retry=None)
    data = Random(6).randbytes(1 << 20)
    assert store.put("object", data).size == len(data)
    assert stored_bytes(store, "object") == data
    assert faulted.proxy.hits == 0


@pytest.mark.parametrize("faulted", [pytest.param("gcs", marks=pytest.mark.slow)], indirect=True)
def test_a_taken_name_is_taken_also_for_who_may_not_replace(faulted: Faulted, request: pytest.FixtureRequest) -> None:
    """Google's store answers "denied" where it would have to replace an object; the same bytes there are success, others are in the way."""
    store = faulted.store(_folder(request))
    store.put("part", b"bytes")
    for data, error in ((b"bytes", None), (b"other", ObjectExistsError)):
        faulted.proxy.fail_once(Answer(403), lambda asked: asked.is_write, times=99)
        if error is None:
            assert store.put("part", data, create_only=True).size == 5
        else:
            with pytest.raises(error):
                store.put("part", data, create_only=True)
        assert faulted.proxy.hits
    with pytest.raises(StoreDeniedError):
        store.put("new", b"bytes", create_only=True)
    with pytest.raises(StoreDeniedError):
        store.put("part", b"other")
    faulted.proxy.quiet()
