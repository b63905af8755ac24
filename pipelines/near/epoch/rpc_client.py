"""Calls of one JSON-RPC endpoint: paced, retried, bounded in time and size.

An API key may stand in a URL's path, query or credentials: they are sent, and never repeated in an error, a log or a name. Redirects
are not followed. Nothing here knows what an answer means; blocks are checked by `schemas.nearcore.rpc_block`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import unquote, urlunsplit

import stamina
import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, SSLError, TimeoutError

from pipelines.stores.answers import is_passing
from pipelines.stores.body_pace import READ_BYTES
from pipelines.stores.http_client import HttpClient
from pipelines.stores.pace import Pace
from schemas.errors import InvalidInputError, SourceError
from schemas.json_limits import JsonLimits
from schemas.url import split_web_url

REQUESTS_PER_S: Final = 10.0
"""Most requests a second, unless said otherwise: public endpoints refuse more."""

CONNECTIONS_MAX: Final = 8
"""Most connections to an endpoint that are kept."""

_NOT_KNOWN: Final = frozenset(
    {"UNKNOWN_BLOCK", "GARBAGE_COLLECTED_BLOCK", "UNKNOWN_EPOCH", "VALIDATOR_INFO_UNAVAILABLE", "NOT_SYNCED_YET", "NO_SYNCED_BLOCKS"}
)
_PASSING_ERRORS: Final = frozenset({"INTERNAL_ERROR", "TIMEOUT_ERROR", "TOO_MANY_REQUESTS", "UNREACHABLE"})
_ERROR_NAME = re.compile(r"[A-Z][A-Z_]{0,59}")


@dataclass(frozen=True, slots=True)
class RpcLimits:
    """How much is asked of an endpoint, and taken from it."""

    timeout_s: float = 30.0
    """Longest time from a request to the end of its answer."""
    requests_per_s: float = REQUESTS_PER_S
    attempts_max: int = 5
    retry_timeout_s: float = 120.0
    """No attempt of a call starts later than this after its first."""
    wait_first_s: float = 0.5
    wait_max_s: float = 10.0
    answer_bytes_max: int = 32 << 20


@dataclass(frozen=True, slots=True)
class RpcAnswer:
    """What an endpoint answered."""

    result: Any = None
    not_known: str | None = None
    """nearcore's name of the error that says that the node does not know, such as UNKNOWN_BLOCK; None where there is a result."""


class _PassingError(Exception):
    """A transient fault."""


