"""A store in a container of Azure Blob Storage, by azure-storage-blob (the extra ``azure``).

An object goes up in one request, or above `MULTIPART_BYTES_MIN` in blocks that one last request makes the object; blocks that no
request names are dropped by Azure after a week. Each request carries the MD5 of its body, so Azure refuses what was changed on the way.

What is avoided here, and why: the client's own upload in blocks numbers them by their offset, so that two uploads of one name at a time
would mix their bytes; here each upload's blocks have names of their own.
"""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pipelines.stores.answers import ERROR_TEXT_CHARACTERS_MAX, check_range_start, is_passing, retry_after_s
from pipelines.stores.azure_credentials import find_account
from pipelines.stores.bucket_store import BucketStore
from pipelines.stores.per_process import PerProcess
from pipelines.stores.ranges import as_view, holds_same_bytes
from pipelines.stores.store import Data, ObjectInfo
from schemas.errors import (
    InvalidInputError,
    ObjectExistsError,
    ObjectMismatchError,
    ObjectNotFoundError,
    RangeRefusedError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    TransientStoreError,
)
from schemas.shown_text import shown_text

MULTIPART_BYTES_MIN = 64 << 20
"""Objects of at least this size go up in several requests."""

BLOCK_BYTES = 32 << 20
"""One request of an upload in blocks; more where the object would need over `BLOCKS_MAX`."""

BLOCKS_MAX = 50_000
"""Azure's limit."""

GET_BYTES_MAX = 1 << 40
"""The client would read what is longer than its first range in further requests; an object is read in one."""

BLOCK_RETRIES = 3
"""Attempts after the first that the client makes at a block, so that the blocks before it need not be sent again; at nothing else."""

CONNECT_TIMEOUT_S = 30
READ_TIMEOUT_S = 60
"""Longest wait for the whole head of an answer, and for each read of its body."""

_PASSING_CODES = {"Md5Mismatch", "Crc64Mismatch", "InvalidBlockList", "ServerBusy", "OperationTimedOut"}
"""Transient faults that have the status of a refused request: bodies that were changed on the way, and blocks that another upload of
the same name has discarded by ending first."""

CREDENTIALS_REMEDY = "set AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or run az login."


