"""A source behind plain HTTP or HTTPS: any server that gives files under their names, with ranges where it can."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.fetching.limits import CONNECTIONS_MAX
from pipelines.fetching.source import SOURCE_TIMEOUT_S, Buffer, Cancellation, SourceTraits, WantedObject
from pipelines.fetching.throttle import Throttle
from pipelines.stores.http_client import read_body
from pipelines.stores.http_folder import HttpFolder, check_reply, mapped_errors


class HttpSource:
    """Files below one URL.

    Args:
        url: of the folder that holds ``chain_id=…``; a user and password in it are sent and never shown; a query is kept.
        requests: waited for before every request.
        timeout_s: longest wait for an answer or for bytes.
        is_named: see `HttpFolder`.
    Raises:
        InvalidInputError: not an HTTP URL.
    """

    def __init__(self, url: str, requests: Throttle, timeout_s: float = SOURCE_TIMEOUT_S, *, is_named: bool = True) -> None:
        self._folder = HttpFolder(url, timeout_s, CONNECTIONS_MAX, is_named=is_named)
        self._requests = requests

    @property
    def source_id(self) -> str:
        """The URL without credentials and query."""
        return self._folder.url

    @property
    def traits(self) -> SourceTraits:
        """All; a server that refuses ranges is found out."""
        return SourceTraits(is_local=self._folder.is_local)

    def stream(self, wanted: WantedObject, start: int, cancelled: Cancellation) -> Iterator[Buffer]:
        """See `Source.stream`."""
        where = f"{self.source_id}/{wanted.name}"
        headers = {"Range": f"bytes={start}-"} if start else {}
        with mapped_errors(where):
            reply = self._folder.request(wanted.name, headers=headers, before_each=lambda: self._requests.wait_for(1, cancelled))
            try:
                check_reply(reply, start, where)
                for buffer in read_body(reply, where):
                    yield buffer
                    if cancelled.is_cancelled:
                        return
            finally:
                # Closed, not given back: the server must not go on sending unread bytes.
                reply.close()

    def close(self) -> None:
        """Drop the pools."""
        self._folder.close()
