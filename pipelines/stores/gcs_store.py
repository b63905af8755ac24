"""A store in a Google Cloud Storage bucket, by gcsfs; swaps by google-cloud-storage, since gcsfs has no generation condition.

What is avoided here, and why: gcsfs's ``pipe_file``, ``put_file`` and so on send small objects as a MIME body with a constant
boundary, which silently cuts an object that contains it, so objects go up by the resumable protocol alone; an fsspec transaction
is a state of the whole file system object, shared by all threads, so the two steps that it takes (a file without autocommit,
then commit or discard) are taken here for the one file.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import google_crc32c

from pipelines.stores.answers import check_range_start, is_passing, retry_after_s, shown
from pipelines.stores.bucket_store import BucketStore
from pipelines.stores.client_environment import (
    GCS_ANONYMOUS_VARIABLE,
    GCS_USER_PROJECT_VARIABLE,
    gcs_user_project,
    is_plain_http_elsewhere,
    is_set,
)
from pipelines.stores.gcs_credentials import find_credentials
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
    TransientStoreError,
)
from schemas.shown_text import shown_url

EMULATOR_VARIABLE = "STORAGE_EMULATOR_HOST"
"""The clients' own variable for another endpoint; with it set no credentials are looked for."""

BUCKET_TYPE_PROBE_VARIABLE = "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"
"""gcsfs asks for the bucket's type by gRPC on most calls unless this is false; needed for zonal buckets alone, so off unless the user sets it."""

TRACE_METADATA_VARIABLE = "DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"
"""google-cloud-storage's own; true unless the user sets it."""

BLOCK_BYTES_MIN = 256 << 10
"""Granule of GCS's resumable protocol, and gcsfs's smallest block."""

REQUEST_TIMEOUT_S = 300
"""Longest single request: a part of the largest size over a slow line."""

CONNECT_TIMEOUT_S = 30
"""Longest wait for a connection."""

CREDENTIALS_REMEDY = "name a key file by GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login."


