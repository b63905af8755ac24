"""From a URL to a store."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import unquote

import fsspec

from pipelines.stores.azure_store import AzureStore, import_azure
from pipelines.stores.bucket_folder import BucketFolder
from pipelines.stores.file_store import FileStore
from pipelines.stores.fsspec_store import FsspecStore
from pipelines.stores.gcs_store import GcsStore
from pipelines.stores.http_store import HttpStore
from pipelines.stores.memory_store import open_memory_store
from pipelines.stores.read_only import WRITABLE_SCHEMES, url_scheme
from pipelines.stores.retrying import RetryingStore, RetryPolicy
from pipelines.stores.s3_store import S3Store, import_s3fs
from pipelines.stores.store import Store
from schemas.errors import InvalidInputError
from schemas.shown_text import shown_url

PATH_BYTES_MAX: Final = 4096
NAME_BYTES_MAX: Final = 255
"""Linux's PATH_MAX, its last byte included, and NAME_MAX."""


def open_store(
    url: str,
    *,
    durable: bool = True,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    retry: RetryPolicy | None = RetryPolicy(),  # noqa: B008 - a frozen value
) -> Store:
    """Return the store behind a URL. Opens no connection and touches no folder.

    Args:
        url: a path, ``file:///folder``, ``memory://name``, ``gs://bucket/folder``, ``s3://bucket/folder`` or ``az://container/folder``;
            to be read only, ``http(s)://…`` and every URL that fsspec knows.
        durable: a local folder: wait for the disk with every put; False for what can be made again.
        endpoint_url: GCS, S3 and Azure: another server than the provider's; without it the clients' own environment variables count.
        anonymous: GCS, S3 and Azure: use no credentials (public buckets).
        retry: how transient faults of stores behind a network are retried; None to see each of them.
    Raises:
        InvalidInputError: not such a URL, or the client of its scheme is not installed.
    """
    if not url or "\0" in url:
        raise InvalidInputError(problem="a store's URL is empty", remedy="Give a folder, or a URL like gs://bucket/folder.")
    store: Store
    scheme = url_scheme(url)
    if scheme == "file":
        store = FileStore(_local_path(url), durable)
    elif scheme == "memory":
        store = open_memory_store(url.removeprefix("memory://").strip("/"))
    elif scheme == "gs":
        store = GcsStore(BucketFolder.parse(url), endpoint_url, anonymous)
    elif scheme == "s3":
        import_s3fs()
        store = S3Store(BucketFolder.parse(url), endpoint_url, anonymous)
    elif scheme == "az":
        import_azure()
        store = AzureStore(BucketFolder.parse(url), endpoint_url, anonymous)
    elif scheme in ("http", "https"):
        store = HttpStore.parse(url)
    elif scheme in fsspec.available_protocols():
        store = FsspecStore.parse(url)
    else:
        raise InvalidInputError(
            problem=f"no store has the scheme {scheme[:40]!r}",
            where=shown_url(url),
            remedy=f"Written and read: {', '.join(WRITABLE_SCHEMES)}, or a path. Only read: http, https and what fsspec knows.",
        )
    if retry is not None and scheme not in ("file", "memory"):
        store = RetryingStore(store, retry)
    return store


def _local_path(url: str) -> str:
    if "://" not in url:
        return _possible(os.path.abspath(url))
    host, slash, path = url.partition("://")[2].partition("/")
    if host not in ("", "localhost") or not slash:
        raise InvalidInputError(
            problem="a file URL has three slashes and an absolute path", where=shown_url(url), remedy="Write file:///folder."
        )
    if "?" in path or "#" in path:
        raise InvalidInputError(
            problem="in a file URL ? and # begin what is no part of the path",
            where=url[:200],
            remedy="Write %3F and %23, or the path alone.",
        )
    return _possible(os.path.abspath(unquote(f"/{path}")))


def _possible(path: str) -> str:
    """Return a path that Linux's file systems can have.

    Raises:
        InvalidInputError: it, or a name in it, is too long, or it has a character that no path has.
    """
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        raise InvalidInputError(problem="no file system has a path with such a character", where=path[:200]) from None
    if len(encoded) >= PATH_BYTES_MAX or any(len(name) > NAME_BYTES_MAX for name in encoded.split(b"/")) or b"\0" in encoded:
        raise InvalidInputError(problem="no file system takes such a path: it, or a name in it, is too long", where=path[:200])
    return path