class RpcClient:
    """One endpoint.

    Args:
        url: of http or https.
        clock, sleep: what the pace is measured and kept with, and the timeout measured.
    Raises:
        InvalidInputError: not such a URL.
    """

    def __init__(
        self,
        url: str,
        limits: RpcLimits = RpcLimits(),
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._headers = {"Accept-Encoding": "identity", "Content-Type": "application/json", "User-Agent": "statecast"}
        try:
            parts = split_web_url(url)
            host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
            netloc = f"{host}:{parts.port}" if parts.port is not None else str(host)
        except InvalidInputError:
            host = None
        if host is None or parts.scheme not in ("http", "https") or parts.fragment:
            # The text may hold a key, so it is not repeated.
            raise InvalidInputError(problem="a JSON-RPC endpoint is an http or https URL", where="--rpc")
        if parts.username is not None:
            self._headers |= urllib3.make_headers(basic_auth=f"{unquote(parts.username)}:{unquote(parts.password or '')}")
        self._url = urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, ""))
        has_more = bool(parts.path.strip("/") or parts.query)
        self.source_id: Final = f"JSON-RPC {parts.scheme}://{netloc}{'/…' if has_more else ''}"
        """The endpoint without what may be secret."""
        self._sleep = sleep
        self._request_pace = Pace(limits.requests_per_s, clock=clock)
        self._client = HttpClient(parts, limits.timeout_s, CONNECTIONS_MAX)

    def __repr__(self) -> str:
        return self.source_id

    def where(self, method: str) -> str:
        """Return a name of a call for errors."""
        return f"{self.source_id}, {method}"

    def call(self, method: str, params: object) -> RpcAnswer:
        """Call a method.

        Raises:
            SourceError: no answer in the bounds of time, size and attempts, one that is no JSON-RPC, or an error other than not to know.
        """
        limits = self._limits
        attempts = stamina.retry_context(
            on=_PassingError,
            attempts=limits.attempts_max,
            timeout=limits.retry_timeout_s,
            wait_initial=limits.wait_first_s,
            wait_max=limits.wait_max_s,
            wait_jitter=limits.wait_first_s,
        )
        try:
            for attempt in attempts:
                with attempt:
                    return self._attempt(method, params)
        except _PassingError as error:
            raise SourceError(
                problem=f"the endpoint gave no usable answer in {limits.attempts_max} attempts; the last one: {error}",
                where=self.where(method),
                remedy="Try again later, or name another endpoint with --rpc.",
            ) from None
        raise AssertionError("stamina ended without a result and without an error")

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()

    def _attempt(self, method: str, params: object) -> RpcAnswer:
        if wait_s := self._request_pace.book(1):
            self._sleep(wait_s)
        request = json.dumps({"jsonrpc": "2.0", "id": "statecast", "method": method, "params": params}).encode()
        deadline_s = self._clock() + self._limits.timeout_s
        try:
            reply = self._client.request("POST", self._url, self._headers, request)
            try:
                body = self._read(reply, method, deadline_s)
            except BaseException:
                # Not given back: what is left of the answer must not be taken for the next one.
                reply.close()
                raise
            reply.release_conn()
        except NewConnectionError:
            # Also a TimeoutError, though nothing timed out.
            raise _PassingError("the connection was refused, or there is no way to the host") from None
        except TimeoutError:
            raise _PassingError(f"no answer within {self._limits.timeout_s:g} s") from None
        except SSLError:
            raise SourceError(problem="the endpoint's certificate or TLS is refused", where=self.where(method)) from None
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            # The client's own words hold the URL.
            raise _PassingError(f"the connection failed ({type(error).__name__})") from None
        return self._answer(reply.status, body, method)

    def _read(self, reply: urllib3.BaseHTTPResponse, method: str, deadline_s: float) -> bytes:
        body = bytearray()
        while data := reply.read1(READ_BYTES):
            body += data
            if len(body) > self._limits.answer_bytes_max:
                raise SourceError(problem=f"the answer has more than {self._limits.answer_bytes_max} bytes", where=self.where(method))
            if self._clock() > deadline_s:
                raise _PassingError(f"the answer was not whole after {self._limits.timeout_s:g} s")
        return bytes(body)

    def _answer(self, status: int, body: bytes, method: str) -> RpcAnswer:
        limits = JsonLimits(self._limits.answer_bytes_max, containers_max=1 << 19, values_max=1 << 21)
        try:
            document = json.loads(body.decode()) if limits.problem(body) is None else None
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict) and isinstance(document.get("error"), dict):
            return self._error_answer(document["error"], method)
        if is_passing(status):
            raise _PassingError(f"HTTP {status}")
        if status in (401, 403, 407):
            raise SourceError(
                problem=f"the endpoint refuses access (HTTP {status})", where=self.where(method), remedy="Check the key in its URL."
            )
        if status != 200:
            raise SourceError(problem=f"the endpoint answers HTTP {status}", where=self.where(method))
        if not isinstance(document, dict) or "result" not in document:
            raise _PassingError("what it sent is no JSON-RPC")
        return RpcAnswer(document["result"])

    def _error_answer(self, error: dict[str, Any], method: str) -> RpcAnswer:
        cause = error.get("cause")
        found = cause.get("name") if isinstance(cause, dict) else error.get("name")
        # Only a plain name is repeated: the rest of the text is the endpoint's, and may hold the URL.
        name = found if isinstance(found, str) and _ERROR_NAME.fullmatch(found) else None
        code = error.get("code")
        shown = name or (f"error {code}" if isinstance(code, int) else "an error without a name")
        if name in _PASSING_ERRORS or code == -429:
            raise _PassingError(f"it answers {shown}")
        if name not in _NOT_KNOWN:
            raise SourceError(problem=f"the endpoint answers {shown}", where=self.where(method))
        return RpcAnswer(not_known=name)
