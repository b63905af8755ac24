"""What only the remote stores do: large objects, lost replies, errors of the server, the clients' environment variables."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import boto3
import pytest

from pipelines.stores import s3_store
from pipelines.stores.bucket_folder import BucketFolder
from pipelines.stores.open_store import open_store
from pipelines.stores.s3_store import S3Store
from schemas.errors import ObjectExistsError, ObjectMismatchError, ObjectNotFoundError, StoreError, TransientStoreError
from tests.support.servers import aws_environment, fake_gcs_server, make_gcs_bucket, make_s3_bucket, moto_server, versitygw_server
from tests.support.store_proxy import Answer, store_proxy
from tests.support.stored_bytes import stored_bytes

READ_BY_ENVIRONMENT = """
import gcsfs, sys
from pipelines.stores.open_store import open_store
store = open_store(sys.argv[1], retry=None)
store.swap("pointer", b"1", None)
store.put("folder/object", b"x", create_only=True)
assert store.get("folder/object", 0, 100) == b"x"
assert [info.name for info in store.list()] == ["folder/object", "pointer"]
assert type(store._fs()).__module__ == "gcsfs.core", "gcsfs asks for bucket types"
"""

KILLED_UPLOAD = """
import os, sys
from pipelines.stores import s3_store
from pipelines.stores.open_store import open_store
s3_store.MULTIPART_BYTES_MIN, s3_store.UPLOAD_PART_BYTES = 12 << 20, 5 << 20
call = s3_store.S3Store._call
def killed(self, method, name, **arguments):
    if arguments.get("PartNumber") == 2:
        os._exit(9)
    return call(self, method, name, **arguments)
s3_store.S3Store._call = killed
open_store("s3://fault-bucket/killed", endpoint_url=sys.argv[1]).put("large", bytes(13 << 20))
"""


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """A moto S3 server with a bucket."""
    with aws_environment(), moto_server() as url:
        make_s3_bucket(url, "fault-bucket")
        yield url


@pytest.fixture
def store(moto_url: str, request: pytest.FixtureRequest) -> S3Store:
    """A bare S3 store, without retries, in a folder of this test's own."""
    return S3Store(BucketFolder("s3", "fault-bucket", request.node.originalname), endpoint_url=moto_url)


@pytest.fixture
def small_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multipart uploads from 12 MiB on, in parts of 5 MiB."""
    monkeypatch.setattr(s3_store, "MULTIPART_BYTES_MIN", 12 << 20)
    monkeypatch.setattr(s3_store, "UPLOAD_PART_BYTES", 5 << 20)


def _open_uploads(moto_url: str) -> list[Any]:
    uploads: list[Any] = boto3.client("s3", endpoint_url=moto_url).list_multipart_uploads(Bucket="fault-bucket").get("Uploads", [])
    return uploads


def _failing(store: S3Store, monkeypatch: pytest.MonkeyPatch, method: str, *, after: bool = False) -> None:
    """Make one method of the S3 client fail for good, before or after it was carried out."""
    call = S3Store._call

    def fail(self: S3Store, asked: str, name: str, **arguments: Any) -> dict[str, Any]:
        if asked != method:
            return call(self, asked, name, **arguments)
        if after:
            call(self, asked, name, **arguments)
        raise ConnectionResetError("injected")

    monkeypatch.setattr(S3Store, "_call", fail)


@pytest.mark.usefixtures("small_uploads")
def test_a_large_s3_object_goes_up_in_parts(store: S3Store, moto_url: str) -> None:
    """The object is whole, has S3's ETag of a multipart upload, and no upload stays open."""
    data = Random(1).randbytes(13 << 20)
    info = store.put("large", data, create_only=True)
    assert info.version.strip('"').endswith("-3")
    assert stored_bytes(store, "large") == data
    assert store.put("large", data, create_only=True) == info
    with pytest.raises(ObjectExistsError):
        store.put("large", data[::-1], create_only=True)
    assert stored_bytes(store, "large") == data
    assert _open_uploads(moto_url) == []


