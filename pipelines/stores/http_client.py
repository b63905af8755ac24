"""Requests over HTTP to servers that may be anybody's: every wait is bounded as a whole, and where a name leads is looked at.

The client below takes a timeout for each read from the socket: a server that sends a byte a second, or one interim answer after
another, would be waited for without end. Here the head of an answer, and each read of its body, have one deadline each.

A server that a person named may have any address. One that a server or a document named may have a public one alone, unless what the
person named is not public either: an outsider must not make this machine ask another that only this machine can reach.

``http_proxy``, ``https_proxy`` and ``no_proxy`` count, in small letters or capitals, as they do for the clients of clouds.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

from pipelines.stores.body_pace import READ_BYTES, BodyPace
from schemas.address import is_public_address
from schemas.errors import InvalidInputError, StoreDeniedError

CONNECT_TIMEOUT_S: Final = 10.0
"""Longest that a connection takes to be made, whatever the number of a host's addresses."""

ADDRESSES_TRIED_MAX: Final = 8
"""Most addresses of a host that are tried."""

INTERIM_ANSWERS_MAX: Final = 16
"""Most answers of the kind 1xx before the answer."""


class Reach:
    """Which hosts a client may connect to.

    Args:
        is_named: a person named the first host, so that it may have any address.
    """

    def __init__(self, host: str, *, is_named: bool) -> None:
        self._host = host
        self._is_named = is_named
        self.is_local = False
        """The named host is not public itself: what it names need not be either."""

    def check(self, host: str, addresses: list[str]) -> list[str]:
        """Return those addresses of a host that may be connected to.

        Raises:
            StoreDeniedError: there is none.
        """
        public = [address for address in addresses if is_public_address(address)]
        if self._is_named and host == self._host:
            self.is_local = self.is_local or len(public) < len(addresses)
        elif not self.is_local:
            if not public:
                raise StoreDeniedError(problem="it leads to an address that is not public", where=host)
            return public
        return addresses


class HttpClient:
    """Sends requests, over proxies where the environment names some. Connections are kept for as long as the server keeps them.

    Args:
        url: the first that is asked for; its host is what a person named.
        timeout_s: longest wait for the whole head of an answer, and for any bytes of its body.
        connections_max: most that are used at once.
    Raises:
        InvalidInputError: the environment names a proxy that is none.
    """

    def __init__(self, url: SplitResult, timeout_s: float, connections_max: int, *, is_named: bool = True) -> None:
        self._timeout_s = timeout_s
        self._connections_max = connections_max
        self._reach = Reach(url.hostname or "", is_named=is_named)
        self._direct = self._bounded(urllib3.PoolManager(**self._pool_arguments()), self._reach)
        self._proxied: dict[str, urllib3.PoolManager] = {}
        self._manager(url)

    def request(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> urllib3.BaseHTTPResponse:
        """Send a request, once, and return the answer, whose body is not read yet. The caller closes it.

        Raises:
            StoreDeniedError: the host has no address that may be connected to.
            HTTPError, OSError, HTTPException, ValueError: the client's.
        """
        manager = self._manager(urlsplit(url))
        return manager.request(method, url, body=body, headers=headers, preload_content=False, decode_content=False, redirect=False)

    @property
    def is_local(self) -> bool:
        """Whether the host that a person named was found not to be public."""
        return self._reach.is_local

    def close(self) -> None:
        """Drop the connections."""
        for manager in (self._direct, *self._proxied.values()):
            manager.clear()

    def _manager(self, url: SplitResult) -> urllib3.PoolManager:
        proxy_url = environment_proxy(url)
        if proxy_url is None:
            return self._direct
        # The name is the proxy's to look up; an address in its place can be judged here.
        host = url.hostname or ""
        address = _spelled_address(host)
        if address is not None:
            self._reach.check(host, [address])
        if proxy_url not in self._proxied:
            proxy = urlsplit(proxy_url)
            headers = None
            if proxy.username is not None:
                headers = urllib3.make_headers(proxy_basic_auth=f"{unquote(proxy.username)}:{unquote(proxy.password or '')}")
            self._proxied[proxy_url] = self._bounded(urllib3.ProxyManager(proxy_url, proxy_headers=headers, **self._pool_arguments()), None)
        return self._proxied[proxy_url]

    def _pool_arguments(self) -> dict[str, Any]:
        timeout = urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, self._timeout_s), read=self._timeout_s)
        # Room for all connections, or the pool complains.
        return {"num_pools": 16, "maxsize": self._connections_max, "retries": False, "timeout": timeout}

    def _bounded(self, manager: urllib3.PoolManager, reach: Reach | None) -> urllib3.PoolManager:
        manager.pool_classes_by_scheme = bounded_pools(reach)
        return manager


def bounded_pools(reach: Reach | None) -> dict[str, Any]:
    """Return urllib3's pools of connections by scheme, whose answers come in time.

    Args:
        reach: whom they may connect to; None for anybody.
    """
    return {"http": partial(_HttpPool, reach=reach), "https": partial(_HttpsPool, reach=reach)}