@dataclass(frozen=True, slots=True)
class GcsStore(BucketStore):
    """A folder of a GCS bucket."""

    _file_system: PerProcess[Any] = field(default_factory=PerProcess, repr=False, compare=False)
    _bucket: PerProcess[Any] = field(default_factory=PerProcess, repr=False, compare=False)

    def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        """See `Store.put`."""
        path = self.location.path(name)
        view = as_view(data)
        try:
            with self._mapped(name, writing=True):
                self._upload(path, view, "xb" if create_only else "wb")
        except (FileExistsError, StoreDeniedError) as error:
            # Also the end of an upload of our own whose reply was lost. An identity that may create but not delete is told that a taken name is
            # denied, since writing there would replace.
            if not create_only or self.info(name) is None:
                raise
            if not holds_same_bytes(self, name, view):
                raise ObjectExistsError(problem="the name is taken by other bytes", where=self._where(name)) from error
        return self._checked(name, view)

    def info(self, name: str) -> ObjectInfo | None:
        """See `Store.info`."""
        found = self._metadata(name)
        return None if found is None else ObjectInfo(name, found["size"], found["generation"], found.get("mtime"))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        folder = self.location.listing_path(prefix)
        with self._mapped(prefix):
            self._fs().invalidate_cache()
            found = self._fs().find(folder.rstrip("/"), detail=True, update_cache=False)
            infos = [
                ObjectInfo(self.location.name(path), int(entry["size"]), str(entry.get("generation", "")), entry.get("mtime"))
                for path, entry in sorted(found.items())
                if path.startswith(folder) and not path.endswith("/")
            ]
        yield from infos

    def swap(self, name: str, data: Data, expected: ObjectInfo | None) -> ObjectInfo:
        """See `Store.swap`."""
        from google.api_core.exceptions import PreconditionFailed

        view = as_view(data)
        blob = self._bucket.get(self._open_bucket).blob(self.location.key(name))
        generation = int(expected.version) if expected else 0
        with self._mapped(name, writing=True):
            try:
                blob.upload_from_string(
                    view.tobytes(),
                    content_type="application/octet-stream",
                    if_generation_match=generation,
                    checksum="crc32c",
                    timeout=REQUEST_TIMEOUT_S,
                )
            except PreconditionFailed:
                if not holds_same_bytes(self, name, view):
                    raise ObjectExistsError(problem="the object is not what was expected", where=self._where(name)) from None
        return self._checked(name, view)

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        with suppress(ObjectNotFoundError), self._mapped(name):
            self._fs().rm_file(self.location.path(name))

    def _read(self, name: str, start: int, stop: int) -> bytes:
        # `cat_file` does not look at where the answer begins.
        url = self._fs().url(self.location.path(name))
        headers, data = self._fs().call("GET", url, headers={"Range": f"bytes={start}-{stop - 1}"})
        check_range_start(start, headers.get("Content-Range"), self._where(name))
        return bytes(data)

    def _upload(self, path: str, view: memoryview, mode: str) -> None:
        # `open` without autocommit would also enter the file into the file system's transaction, which keeps it, and its buffer, for
        # good. The block is larger than the object, so nothing is sent before all of it is buffered.
        file = self._fs()._open(path, mode, block_size=max(view.nbytes + 1, BLOCK_BYTES_MIN), autocommit=False)
        try:
            file.write(view)
            file.close()
            file.commit()
        except BaseException:
            # The finalizer of a file that is left open would send what it has buffered.
            file.closed = True
            with suppress(Exception):
                file.discard()
            raise

    def _metadata(self, name: str) -> dict[str, Any] | None:
        try:
            with self._mapped(name):
                self._fs().invalidate_cache()
                found: dict[str, Any] = self._fs().info(self.location.path(name))
                if found.get("type") != "file":
                    return None
                return {**found, "size": int(found["size"]), "generation": str(int(found["generation"]))}
        except ObjectNotFoundError:
            return None

    def _checked(self, name: str, view: memoryview) -> ObjectInfo:
        found = self._metadata(name)
        if found is None:
            raise ObjectMismatchError(problem="the store took the object and does not show it", where=self._where(name))
        checksum = base64.b64encode(google_crc32c.value(view.tobytes()).to_bytes(4, "big")).decode()
        if found["size"] != view.nbytes or found.get("crc32c", checksum) != checksum:
            raise ObjectMismatchError(
                problem=f"sent {view.nbytes} bytes with crc32c {checksum}, the store has {found['size']} with {found.get('crc32c')}",
                where=self._where(name),
            )
        return ObjectInfo(name, view.nbytes, found["generation"])

    def _fs(self) -> Any:
        return self._file_system.get(self._open_file_system)

    def _open_file_system(self) -> Any:
        os.environ.setdefault(BUCKET_TYPE_PROBE_VARIABLE, "false")
        import gcsfs
        import gcsfs.core

        from pipelines.stores.bounded_answer import BoundedAnswer

        # Its own account of what it gives up on, with a traceback, would go to standard error; the error itself comes out here.
        logging.getLogger("gcsfs").addHandler(logging.NullHandler())
        # gcsfs may have been imported before the variable was set; its plain class never probes.
        probes = os.environ[BUCKET_TYPE_PROBE_VARIABLE].lower() in ("true", "1")
        with self._mapped(""):
            return (gcsfs.GCSFileSystem if probes else gcsfs.core.GCSFileSystem)(
                # Only listing and making buckets need a project; a name silences gcsfs's warning about that.
                project=os.environ.get("GOOGLE_CLOUD_PROJECT") or "statecast",
                token=self._token(),
                endpoint_url=self.endpoint_url,
                requests_timeout=_client_timeout(),
                requester_pays=(not self.anonymous and gcs_user_project()) or False,
                session_kwargs={"trace_configs": [_pauses()], "response_class": BoundedAnswer},
                use_listings_cache=False,
                skip_instance_cache=True,
            )

    def _token(self) -> Any:
        """Return credentials as gcsfs takes them, or ``anon``.

        Raises:
            InvalidInputError: credentials would cross the network in clear.
            StoreDeniedError: credentials are named that can't be used.
        """
        endpoint_url = self.endpoint_url or os.environ.get(EMULATOR_VARIABLE)
        if self.anonymous or is_set(GCS_ANONYMOUS_VARIABLE) or os.environ.get(EMULATOR_VARIABLE):
            return "anon"
        found = find_credentials() or "anon"
        if found != "anon" and endpoint_url and is_plain_http_elsewhere(endpoint_url):
            raise InvalidInputError(
                problem="this endpoint is asked without TLS, so that others on the network could read the token and use it",
                where=shown_url(endpoint_url),
                remedy=f"Use https, or {GCS_ANONYMOUS_VARIABLE}=YES where no credentials are needed.",
            )
        return found

    def _open_bucket(self) -> Any:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        # Else it asks in the background for the bucket's description, for traces that are never read, with a permission that writers may not have.
        os.environ.setdefault(TRACE_METADATA_VARIABLE, "true")
        fs = self._fs()
        client = storage.Client(
            project=fs.project,
            credentials=fs.credentials.credentials or AnonymousCredentials(),
            client_options={"api_endpoint": self.endpoint_url} if self.endpoint_url else None,
        )
        return client.bucket(self.location.bucket, user_project=None if self.anonymous else gcs_user_project())

    def _is_past_end(self, error: BaseException) -> bool:
        return _code(error) == 416 or "not satisfiable" in shown(error)

    def _store_error(self, error: Exception, where: str, *, writing: bool) -> StoreError:
        return _store_error(error, where, writing)

    def _no_credentials(self, error: Exception) -> str:
        opened = self._file_system.opened
        is_anonymous = opened is not None and opened.credentials.credentials is None
        return CREDENTIALS_REMEDY if is_anonymous and not _requester_pays(error) else ""