@dataclass(frozen=True, slots=True)
class AzureStore(BucketStore):
    """A folder of a container. The account, whose endpoint is without the container, and its credentials come from the environment."""

    _container: PerProcess[Any] = field(default_factory=PerProcess, repr=False, compare=False)

    def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        """See `Store.put`."""
        return self._write(name, as_view(data), _absent() if create_only else {}, "the name is taken by other bytes")

    def info(self, name: str) -> ObjectInfo | None:
        """See `Store.info`."""
        blob = self._blob(name)
        try:
            with self._mapped(name):
                found = blob.get_blob_properties()
                return None if _is_folder(found) else ObjectInfo(name, int(found.size), _version(found.etag), found.last_modified)
        except ObjectNotFoundError:
            return None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        folder = self.location.listing_path(prefix).partition("/")[2]
        with self._mapped(prefix):
            found = list(self._client().list_blobs(name_starts_with=folder or None, include=["metadata"]))
            infos = [
                ObjectInfo(
                    self.location.name(f"{self.location.bucket}/{entry.name}"), int(entry.size), _version(entry.etag), entry.last_modified
                )
                for entry in sorted(found, key=lambda entry: str(entry.name))
                if entry.name.startswith(folder) and not entry.name.endswith("/") and not _is_folder(entry)
            ]
        yield from infos

    def swap(self, name: str, data: Data, expected: ObjectInfo | None) -> ObjectInfo:
        """See `Store.swap`."""
        condition = _unchanged(expected) if expected else _absent()
        return self._write(name, as_view(data), condition, "the object is not what was expected")

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        blob = self._blob(name)
        with suppress(ObjectNotFoundError), self._mapped(name):
            blob.delete_blob(delete_snapshots="include")

    def _read(self, name: str, start: int, stop: int) -> bytes:
        stream = self._blob(name).download_blob(
            offset=start, length=stop - start, raw_response_hook=_range_hook(start, stop, self._where(name))
        )
        return bytes(stream.readall())

    def _write(self, name: str, view: memoryview, condition: dict[str, Any], problem: str) -> ObjectInfo:
        try:
            with self._mapped(name):
                send = self._send_blocks if view.nbytes >= MULTIPART_BYTES_MIN else self._send
                return self._checked(name, view.nbytes, send(name, view, condition))
        except (_ConditionFailed, ObjectNotFoundError, StoreDeniedError) as error:
            # What is in the way may be our own object, from an attempt whose reply was lost. An identity that may create and not replace is told
            # that a taken name is denied.
            is_denied, is_creation = isinstance(error, StoreDeniedError), condition == _absent()
            info = self.info(name) if is_creation or not is_denied else None
            if is_denied and info is None:
                raise
            if info is not None and holds_same_bytes(self, name, view):
                return info
            if isinstance(error, ObjectNotFoundError) and "etag" not in condition:
                raise StoreError(
                    problem="no such container", where=self._where(name), remedy="Create it first; it is never created here."
                ) from error
            raise ObjectExistsError(problem=problem, where=self._where(name)) from None

    def _send(self, name: str, view: memoryview, condition: dict[str, Any]) -> str:
        """Upload in one request; return the new version."""
        reply = self._blob(name).upload_blob(view.tobytes(), validate_content=True, **({"overwrite": True} | condition))
        digest = hashlib.md5(view, usedforsecurity=False).digest()
        if bytes(reply.get("content_md5") or digest) != digest:
            raise ObjectMismatchError(problem="the store took other bytes than were sent, by their MD5", where=self._where(name))
        return _version(reply["etag"])

    def _send_blocks(self, name: str, view: memoryview, condition: dict[str, Any]) -> str:
        """Upload in several requests; return the new version."""
        from azure.storage.blob import BlobBlock

        blob, upload = self._blob(name), uuid.uuid4().hex
        size = max(BLOCK_BYTES, -(-view.nbytes // BLOCKS_MAX))
        blocks = []
        for number, start in enumerate(range(0, view.nbytes, size)):
            block_id = f"{upload}{number:08}"
            blob.stage_block(block_id, view[start : start + size].tobytes(), validate_content=True, retry_total=BLOCK_RETRIES)
            blocks.append(BlobBlock(block_id))
        return _version(blob.commit_block_list(blocks, validate_content=True, **condition)["etag"])

    def _checked(self, name: str, size: int, version: str) -> ObjectInfo:
        info = self.info(name)
        if info is None or info.size != size or info.version != version:
            found = "nothing" if info is None else f"{info.size} with {info.version}"
            raise ObjectMismatchError(problem=f"sent {size} bytes, stored as {version}; the store has {found}", where=self._where(name))
        return info

    def _blob(self, name: str) -> Any:
        return self._client().get_blob_client(self.location.key(name))

    def _client(self) -> Any:
        return self._container.get(self._open_container)

    def _open_container(self) -> Any:
        import requests
        from azure.core.pipeline.transport import RequestsTransport

        from pipelines.stores.bounded_requests import BoundedAdapter

        blobs = import_azure()
        account = find_account(self.endpoint_url, anonymous=self.anonymous)
        session = requests.Session()
        for scheme in ("http://", "https://"):
            # As many connections as threads ask at once; above this urllib3 complains on standard error.
            session.mount(scheme, BoundedAdapter(pool_maxsize=64))
        return blobs.ContainerClient(
            account.endpoint_url,
            self.location.bucket,
            credential=account.credential,
            # Said to the client they would not reach a transport that it did not make.
            transport=RequestsTransport(session=session, connection_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S),
            retry_policy=blobs.ExponentialRetry(initial_backoff=1, increment_base=2, random_jitter_range=1, retry_total=0),
            # Neither the client's attempts nor ours look at what a throttling server asks for.
            raw_response_hook=_pause,
            max_single_put_size=MULTIPART_BYTES_MIN,
            max_single_get_size=GET_BYTES_MAX,
        )

    def _is_past_end(self, error: BaseException) -> bool:
        return getattr(error, "status_code", 0) == 416

    def _store_error(self, error: Exception, where: str, *, writing: bool) -> StoreError:
        return _store_error(error, where)

    def _no_credentials(self, error: Exception) -> str:
        opened = self._container.opened
        return CREDENTIALS_REMEDY if opened is not None and opened.credential is None else ""


class _ConditionFailed(StoreError):
    """If-Match or If-None-Match did not hold. Never leaves this module."""


def import_azure() -> Any:
    """Return the module azure.storage.blob.

    Raises:
        InvalidInputError: it or azure.identity is not installed.
    """
    try:
        import azure.identity
        import azure.storage.blob
    except ImportError as error:
        raise InvalidInputError(
            problem="az:// needs the packages azure-storage-blob and azure-identity", remedy='Install them: pip install "statecast[azure]".'
        ) from error
    return azure.storage.blob


def _absent() -> dict[str, Any]:
    from azure.core import MatchConditions

    return {"match_condition": MatchConditions.IfMissing}


def _unchanged(expected: ObjectInfo) -> dict[str, Any]:
    from azure.core import MatchConditions

    return {"etag": f'"{expected.version}"', "match_condition": MatchConditions.IfNotModified}


def _version(etag: Any) -> str:
    """Return an ETag without its quotes, which listings leave out."""
    return str(etag).strip('"')


def _is_folder(properties: Any) -> bool:
    """Tell the mark of a folder, which accounts with a hierarchical namespace keep as an empty object, from an object."""
    metadata = properties.metadata or {}
    return any(name.lower() == "hdi_isfolder" and value == "true" for name, value in metadata.items())


def _pause(response: Any) -> None:
    """Wait as long as a throttling answer asks for."""
    if response.http_response.status_code in (429, 503):
        time.sleep(retry_after_s(response.http_response.headers.get("Retry-After")))


def _range_hook(start: int, stop: int, where: str) -> Callable[[Any], None]:
    """Return what looks at an answer to a range, in the place of `_pause`: the client asks for its size alone, not for where it begins.

    Of an answer that ends too soon the client asks for the rest, in a request whose range begins later.
    """

    def look(response: Any) -> None:
        _pause(response)
        answer = response.http_response
        if answer.status_code in (200, 206):
            asked = re.match(r"bytes=(\d+)-", response.http_request.headers.get("x-ms-range", ""))
            begin = start if asked is None else int(asked[1])
            try:
                check_range_start(begin, answer.headers.get("Content-Range"), where, is_partial=True)
                # The client holds what comes until it ends; without a length it may never.
                said = answer.headers.get("Content-Length", "")
                if re.fullmatch("[0-9]{1,18}", said) is None or int(said) > stop - begin:
                    raise RangeRefusedError(problem=f"the answer's length is {said[:20]!r}, for {stop - begin} bytes", where=where)
            except RangeRefusedError:
                # Its body, which may be long, is not read.
                answer.internal_response.close()
                raise

    return look


def _store_error(error: Exception, where: str) -> StoreError:
    """Return the store's error for an error of azure-storage-blob or azure-identity."""
    import requests
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ServiceRequestError, ServiceResponseError

    status = int(getattr(error, "status_code", None) or 0)
    code = str(getattr(getattr(error, "error_code", None), "value", getattr(error, "error_code", None)) or "")
    # After the first line come the request's number and the whole answer.
    first_line = shown_text(str(error).partition("\n")[0])[:ERROR_TEXT_CHARACTERS_MAX]
    text = " ".join(filter(None, (first_line, code)))
    if status == 412 or code == "BlobAlreadyExists":
        return _ConditionFailed(problem="the object is not what was expected", where=where)
    if status == 404:
        return ObjectNotFoundError(problem="no such object", where=where)
    if status == 507:
        return StoreFullError(problem=f"the store is full: {text}", where=where, remedy="Free space or raise the quota, then run again.")
    if status in (401, 403) or code == "BlobImmutableDueToPolicy" or isinstance(error, ClientAuthenticationError):
        return StoreDeniedError(
            problem=f"the store refuses access: {text}",
            where=where,
            remedy="Check the credentials and the identity's role on the container.",
        )
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreError(
            problem=f"the server's certificate is not trusted: {text}",
            where=where,
            remedy="Name its authority's file by REQUESTS_CA_BUNDLE.",
        )
    passing = (
        ServiceRequestError,
        ServiceResponseError,
        requests.exceptions.RequestException,
        TimeoutError,
        ConnectionError,
    )
    # Azurite tells a wrong MD5 by its words alone. An error without a status is of an answer that broke off.
    is_changed = status == 400 and "md5" in text.lower()
    is_broken = isinstance(error, HttpResponseError) and status == 0
    if is_passing(status) or code in _PASSING_CODES or is_changed or is_broken or isinstance(error, passing):
        return TransientStoreError(problem=f"the store has a transient fault: {text}", where=where)
    return StoreError(problem=f"the store failed: {text}", where=where)
