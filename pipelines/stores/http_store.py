"""A folder behind plain HTTP or HTTPS, to be read: a mirror, a static site, a public bucket's web address. It has no listing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import urllib3

from pipelines.stores.answers import http_date
from pipelines.stores.http_client import read_body
from pipelines.stores.http_folder import HttpFolder, check_reply, mapped_errors
from pipelines.stores.object_names import check_object_name, check_range
from pipelines.stores.per_process import PerProcess
from pipelines.stores.read_only import ReadOnlyStore
from pipelines.stores.store import ObjectInfo
from schemas.errors import InvalidInputError, ObjectNotFoundError, StoreError, StoreNotListedError
from schemas.url import split_web_url

TIMEOUT_S: Final = 30.0
"""Longest wait for an answer or for bytes."""

CONNECTIONS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class HttpStore(ReadOnlyStore):
    """Files below one URL. Which are there, only their names tell."""

    base_url: str
    _folder: PerProcess[HttpFolder] = field(default_factory=PerProcess, repr=False, compare=False)

    @classmethod
    def parse(cls, url: str) -> HttpStore:
        """Take a URL of a folder.

        Raises:
            InvalidInputError: not one, or with credentials or a query.
        """
        parts = split_web_url(url)
        if parts.query or "@" in parts.netloc:
            # It is shown, logged and sent to workers.
            raise InvalidInputError(
                problem="the URL of a folder that is read holds no credentials and no query",
                where=f"{parts.scheme}://...",
                remedy="Only statecast fetch takes them, with --source.",
            )
        return cls(HttpFolder(url, TIMEOUT_S, CONNECTIONS_MAX).url)

    @property
    def url(self) -> str:
        """As it was given, without a slash at the end."""
        return self.base_url

    def get(self, name: str, start: int, stop: int) -> bytes:
        """See `Store.get`; a server without ranges gives objects from their beginning.

        Raises:
            RangeRefusedError: the server does not begin at ``start``.
        """
        check_range(start, stop)
        if start == stop:
            if self.info(name) is None:
                raise ObjectNotFoundError(problem="no such object", where=self._where(name))
            return b""
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        where = self._where(name)
        with mapped_errors(where):
            reply = self._request(name, "GET", headers)
            try:
                if reply.status == 416 and _total(reply) is not None:
                    return b""
                check_reply(reply, start, where)
                return _body(reply, stop - start, where)
            finally:
                reply.close()

    def info(self, name: str) -> ObjectInfo | None:
        """See `Store.info`: by HEAD."""
        where = self._where(name)
        try:
            with mapped_errors(where):
                reply = self._request(name, "HEAD", {})
                reply.close()
                check_reply(reply, 0, where)
        except ObjectNotFoundError:
            return None
        size = reply.headers.get("Content-Length", "")
        if re.fullmatch(r"[0-9]{1,18}", size) is None:
            raise StoreError(problem="the server does not say how long the object is", where=where)
        modified = reply.headers.get("Last-Modified", "")
        return ObjectInfo(name, int(size), reply.headers.get("ETag", modified), http_date(modified))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Refuse.

        Raises:
            StoreNotListedError: always.
        """
        raise StoreNotListedError(
            problem="a web server can't be listed",
            where=f"{self.url}/{prefix}",
            remedy="Name the chain or the epoch's folder (…/chain_id=…/epoch_height=…/epoch_id=…), or read the bucket itself.",
        )

    def _request(self, name: str, method: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        folder = self._folder.get(lambda: HttpFolder(self.base_url, TIMEOUT_S, CONNECTIONS_MAX))
        return folder.request(check_object_name(name), method, headers)


def _body(reply: urllib3.BaseHTTPResponse, wanted: int, where: str) -> bytes:
    """Read a body, no further than what is wanted: it may never end."""
    body = bytearray()
    for buffer in read_body(reply, where):
        body += buffer
        if len(body) >= wanted:
            break
    return bytes(body[:wanted])


def _total(reply: urllib3.BaseHTTPResponse) -> int | None:
    """Return an object's size by an answer to a range that lies past its end."""
    found = re.fullmatch(r"bytes \*/([0-9]{1,18})", reply.headers.get("Content-Range", ""))
    return None if found is None else int(found[1])
