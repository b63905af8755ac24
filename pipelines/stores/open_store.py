"""From a URL to a store."""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from pipelines.stores.file_store import FileStore
from pipelines.stores.memory_store import MemoryStore
from pipelines.stores.protocol import Store
from schemas.errors import InvalidInputError


def open_store(url: str, *, shared: bool = False) -> Store:
    if "://" not in url:
        return FileStore(os.path.abspath(url), shared=shared)
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FileStore(os.path.abspath(unquote(parts.path)), shared=shared)
    if parts.scheme == "memory":
        return MemoryStore(f"{parts.netloc}{parts.path}".strip("/"))
    raise InvalidInputError(problem=f"unknown store scheme {parts.scheme}", where=url)
