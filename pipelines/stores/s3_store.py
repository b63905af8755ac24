"""A store in an S3 bucket, or in one of a server that speaks S3, by s3fs (the extra ``s3``).

An object goes up in one request, or above `MULTIPART_BYTES_MIN` as a multipart upload that is aborted when anything fails. Each
request carries the MD5 of its body, so the server refuses what was changed on the way.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pipelines.stores.answers import check_range_start, is_passing, retry_after_s, shown
from pipelines.stores.bucket_store import BucketStore
from pipelines.stores.client_environment import S3_ANONYMOUS_VARIABLE, S3_REQUEST_PAYER_VARIABLE, is_set, s3_requester_pays
from pipelines.stores.per_process import PerProcess
from pipelines.stores.ranges import as_view, holds_same_bytes
from pipelines.stores.store import Data, ObjectInfo
from schemas.errors import (
    InvalidInputError,
    ObjectExistsError,
    ObjectMismatchError,
    ObjectNotFoundError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    TransientStoreError,
)
from schemas.url import split_url

MULTIPART_BYTES_MIN = 64 << 20
"""Objects of at least this size go up in several requests."""

UPLOAD_PART_BYTES = 32 << 20
"""One request of a multipart upload; more where the object would need over `UPLOAD_PARTS_MAX`."""

UPLOAD_PARTS_MAX = 10_000
"""S3's limit."""

LISTED_PAGES_MAX = 20_000
"""Most pages of a listing, each of at most a thousand objects: a server could go on for ever."""

_MD5_ETAG = re.compile(r'"?[0-9a-f]{32}(-[0-9]{1,5})?"?')

