"""Files below an HTTP or HTTPS URL: the one client of all that reads the web.

Every transfer has a connection of its own that is closed after it: nothing stays open between parts, and a load balancer can send
each to another machine. Redirects are followed, a few, and never from HTTPS to HTTP. Compressed replies are refused: the bytes of an
object are what counts. Certificates are verified as the system does.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, SSLError

from pipelines.stores.answers import check_range_start, is_passing, retry_after_s
from pipelines.stores.http_client import HttpClient
from schemas.errors import (
    InvalidInputError,
    ObjectNotFoundError,
    RangeRefusedError,
    StatecastError,
    StoreDeniedError,
    StoreError,
    TransientStoreError,
)
from schemas.shown_text import shown_url
from schemas.url import split_web_url

REDIRECTS_MAX: Final = 5

RETRY_AFTER_TOLD_S_MAX: Final = 86_400.0
"""The longest pause of a server that is passed on; the caller that waits has a limit of its own."""

_MOVED = (301, 302, 303, 307, 308)


class HttpFolder:
    """Files below one URL.

    Args:
        url: a user and password in it are sent and never shown; a query is kept.
        timeout_s: longest wait for an answer or for bytes.
        connections_max: most that are used at once.
        is_named: a person named it; what a document named is asked on the public internet alone.
    Raises:
        InvalidInputError: not an HTTP URL, or the environment names a proxy that is none.
    """

    def __init__(self, url: str, timeout_s: float, connections_max: int, *, is_named: bool = True) -> None:
        parts = split_web_url(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
            raise InvalidInputError(problem="this is not an HTTP URL of a folder", where=shown_url(url))
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        netloc = host if parts.port is None else f"{host}:{parts.port}"
        self._folder = (parts.scheme, netloc, parts.path.rstrip("/"))
        self._query = parts.query
        self._headers = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "statecast"}
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers |= urllib3.make_headers(basic_auth=credentials)
        self._client = HttpClient(parts, timeout_s, connections_max, is_named=is_named)

    @property
    def url(self) -> str:
        """The URL without credentials and query."""
        return urlunsplit((*self._folder, "", ""))

    @property
    def is_local(self) -> bool:
        """Whether the host that a person named was found not to be public."""
        return self._client.is_local

    def request(
        self, name: str, method: str = "GET", headers: Mapping[str, str] | None = None, before_each: Callable[[], None] = lambda: None
    ) -> urllib3.BaseHTTPResponse:
        """Ask for a file, following redirects, and return the answer, whose body is not read yet; the caller closes it.

        Args:
            before_each: called before every request.
        Raises:
            StoreError: too many redirects, or to where none may lead. What the client raises is for `mapped_errors`.
            StoreDeniedError: a redirect, or what a document named, leads to an address that is not public.
        """
        scheme, netloc, path = self._folder
        url = urlunsplit((scheme, netloc, f"{path}/{quote(name, safe='/=')}", self._query, ""))
        where = f"{self.url}/{name}"
        sent = {**self._headers, **(headers or {})}
        for _ in range(REDIRECTS_MAX + 1):
            before_each()
            reply = self._client.request(method, url, sent)
            target = reply.headers.get("Location")
            if reply.status not in _MOVED or target is None:
                return reply
            reply.close()
            try:
                before, after = urlsplit(url), urlsplit(urljoin(url, target))
                is_elsewhere = (before.scheme, before.hostname, before.port) != (after.scheme, after.hostname, after.port)
            except ValueError:
                raise StoreError(problem="the server redirects to no URL", where=where) from None
            if not after.hostname:
                raise StoreError(problem="the server redirects to no host", where=where)
            if after.scheme not in ("http", "https") or (before.scheme == "https" and after.scheme == "http"):
                raise StoreError(problem=f"the server redirects to {after.scheme[:20] or 'nowhere'}", where=where)
            if is_elsewhere:
                # What one host may know is not for another.
                sent.pop("authorization", None)
            url = after._replace(fragment="").geturl()
        raise StoreError(problem=f"more than {REDIRECTS_MAX} redirects", where=where)

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()


def check_reply(reply: urllib3.BaseHTTPResponse, start: int, where: str) -> None:
    """Raise what a status means; return when the body is the object from ``start``."""
    status = reply.status
    problem = f"HTTP {status}"
    if status in (404, 410):
        raise ObjectNotFoundError(problem=f"no such object ({problem})", where=where)
    if start and status in (200, 400, 401, 403, 405, 416, 501):
        raise RangeRefusedError(problem=f"no answer to a range ({problem})", where=where)
    if status in (401, 403, 407):
        raise StoreDeniedError(problem=f"the server refuses access ({problem})", where=where)
    if is_passing(status):
        raise TransientStoreError(
            problem=f"the server has a transient fault ({problem})",
            where=where,
            retry_after_s=retry_after_s(reply.headers.get("Retry-After"), RETRY_AFTER_TOLD_S_MAX),
        )
    if status not in (200, 206):
        raise StoreError(problem=f"the server answers {problem}", where=where)
    check_range_start(start, reply.headers.get("Content-Range") if status == 206 else None, where, is_partial=status == 206)
    if reply.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
        raise StoreError(problem=f"the server compresses objects ({reply.headers['Content-Encoding'][:40]})", where=where)


@contextmanager
def mapped_errors(where: str) -> Iterator[None]:
    """Turn the client's errors into errors of a store: whatever an answer makes it raise is the server's fault."""
    try:
        yield
    except (StatecastError, MemoryError):
        raise
    except LocationParseError as error:
        raise StoreError(problem=f"the server redirects to no URL: {_first_words(error)}", where=where) from None
    except SSLError as error:
        raise StoreDeniedError(problem=f"the server's certificate or TLS is refused: {_first_words(error)}", where=where) from None
    except (HTTPError, http.client.HTTPException, OSError) as error:
        raise TransientStoreError(problem=f"the connection failed: {_first_words(error)}", where=where) from None
    except Exception as error:
        raise StoreError(problem=f"the server's answer can't be read: {_first_words(error)}", where=where) from None


def _first_words(error: Exception) -> str:
    text = str(error).rpartition(": ")[2] or type(error).__name__
    return text[:200]
