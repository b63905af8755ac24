"""Which error of a store an error of its client becomes: made by the clients' own code, out of what servers answer."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import google.auth.exceptions
import pytest
import requests
from botocore.exceptions import ClientError, NoCredentialsError
from gcsfs.retry import validate_response
from google.api_core.exceptions import RetryError, from_http_status
from s3fs.errors import translate_boto_error

from pipelines.stores import gcs_store, s3_store
from schemas.errors import ObjectNotFoundError, StoreDeniedError, StoreError, StoreFullError, TransientStoreError


def _answer_of_gcs(status: int, message: str) -> Exception:
    """Return what gcsfs makes of a server's answer."""
    content = json.dumps({"error": {"message": message, "code": status}}).encode()
    with pytest.raises(Exception) as caught:
        validate_response(status, content, "b/o")
    return caught.value


GCS: list[tuple[Exception, type[StoreError]]] = [
    (_answer_of_gcs(404, "Not Found"), ObjectNotFoundError),
    (_answer_of_gcs(401, "Invalid Credentials"), StoreDeniedError),
    (_answer_of_gcs(403, "caller does not have storage.objects.create access"), StoreDeniedError),
    (_answer_of_gcs(408, "timeout"), TransientStoreError),
    (_answer_of_gcs(409, "conflict"), TransientStoreError),
    (_answer_of_gcs(429, "slow down"), TransientStoreError),
    (_answer_of_gcs(500, "internal"), TransientStoreError),
    (_answer_of_gcs(502, "bad gateway"), TransientStoreError),
    (_answer_of_gcs(503, "unavailable"), TransientStoreError),
    (_answer_of_gcs(400, "invalid argument"), StoreError),
    (from_http_status(403, "denied"), StoreDeniedError),
    (from_http_status(429, "slow down"), TransientStoreError),
    (from_http_status(503, "unavailable"), TransientStoreError),
    (from_http_status(404, "no such object"), ObjectNotFoundError),
    (RetryError("timed out", None), TransientStoreError),
    (aiohttp.ServerDisconnectedError(), TransientStoreError),
    (requests.exceptions.ConnectionError("reset"), TransientStoreError),
    (TimeoutError(), TransientStoreError),
    (google.auth.exceptions.TransportError("no route"), TransientStoreError),
    (google.auth.exceptions.DefaultCredentialsError("none"), StoreDeniedError),
    (google.auth.exceptions.RefreshError("revoked"), StoreDeniedError),
    (ValueError("other"), StoreError),
]


@pytest.mark.parametrize(("error", "expected"), GCS, ids=lambda value: getattr(value, "__name__", repr(value)[:60]))
def test_errors_of_gcs(error: Exception, expected: type[StoreError]) -> None:
    """Only transient faults are worth another try."""
    assert type(gcs_store._store_error(error, "gs://b/o", writing=False)) is expected


def test_a_write_to_a_missing_bucket_is_no_missing_object() -> None:
    """GCS answers 404 to both."""
    found = gcs_store._store_error(_answer_of_gcs(404, "Not Found"), "gs://b/o", writing=True)
    assert type(found) is StoreError
    assert "no such bucket" in found.problem


def _answer_of_s3(code: str, status: int) -> Exception:
    """Return what s3fs makes of a server's answer."""
    response: Any = {"Error": {"Code": code, "Message": "message"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    translated: Exception = translate_boto_error(ClientError(response, "PutObject"))
    return translated


S3: list[tuple[Exception, type[StoreError]]] = [
    (_answer_of_s3("NoSuchKey", 404), ObjectNotFoundError),
    (_answer_of_s3("404", 404), ObjectNotFoundError),
    (_answer_of_s3("AccessDenied", 403), StoreDeniedError),
    (_answer_of_s3("SignatureDoesNotMatch", 403), StoreDeniedError),
    (_answer_of_s3("InvalidAccessKeyId", 403), StoreDeniedError),
    (_answer_of_s3("PreconditionFailed", 412), s3_store._ConditionFailed),
    (_answer_of_s3("ConditionalRequestConflict", 409), TransientStoreError),
    (_answer_of_s3("SlowDown", 503), TransientStoreError),
    (_answer_of_s3("InternalError", 500), TransientStoreError),
    (_answer_of_s3("RequestTimeout", 400), TransientStoreError),
    (_answer_of_s3("BadDigest", 400), TransientStoreError),
    (_answer_of_s3("QuotaExceeded", 403), StoreFullError),
    (_answer_of_s3("XMinioStorageFull", 507), StoreFullError),
    (_answer_of_s3("InvalidRequest", 400), StoreError),
    (FileExistsError("exists"), s3_store._ConditionFailed),
    (NoCredentialsError(), StoreDeniedError),
    (ConnectionResetError("reset"), TransientStoreError),
    (ValueError("other"), StoreError),
]


@pytest.mark.parametrize(("error", "expected"), S3, ids=lambda value: getattr(value, "__name__", repr(value)[:60]))
def test_errors_of_s3(error: Exception, expected: type[StoreError]) -> None:
    """Only transient faults are worth another try."""
    assert type(s3_store._store_error(error, "s3://b/o")) is expected