@pytest.mark.usefixtures("small_uploads")
@pytest.mark.parametrize("method", ["upload_part", "complete_multipart_upload"])
def test_a_failed_large_upload_is_aborted(store: S3Store, moto_url: str, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Nothing is visible and no upload stays open to be paid for."""
    _failing(store, monkeypatch, method)
    with pytest.raises(TransientStoreError):
        store.put("large", bytes(13 << 20))
    monkeypatch.undo()
    assert store.info("large") is None
    assert _open_uploads(moto_url) == []


@pytest.mark.usefixtures("small_uploads")
def test_a_killed_upload_shows_nothing_and_is_in_nobodys_way(moto_url: str) -> None:
    """A process that is killed between two parts leaves an upload that no listing shows; the next one succeeds beside it.

    What it sent is kept until the bucket's lifecycle rule ends it, since another process may be at work on it.
    """
    folder = BucketFolder("s3", "fault-bucket", "killed")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = [sys.executable, "-c", KILLED_UPLOAD, moto_url]
    killed = subprocess.run(arguments, env=environment, timeout=120, check=False)
    assert killed.returncode == 9
    store = S3Store(folder, endpoint_url=moto_url)
    assert (store.info("large"), list(store.list())) == (None, [])
    left = [upload["Key"] for upload in _open_uploads(moto_url)]
    assert left == ["killed/large"]
    data = Random(1).randbytes(13 << 20)
    store.put("large", data, create_only=True)
    assert stored_bytes(store, "large") == data
    client = boto3.client("s3", endpoint_url=moto_url)
    for upload in _open_uploads(moto_url):
        client.abort_multipart_upload(Bucket="fault-bucket", Key=upload["Key"], UploadId=upload["UploadId"])
    assert stored_bytes(store, "large") == data


@pytest.mark.parametrize("create_only", [True, False])
def test_an_s3_put_with_a_lost_reply_can_be_repeated(store: S3Store, monkeypatch: pytest.MonkeyPatch, create_only: bool) -> None:
    """The first attempt fails although it was carried out; the second succeeds."""
    with monkeypatch.context() as patch:
        _failing(store, patch, "put_object", after=True)
        with pytest.raises(TransientStoreError):
            store.put("object", b"x", create_only=create_only)
    store.put("object", b"x", create_only=create_only)
    assert stored_bytes(store, "object") == b"x"


def test_what_s3_stored_is_compared_with_what_was_sent(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes other bytes than were sent, and says so by its ETag, is caught."""
    call = S3Store._call

    def corrupt(self: S3Store, method: str, name: str, **arguments: Any) -> dict[str, Any]:
        if method == "put_object":
            arguments = {"Body": b"X" + arguments["Body"][1:]}
        return call(self, method, name, **arguments)

    monkeypatch.setattr(S3Store, "_call", corrupt)
    with pytest.raises(ObjectMismatchError, match="sent 5 bytes"):
        store.put("object", b"bytes")


@pytest.mark.slow
def test_s3_checks_the_body_that_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request's MD5 makes a server refuse a body that was changed on the way (moto does not look at it)."""
    call = S3Store._call

    def corrupt(self: S3Store, method: str, name: str, **arguments: Any) -> dict[str, Any]:
        if method == "put_object":
            arguments["Body"] = b"X" + arguments["Body"][1:]
        return call(self, method, name, **arguments)

    with aws_environment(), versitygw_server(tmp_path) as url:
        make_s3_bucket(url, "fault-bucket")
        store = S3Store(BucketFolder("s3", "fault-bucket", ""), endpoint_url=url)
        store.put("before", b"bytes")
        monkeypatch.setattr(S3Store, "_call", corrupt)
        with pytest.raises(TransientStoreError, match="Content-MD5"):
            store.put("object", b"bytes")
        assert [info.name for info in store.list()] == ["before"]


def test_a_missing_bucket_is_no_missing_object(moto_url: str) -> None:
    """A write says that the bucket is not there, and never creates it."""
    store = S3Store(BucketFolder("s3", "no-such-bucket", ""), endpoint_url=moto_url)
    with pytest.raises(StoreError, match="no such bucket") as caught:
        store.put("object", b"x")
    assert not isinstance(caught.value, ObjectNotFoundError)


def test_a_server_that_is_not_there_is_transient() -> None:
    """A refused connection is a transient fault, once the client's own retries are used up."""
    with aws_environment(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        store = S3Store(BucketFolder("s3", "bucket", ""), endpoint_url="http://127.0.0.1:9")
        with pytest.raises(TransientStoreError):
            store.put("object", b"x")


def test_s3_takes_its_endpoint_from_the_environment(moto_url: str) -> None:
    """AWS_ENDPOINT_URL reaches the client."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", moto_url)
        open_store("s3://fault-bucket/environment").put("object", b"x")
    assert stored_bytes(open_store("s3://fault-bucket/environment", endpoint_url=moto_url), "object") == b"x"


@pytest.mark.slow
def test_gcs_takes_its_endpoint_from_the_environment() -> None:
    """STORAGE_EMULATOR_HOST reaches both clients, needs no credentials, and gcsfs's probe of bucket types stays off."""
    with fake_gcs_server() as url:
        make_gcs_bucket(url, "fake-bucket")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GCSFS_")}
        arguments = [sys.executable, "-c", READ_BY_ENVIRONMENT, "gs://fake-bucket"]
        subprocess.run(arguments, check=True, timeout=120, cwd=Path(__file__).parents[2], env={**environment, "STORAGE_EMULATOR_HOST": url})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
def test_an_interrupted_gcs_upload_is_discarded() -> None:
    """When the commit fails, nothing is visible, not even later, when the file object is collected."""
    import gc

    from gcsfs.core import GCSFile

    with fake_gcs_server() as url, pytest.MonkeyPatch.context() as patch:
        make_gcs_bucket(url, "fake-bucket")
        store = open_store("gs://fake-bucket/x", endpoint_url=url, anonymous=True, retry=None)

        def fail(self: GCSFile) -> None:
            raise ConnectionResetError("injected")

        patch.setattr(GCSFile, "commit", fail)
        with pytest.raises(TransientStoreError):
            store.put("object", bytes(1 << 20))
        gc.collect()
        assert (store.info("object"), list(store.list())) == (None, [])
        patch.undo()
        store.put("object", bytes(1 << 20))
        gc.collect()
        assert not any(isinstance(found, GCSFile) for found in gc.get_objects()), "files of finished uploads are not kept"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
def test_what_gcs_stored_is_compared_with_what_was_sent() -> None:
    """A shortened upload is caught by size, a changed one by crc32c."""
    from gcsfs.core import GCSFile

    with fake_gcs_server() as url, pytest.MonkeyPatch.context() as patch:
        make_gcs_bucket(url, "fake-bucket")
        store = open_store("gs://fake-bucket/x", endpoint_url=url, anonymous=True, retry=None)
        write = GCSFile.write
        for name, damage in {"short": lambda data: data[:-1], "changed": lambda data: b"X" + bytes(data[1:])}.items():
            patch.setattr(GCSFile, "write", lambda self, data, damage=damage: write(self, damage(data)))
            with pytest.raises(ObjectMismatchError, match="crc32c"):
                store.put(name, b"some bytes")


def test_a_gcs_file_that_failed_is_not_sent_by_its_finalizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """When memory runs out while the object is buffered, no request is ever made for it, and none later by the collector."""
    import gc

    from gcsfs import core

    deferred: list[core.GCSFile] = []
    monkeypatch.setattr(core, "_defer_close", deferred.append)

    def fail(self: core.GCSFile, data: memoryview) -> int:
        self.buffer.write(data[:10])
        raise MemoryError

    monkeypatch.setattr(core.GCSFile, "write", fail)
    store = open_store("gs://bucket/x", endpoint_url="http://127.0.0.1:9", anonymous=True, retry=None)
    # An endpoint where nothing listens: any request would be a TransientStoreError, after many retries.
    with pytest.raises(StoreError, match="MemoryError"):
        store.put("object", bytes(1 << 20))
    gc.collect()
    assert deferred == []
    assert not any(isinstance(found, core.GCSFile) for found in gc.get_objects()), "a file that failed is not kept"


def test_an_etag_that_is_no_md5_says_nothing_of_the_bytes(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers may number their objects in any way; what is swapped is still found by that number."""
    call = S3Store._call

    def numbered(self: S3Store, method: str, name: str, **arguments: Any) -> dict[str, Any]:
        real = arguments.get("IfMatch", "").removeprefix('"0x8D').removesuffix('"')
        reply = call(self, method, name, **(arguments | ({"IfMatch": f'"{real}"'} if real else {})))
        return reply if "ETag" not in reply else {**reply, "ETag": f'"0x8D{reply["ETag"].strip(chr(34))}"'}

    monkeypatch.setattr(S3Store, "_call", numbered)
    info = store.put("object", b"bytes", create_only=True)
    assert info.version.startswith('"0x8D')
    assert stored_bytes(store, "object") == b"bytes"
    store.swap("object", b"others", info)
    with pytest.raises(ObjectExistsError):
        store.swap("object", b"third", info)


def test_a_server_without_conditions_is_told_so_at_once(moto_url: str) -> None:
    """501 is no fault that passes."""
    body = b"<?xml version='1.0'?><Error><Code>NotImplemented</Code><Message>not implemented</Message></Error>"
    with store_proxy(moto_url) as proxy:
        proxy.fail_once(Answer(501, body, (("Content-Type", "application/xml"),)), lambda request: request.is_write, times=9)
        with pytest.raises(StoreError, match="does not implement") as caught:
            open_store("s3://fault-bucket/501", endpoint_url=proxy.url).put("object", b"x", create_only=True)
        assert type(caught.value) is StoreError and "If-None-Match" in caught.value.remedy
        assert proxy.hits == 1


def test_a_compressed_s3_object_is_no_wrong_byte(store: S3Store, moto_url: str) -> None:
    """Who compresses is named, and nobody is called a liar."""
    key = f"{store.location.folder}/object"
    boto3.client("s3", endpoint_url=moto_url).put_object(Bucket="fault-bucket", Key=key, Body=b"...", ContentEncoding="gzip")
    with pytest.raises(StoreError, match=r"compresses objects \(gzip\)"):
        stored_bytes(store, "object")
