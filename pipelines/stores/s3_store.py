"""A store in an S3 bucket, or in one of a server that speaks S3, by s3fs (the extra ``s3``).

An object goes up in one request, or above `MULTIPART_BYTES_MIN` as a multipart upload that is aborted when anything fails. Each
request carries the MD5 of its body, so the server refuses what was changed on the way.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from pipelines.stores.bucket_folder import BucketFolder
from pipelines.stores.object_names import check_range
from pipelines.stores.per_process import PerProcess
from pipelines.stores.protocol import Data, ObjectInfo, StoreGuarantees
from pipelines.stores.ranges import as_view, holds_same_bytes, open_ranges
from schemas.errors import (
    InvalidInputError,
    ObjectExistsError,
    ObjectMismatchError,
    ObjectNotFoundError,
    StatecastError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    TransientStoreError,
)

MULTIPART_BYTES_MIN = 64 << 20
"""Objects of at least this size go up in several requests."""

UPLOAD_PART_BYTES = 32 << 20
"""One request of a multipart upload; more where the object would need over `UPLOAD_PARTS_MAX`."""

UPLOAD_PARTS_MAX = 10_000
"""S3's limit."""

_FULL_CODES = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"}


@dataclass(frozen=True, slots=True)
class S3Store:
    """A folder of an S3 bucket. Credentials and region are found as the AWS clients find them."""

    location: BucketFolder
    endpoint_url: str | None = None
    anonymous: bool = False
    _file_system: PerProcess[Any] = field(default_factory=PerProcess, repr=False, compare=False)

    @property
    def url(self) -> str:
        """``s3://bucket/folder``."""
        return self.location.url

    @property
    def guarantees(self) -> StoreGuarantees:
        """All, of a server that honours If-Match and If-None-Match as S3 does."""
        return StoreGuarantees(create_only=True, swap=True, durable=True, shared=True)

    def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        """See `Store.put`."""
        return self._write(name, as_view(data), {"IfNoneMatch": "*"} if create_only else {}, "the name is taken by other bytes")

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """See `Store.get`."""
        check_range(start, stop)
        path = self.location.path(name)
        try:
            with self._mapped(name):
                if start == stop:
                    self._call("head_object", name)
                    return b""
                whole = start == 0 and stop is None
                return bytes(self._fs().cat_file(path) if whole else self._fs().cat_file(path, start=start, end=stop))
        except StoreError as error:
            if error.__cause__ is not None and _reply(error.__cause__)[1] == 416:
                return b""
            raise

    def open(self, name: str) -> pa.NativeFile:
        """See `Store.open`."""
        return open_ranges(self, name)

    def info(self, name: str) -> ObjectInfo | None:
        """See `Store.info`."""
        try:
            with self._mapped(name):
                head = self._call("head_object", name)
        except ObjectNotFoundError:
            return None
        return ObjectInfo(name, int(head["ContentLength"]), str(head["ETag"]), head.get("LastModified"))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        folder = self.location.listing_path(prefix)
        with self._mapped(prefix):
            self._fs().invalidate_cache()
            found = self._fs().find(folder.rstrip("/"), detail=True)
        for path, entry in sorted(found.items()):
            if path.startswith(folder) and not path.endswith("/"):
                yield ObjectInfo(self.location.name(path), int(entry["size"]), str(entry.get("ETag", "")), entry.get("LastModified"))

    def swap(self, name: str, data: Data, expected: ObjectInfo | None) -> ObjectInfo:
        """See `Store.swap`."""
        condition = {"IfMatch": expected.version} if expected else {"IfNoneMatch": "*"}
        return self._write(name, as_view(data), condition, "the object is not what was expected")

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        with suppress(ObjectNotFoundError), self._mapped(name):
            self._call("delete_object", name)

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
        # Under server-side encryption with a managed key an ETag is not made of MD5s; the request's own MD5 was checked all the same.
        opaque = reply.get("ServerSideEncryption", "AES256") != "AES256"
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
        endpoint_url = self.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        foreign = endpoint_url is not None and not (urlsplit(endpoint_url).hostname or "").endswith(".amazonaws.com")
        # Servers other than AWS may refuse the checksum trailers, or store them as part of the object.
        checksums = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
        return s3fs.S3FileSystem(
            anon=self.anonymous,
            endpoint_url=endpoint_url,
            config_kwargs=checksums if foreign else {},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def _where(self, name: str) -> str:
        return f"{self.url}/{name}"

    @contextmanager
    def _mapped(self, name: str) -> Iterator[None]:
        """Turn the client's errors into errors of a store."""
        try:
            yield
        except (StatecastError, AssertionError):
            raise
        except Exception as error:
            raise _store_error(error, self._where(name)) from error


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
    from botocore.exceptions import HTTPClientError, NoCredentialsError, PartialCredentialsError

    code, status = _reply(error)
    text = str(error) or type(error).__name__
    if status == 412 or code == "PreconditionFailed" or isinstance(error, FileExistsError):
        return _ConditionFailed(problem="the object is not what was expected", where=where)
    if isinstance(error, FileNotFoundError) or status == 404:
        return ObjectNotFoundError(problem="no such object", where=where)
    if status == 507 or code in _FULL_CODES:
        return StoreFullError(
            problem=f"the store is full: {text[:300]}", where=where, remedy="Free space or raise the quota, then run again."
        )
    if isinstance(error, (PermissionError, NoCredentialsError, PartialCredentialsError)) or status in (401, 403):
        return StoreDeniedError(
            problem=f"the store refuses access: {text[:300]}", where=where, remedy="Check the credentials and the bucket's policy."
        )
    passing = (HTTPClientError, BotocoreConnectionError, aiohttp.ClientError, asyncio.TimeoutError, TimeoutError, ConnectionError)
    if status in (408, 409, 429) or status >= 500 or code in ("SlowDown", "RequestTimeout", "BadDigest") or isinstance(error, passing):
        return TransientStoreError(problem=f"the store failed for the moment: {text[:300]}", where=where)
    return StoreError(problem=f"the store failed: {text[:300]}", where=where)
