"""From a URL to a store."""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from pipelines.stores.azure_store import AzureStore, import_azure
from pipelines.stores.bucket_folder import BucketFolder
from pipelines.stores.file_store import FileStore
from pipelines.stores.gcs_store import GcsStore
from pipelines.stores.memory_store import open_memory_store
from pipelines.stores.retrying import RetryingStore, RetryPolicy
from pipelines.stores.s3_store import S3Store, import_s3fs
from pipelines.stores.store import Store
from schemas.errors import InvalidInputError

SCHEMES = ("file", "memory", "gs", "s3", "az")
"""Schemes that a store can be opened for; a path without a scheme is a local folder."""


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
        url: a path, ``file:///folder``, ``memory://name``, ``gs://bucket/folder``, ``s3://bucket/folder`` or ``az://container/folder``.
        durable: a local folder: wait for the disk with every put; False for what can be made again.
        endpoint_url: GCS, S3 and Azure: another server than the provider's; without it the clients' own environment variables count.
        anonymous: GCS, S3 and Azure: use no credentials (public buckets).
        retry: how transient faults of GCS, S3 and Azure are retried; None to see each of them.
    Raises:
        InvalidInputError: not such a URL, or the client of its scheme is not installed.
    """
    if not url or "\0" in url:
        raise InvalidInputError(problem="a store's URL is empty", remedy="Give a folder, or a URL like gs://bucket/folder.")
    store: Store
    scheme = url.partition("://")[0] if "://" in url else "file"
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
    else:
        raise InvalidInputError(
            problem=f"no store has the scheme {scheme[:40]!r}",
            where=url.partition("?")[0][:200],
            remedy=f"Known: {', '.join(SCHEMES)}, or a path.",
        )
    if retry is not None and isinstance(store, (GcsStore, S3Store, AzureStore)):
        store = RetryingStore(store, retry)
    return store


def _local_path(url: str) -> str:
    if "://" not in url:
        return os.path.abspath(url)
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise InvalidInputError(
            problem="a file URL has three slashes and an absolute path", where=url[:200], remedy="Write file:///folder."
        )
    return os.path.abspath(unquote(parts.path))