def _client_timeout() -> Any:
    import aiohttp

    return aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)


def _pauses() -> Any:
    """Return what makes gcsfs, which retries at its own pace, wait as long as a throttling answer asks for."""
    import aiohttp

    async def wait(_session: Any, _context: Any, ended: Any) -> None:
        if ended.response.status in (429, 503):
            await asyncio.sleep(retry_after_s(ended.response.headers.get("Retry-After")))

    pauses = aiohttp.TraceConfig()
    pauses.on_request_end.append(wait)
    return pauses


def _code(error: BaseException | None) -> int:
    """Return the HTTP status in an error of either client, 0 when there is none."""
    code = getattr(error, "code", None)
    return int(code) if isinstance(code, int) or (isinstance(code, str) and code.isascii() and code.isdecimal()) else 0


def _requester_pays(error: BaseException) -> bool:
    return "requester pays" in str(error).lower()


def _store_error(error: Exception, where: str, writing: bool) -> StoreError:
    """Return the store's error for an error of gcsfs or google-cloud-storage."""
    import aiohttp
    import google.api_core.exceptions
    import google.auth.exceptions
    import requests

    code = _code(error)
    text = shown(error)
    if isinstance(error, FileNotFoundError) or code == 404:
        if writing:
            return StoreError(problem="no such bucket", where=where, remedy="Create it first; it is never created here.")
        return ObjectNotFoundError(problem="no such object", where=where)
    if _requester_pays(error):
        return StoreDeniedError(
            problem="the requester pays for requests to this bucket",
            where=where,
            remedy=f"Set {GCS_USER_PROJECT_VARIABLE} to your project.",
        )
    if code in (401, 403) or (isinstance(error, OSError) and text.startswith("Forbidden")):
        return StoreDeniedError(
            problem=f"the store refuses access: {text}", where=where, remedy="Grant the identity that runs this access to the bucket."
        )
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        remedy = "Name its authority's file by SSL_CERT_FILE and REQUESTS_CA_BUNDLE: there are two clients."
        return StoreError(problem=f"the server's certificate is not trusted: {text}", where=where, remedy=remedy)
    passing = (
        aiohttp.ClientError,
        requests.exceptions.RequestException,
        asyncio.TimeoutError,
        TimeoutError,
        ConnectionError,
        google.auth.exceptions.TransportError,
        google.api_core.exceptions.RetryError,
    )
    if is_passing(code) or isinstance(error, passing):
        return TransientStoreError(problem=f"the store has a transient fault: {text}", where=where)
    if isinstance(error, google.auth.exceptions.GoogleAuthError):
        return StoreDeniedError(problem=f"no usable credentials: {text}", where=where, remedy=f"To use credentials, {CREDENTIALS_REMEDY}")
    return StoreError(problem=f"the store failed: {text}", where=where)
