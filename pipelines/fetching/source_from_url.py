"""From what a person writes after ``--source`` to a source."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pipelines.fetching.http_source import HttpSource
from pipelines.fetching.object_source import ObjectStoreSource
from pipelines.fetching.source import SOURCE_TIMEOUT_S, Source
from pipelines.fetching.throttle import Throttle
from pipelines.stores.open_store import open_store

TORRENT: Final = "torrent"
"""Names the shards' torrents as a source; it is opened once the manifest is believed."""


def open_source(
    url: str, requests: Throttle, timeout_s: float = SOURCE_TIMEOUT_S, *, is_named: bool = True, may_be_local: bool = True
) -> Source:
    """Return the source behind a URL: http, https, gs, s3, az, file, a path, or what fsspec reads. Opens no connection.

    Args:
        url: of the folder that holds ``chain_id=…``.
        requests: waited for before every request.
        timeout_s: longest wait for an answer or for bytes; stores wait as long as their clients do.
        is_named: a person named it; what a manifest named is asked as nobody: without credentials, and nobody pays.
        may_be_local: its address need not be public.
    Raises:
        InvalidInputError: not such a URL.
    """
    if url.startswith(("http://", "https://")):
        return HttpSource(url, requests, timeout_s, is_named=is_named or may_be_local)
    # The schedule sees every fault and decides itself which source to retry.
    return ObjectStoreSource(open_store(url, retry=None, anonymous=not is_named), requests)


def unique_urls(urls: Iterable[str]) -> list[str]:
    """Return the URLs without what is there before, but for a slash at the end."""
    return list({url.rstrip("/") or url: url for url in reversed(list(urls))}.values())[::-1]