_PASSING_CODES = {"SlowDown", "RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
"""Transient faults that have the status of a refused request; the mismatches are of a body that was changed on the way."""

_FULL_CODES = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"}

CREDENTIALS_REMEDY = "name a profile by AWS_PROFILE, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."


@dataclass(frozen=True, slots=True)
class S3Store(BucketStore):
    """A folder of an S3 bucket. Credentials and region are found as the AWS clients find them."""

    _file_system: PerProcess[Any] = field(default_factory=PerProcess, repr=False, compare=False)

    def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        """See `Store.put`."""
        return self._write(name, as_view(data), {"IfNoneMatch": "*"} if create_only else {}, "the name is taken by other bytes")

    def info(self, name: str) -> ObjectInfo | None:
        """See `Store.info`."""
        try:
            with self._mapped(name):
                head = self._call("head_object", name)
                return ObjectInfo(name, int(head["ContentLength"]), str(head["ETag"]), head.get("LastModified"))
        except ObjectNotFoundError:
            return None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        folder = self.location.listing_path(prefix)
        with self._mapped(prefix):
            infos = sorted(
                (
                    ObjectInfo(self.location.name(path), int(entry["Size"]), str(entry.get("ETag", "")), entry.get("LastModified"))
                    for entry in self._entries(folder.partition("/")[2], self._where(prefix))
                    if (path := f"{self.location.bucket}/{entry['Key']}").startswith(folder) and not path.endswith("/")
                ),
                key=lambda info: info.name,
            )
        yield from infos

    def swap(self, name: str, data: Data, expected: ObjectInfo | None) -> ObjectInfo:
        """See `Store.swap`."""
        condition = {"IfMatch": expected.version} if expected else {"IfNoneMatch": "*"}
        return self._write(name, as_view(data), condition, "the object is not what was expected")

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        with suppress(ObjectNotFoundError), self._mapped(name):
            self._call("delete_object", name)

    def _entries(self, prefix: str, where: str) -> Iterator[dict[str, Any]]:
        """Yield what a listing says of each object, page by page: s3fs' own would follow a server that never ends, and hold all of it."""
        more: dict[str, str] = {}
        for _ in range(LISTED_PAGES_MAX):
            page = self._fs().call_s3("list_objects_v2", Bucket=self.location.bucket, Prefix=prefix, **more)
            yield from page.get("Contents", ())
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken")
            if not token or token == more.get("ContinuationToken"):
                raise StoreError(problem="the server's listing does not go on", where=where)
            more = {"ContinuationToken": token}
        raise StoreError(problem=f"the server's listing has more than {LISTED_PAGES_MAX} pages", where=where)

    def _read(self, name: str, start: int, stop: int) -> bytes:
        """See `BucketStore._read`; s3fs itself does not look at where an answer begins."""
        from fsspec.asyn import sync

        from pipelines.stores.bounded_answer import read_bounded

        file_system, where = self._fs(), self._where(name)
        location = {"Bucket": self.location.bucket, "Key": self.location.key(name)}

        async def read() -> bytes:
            reply = await file_system._call_s3("get_object", **location, Range=f"bytes={start}-{stop - 1}")
            try:
                if (status := reply["ResponseMetadata"]["HTTPStatusCode"]) not in (200, 206):
                    raise StoreError(problem=f"the server answers with HTTP status {status}", where=where)
                check_range_start(start, reply.get("ContentRange"), where)
                return await read_bounded(reply["Body"], stop - start, where)
            finally:
                reply["Body"].close()

        return bytes(sync(file_system.loop, read))

    def _write(self, name: str, view: memoryview, condition: dict[str, str], problem: str) -> ObjectInfo:
        try:
            with self._mapped(name):
                send = self._send_multipart if view.nbytes >= MULTIPART_BYTES_MIN else self._send
                return self._checked(name, view.nbytes, *send(name, view, condition))
        except (_ConditionFailed, ObjectNotFoundError) as error:
            # What is in the way may be our own object, from an attempt whose reply was lost.
            info = self.info(name)
            if info is not None and holds_same_bytes(self, name, view):
                return info
            if isinstance(error, ObjectNotFoundError) and "IfMatch" not in condition:
                raise StoreError(
                    problem="no such bucket or upload", where=self._where(name), remedy="Create the bucket first; it is never created here."
                ) from error
            raise ObjectExistsError(problem=problem, where=self._where(name)) from None

    def _send(self, name: str, view: memoryview, condition: dict[str, str]) -> tuple[dict[str, Any], str]:
        """Upload in one request; return the reply and the ETag that S3 gives such bytes."""
        digest = hashlib.md5(view, usedforsecurity=False)
        reply = self._call("put_object", name, Body=view.tobytes(), ContentMD5=_base64(digest), **condition)
        return reply, digest.hexdigest()

    def _send_multipart(self, name: str, view: memoryview, condition: dict[str, str]) -> tuple[dict[str, Any], str]:
        """Upload in several requests; return the last reply and the ETag that S3 gives such bytes."""
        size = max(UPLOAD_PART_BYTES, -(-view.nbytes // UPLOAD_PARTS_MAX))
        upload_id = self._call("create_multipart_upload", name)["UploadId"]
        try:
            uploaded, digests = [], []
            for number, start in enumerate(range(0, view.nbytes, size), start=1):
                body = view[start : start + size].tobytes()
                digest = hashlib.md5(body, usedforsecurity=False)
                reply = self._call("upload_part", name, UploadId=upload_id, PartNumber=number, Body=body, ContentMD5=_base64(digest))
                uploaded.append({"PartNumber": number, "ETag": reply["ETag"]})
                digests.append(digest.digest())
            reply = self._call("complete_multipart_upload", name, UploadId=upload_id, MultipartUpload={"Parts": uploaded}, **condition)
        except BaseException:
            # Abandoned parts are invisible and cost money.
            with suppress(Exception):
                self._call("abort_multipart_upload", name, UploadId=upload_id)
            raise
        return reply, f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"

    def _checked(self, name: str, size: int, reply: dict[str, Any], etag: str) -> ObjectInfo:
        info = self.info(name)
        # Under server-side encryption with a managed key, and at servers that number their objects in another way, an ETag is not made of
        # MD5s; the request's own MD5 was checked all the same.
        is_md5 = info is not None and _MD5_ETAG.fullmatch(info.version) is not None
        opaque = reply.get("ServerSideEncryption", "AES256") != "AES256" or not is_md5
        if info is None or info.size != size or (not opaque and info.version.strip('"') != etag):
            found = "nothing" if info is None else f"{info.size} with {info.version}"
            raise ObjectMismatchError(problem=f"sent {size} bytes with ETag {etag}, the store has {found}", where=self._where(name))
        return info

    def _call(self, method: str, name: str, **arguments: Any) -> dict[str, Any]:
        reply: dict[str, Any] = self._fs().call_s3(method, Bucket=self.location.bucket, Key=self.location.key(name), **arguments)
        return reply

    def _fs(self) -> Any:
        return self._file_system.get(self._open_file_system)

    def _open_file_system(self) -> Any:
        s3fs = import_s3fs()
        from aiobotocore.session import AioSession

        session = AioSession()
        # The client retries at its own pace, and would overrun what a throttling server asks for.
        session.register("response-received.s3", _pause)
        session.register("response-received.s3.GetObject", _refuse_compressed)
        endpoint_url = self.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        foreign = endpoint_url is not None and not (split_url(endpoint_url).hostname or "").endswith(".amazonaws.com")
        # Servers other than AWS may refuse the checksum trailers, or store them as part of the object.
        checksums = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
        # Other tools also read AWS_REGION, botocore does not.
        region = os.environ.get("AWS_REGION") if "AWS_DEFAULT_REGION" not in os.environ else None
        file_system = s3fs.S3FileSystem(
            session=session,
            anon=self.anonymous or is_set(S3_ANONYMOUS_VARIABLE) or not has_credentials(),
            endpoint_url=endpoint_url,
            client_kwargs={"region_name": region} if region else {},
            config_kwargs={"http_session_cls": _bounded_session(), **(checksums if foreign else {})},
            requester_pays=s3_requester_pays() and not self.anonymous,
            # An object is read in one request, so that it is never half of one version and half of another.
            max_concurrency=1,
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        # Its own retries would lie between botocore's and ours.
        file_system.retries = 1
        return file_system

    def _is_past_end(self, error: BaseException) -> bool:
        return _reply(error)[1] == 416

    def _store_error(self, error: Exception, where: str, *, writing: bool) -> StoreError:
        return _store_error(error, where)

    def _no_credentials(self, error: Exception) -> str:
        opened = self._file_system.opened
        return CREDENTIALS_REMEDY if opened is not None and opened.anon else ""


class _CompressedError(Exception):
    """The Content-Encoding of an answer. Never leaves this module."""


class _ConditionFailed(StoreError):
    """If-Match or If-None-Match did not hold. Never leaves this module."""


def import_s3fs() -> Any:
    """Return the module s3fs.

    Raises:
        InvalidInputError: it is not installed.
    """
    try:
        import s3fs
    except ImportError as error:
        raise InvalidInputError(problem="s3:// needs the package s3fs", remedy='Install it: pip install "statecast[s3]".') from error
    return s3fs


@lru_cache
def _bounded_session() -> Any:
    """Return the class of the client's sessions, whose answers are bounded."""
    from aiobotocore.httpsession import AIOHTTPSession

    from pipelines.stores.bounded_answer import BoundedAnswer

    class BoundedSession(AIOHTTPSession):  # type: ignore[misc]
        async def _get_session(self, proxy_url: str | None) -> Any:
            session = await super()._get_session(proxy_url)
            # aiobotocore makes aiohttp's session by itself, with nothing that could be said of it.
            vars(session)["_response_class"] = BoundedAnswer
            return session

    return BoundedSession


def has_credentials() -> bool:
    """Tell whether the AWS clients find any credentials; looked for once for each state of the environment.

    Off AWS's machines the last step asks a metadata server that is not there, for some seconds; AWS_EC2_METADATA_DISABLED=true leaves it out.
    """
    return _has_credentials(tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_") or item[0] == "HOME")))


@lru_cache(maxsize=32)
def _has_credentials(_environment: tuple[tuple[str, str], ...]) -> bool:
    import botocore.exceptions
    import botocore.session

    try:
        return botocore.session.get_session().get_credentials() is not None
    except botocore.exceptions.BotoCoreError:
        # Named and not usable: the client's own error is the one to show.
        return True


async def _pause(response_dict: dict[str, Any] | None = None, **_: Any) -> None:
    """Wait as long as a throttling answer asks for."""
    if response_dict is not None and response_dict["status_code"] in (429, 503):
        await asyncio.sleep(retry_after_s(response_dict["headers"].get("Retry-After")))


async def _refuse_compressed(response_dict: dict[str, Any] | None = None, **_: Any) -> None:
    """Refuse an object that the server has compressed: the bytes that are stored are what counts."""
    encoding = "" if response_dict is None else response_dict["headers"].get("Content-Encoding", "")
    if any(word.strip() not in ("", "identity", "aws-chunked") for word in encoding.lower().split(",")):
        raise _CompressedError(encoding[:40])


def _base64(digest: Any) -> str:
    return base64.b64encode(digest.digest()).decode()


def _reply(error: BaseException) -> tuple[str, int]:
    """Return S3's error code and the HTTP status in an error of the client, or of its cause."""
    for candidate in (error, error.__cause__):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", "")), int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return "", 0


def _store_error(error: Exception, where: str) -> StoreError:
    """Return the store's error for an error of s3fs or botocore."""
    import aiohttp
    from botocore.exceptions import ConnectionError as BotocoreConnectionError
    from botocore.exceptions import HTTPClientError, NoCredentialsError, PartialCredentialsError, SSLError

    code, status = _reply(error)
    text = shown(error)
    if isinstance(error, _CompressedError):
        return StoreError(
            problem=f"the server compresses objects ({text})",
            where=where,
            remedy="Have it serve them as they are stored, without a Content-Encoding.",
        )
    if status == 412 or code == "PreconditionFailed" or isinstance(error, FileExistsError):
        return _ConditionFailed(problem="the object is not what was expected", where=where)
    if isinstance(error, FileNotFoundError) or status == 404:
        return ObjectNotFoundError(problem="no such object", where=where)
    if status == 507 or code in _FULL_CODES:
        return StoreFullError(problem=f"the store is full: {text}", where=where, remedy="Free space or raise the quota, then run again.")
    if isinstance(error, (PermissionError, NoCredentialsError, PartialCredentialsError)) or status in (401, 403):
        return StoreDeniedError(
            problem=f"the store refuses access: {text}",
            where=where,
            remedy=f"Check the credentials and the bucket's policy; {S3_REQUEST_PAYER_VARIABLE}=requester where the requester pays.",
        )
    if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in text:
        return StoreError(
            problem=f"the server's certificate is not trusted: {text}", where=where, remedy="Name its authority's file by AWS_CA_BUNDLE."
        )
    passing = (HTTPClientError, BotocoreConnectionError, aiohttp.ClientError, asyncio.TimeoutError, TimeoutError, ConnectionError)
    if status == 501 or code == "NotImplemented":
        return StoreError(
            problem=f"the server does not implement what was asked: {text}",
            where=where,
            remedy="To be written, a server must create and replace objects on a condition (If-None-Match, If-Match).",
        )
    if is_passing(status) or code in _PASSING_CODES or isinstance(error, passing):
        return TransientStoreError(problem=f"the store has a transient fault: {text}", where=where)
    return StoreError(problem=f"the store failed: {text}", where=where)