def environment_proxy(url: SplitResult) -> str | None:
    """Return the URL of the proxy that the environment names for a URL.

    Raises:
        InvalidInputError: it is no URL of a proxy.
    """
    if proxy_bypass_environment(url.netloc.rpartition("@")[2]):
        return None
    named = getproxies_environment().get(url.scheme)
    if not named:
        return None
    variable = f"{url.scheme}_proxy"
    try:
        proxy = urlsplit(named if "://" in named else f"http://{named}")
        is_proxy = proxy.scheme in ("http", "https") and bool(proxy.hostname) and proxy.port != 0
    except ValueError:
        is_proxy = False
    if not is_proxy:
        raise InvalidInputError(problem="this is no URL of an HTTP proxy", where=variable, remedy="Write http://HOST:PORT, or unset it.")
    return proxy.geturl()


def leads_to_public(url: str) -> bool:
    """Tell whether a URL's host has addresses, and public ones alone: for callers that make their connections themselves."""
    try:
        parts = urlsplit(url)
        found = socket.getaddrinfo(parts.hostname or "", parts.port or 80)
    except (ValueError, OSError, OverflowError):
        return False
    return all(is_public_address(str(address[0])) for *_, address in found)


def read_body(reply: urllib3.BaseHTTPResponse, where: str) -> Iterator[bytes]:
    """Yield a body as it comes. The time that the caller takes with it does not count.

    Raises:
        TransientStoreError: it comes so slowly that it might never end.
        HTTPError, OSError, HTTPException, ValueError: the client's.
    """
    pace = BodyPace(where)
    while True:
        began_s = time.monotonic()
        buffer = reply.read1(READ_BYTES)
        pace.take(len(buffer), time.monotonic() - began_s)
        if not buffer:
            return
        yield buffer


class _TimedReads(io.RawIOBase):
    """A socket's incoming bytes until a deadline."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._timeout_s = connected.gettimeout()
        self._reads = connected.makefile("rb", buffering=0)
        self._deadline_s = float("inf")
        self.renew()

    def renew(self) -> None:
        """Begin to wait anew."""
        if self._timeout_s is not None:
            self._deadline_s = time.monotonic() + self._timeout_s

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read into a buffer.

        Raises:
            TimeoutError: the deadline has passed.
        """
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        if self._timeout_s is not None:
            self._socket.settimeout(left_s)
        return self._reads.readinto(buffer)

    def close(self) -> None:
        """Let go of the socket."""
        self._reads.close()
        super().close()


class _TimedSocket:
    """What `http.client.HTTPResponse` asks of a socket."""

    def __init__(self, reads: _TimedReads) -> None:
        self._reads = reads

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return the incoming bytes."""
        return io.BufferedReader(self._reads, READ_BYTES)


class _Answer(http.client.HTTPResponse):
    """An answer whose head, and each read of whose body, end in time. All interim answers are passed over, not ``100`` alone."""

    def __init__(self, sock: socket.socket, *arguments: Any, **named: Any) -> None:
        self._reads = _TimedReads(sock)
        super().__init__(_TimedSocket(self._reads), *arguments, **named)  # type: ignore[arg-type]

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(INTERIM_ANSWERS_MAX + 1):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == http.client.SWITCHING_PROTOCOLS:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise http.client.BadStatusLine(f"more than {INTERIM_ANSWERS_MAX} interim answers")

    def read(self, amt: int | None = None) -> bytes:
        self._reads.renew()
        return super().read(amt)

    def read1(self, n: int = -1) -> bytes:
        self._reads.renew()
        return super().read1(n)


class _Bounded(HTTPConnection):
    """A connection that is made in time, to an address that may be connected to."""

    response_class = _Answer

    def __init__(self, *arguments: Any, reach: Reach | None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._reach = reach

    def _new_conn(self) -> socket.socket:
        host, timeout_s = self._dns_host.strip("[]"), self.timeout if isinstance(self.timeout, (int, float)) else CONNECT_TIMEOUT_S
        deadline_s = time.monotonic() + timeout_s
        try:
            found = socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except (UnicodeError, OverflowError, OSError) as error:
            raise NewConnectionError(self, f"there is no such host: {error}") from error
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        if self._reach is not None:
            addresses = self._reach.check(self.host, addresses)
        last: OSError | None = None
        for address in addresses[:ADDRESSES_TRIED_MAX]:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                break
            try:
                return create_connection((address, self.port), left_s, socket_options=self.socket_options)
            except OSError as error:
                last = error
        if last is None or isinstance(last, TimeoutError):
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out. (connect timeout={timeout_s})")
        raise NewConnectionError(self, f"Failed to establish a new connection: {last}") from last


class _HttpConnection(_Bounded):
    pass


class _HttpsConnection(_Bounded, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


def _spelled_address(host: str) -> str | None:
    """Return the IP address that a host is whoever looks it up, or None where it is a name.

    ``127.1``, ``0x7f000001``, ``017700000001`` and ``2130706433`` are spellings of one address; a name may end in a dot.
    """
    host = host.removesuffix(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1"
    if ":" in host:
        return host
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None
