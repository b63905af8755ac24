"""A folder that fsspec reads by any of its own schemes: sftp, ftp, webdav, github, hf, zip and so on, each with the package that it needs.

Only read: these file systems can't create a file on the condition that there is none. Credentials are fsspec's: its configuration files,
or variables as FSSPEC_FTP_PASSWORD.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import fsspec

from pipelines.stores.answers import shown
from pipelines.stores.object_names import check_object_name, check_prefix, check_range
from pipelines.stores.per_process import PerProcess
from pipelines.stores.ranges import checked_length
from pipelines.stores.read_only import ReadOnlyStore, url_scheme
from pipelines.stores.store import ObjectInfo
from schemas.errors import (
    InvalidInputError,
    ObjectNotFoundError,
    StatecastError,
    StoreDeniedError,
    StoreError,
    TransientStoreError,
)
from schemas.shown_text import shown_url


@dataclass(frozen=True, slots=True)
class _Opened:
    file_system: Any
    root: str
    turn: AbstractContextManager[object]
    """Taken for every call: most of these file systems have one connection, which two threads must not use at once."""


@dataclass(frozen=True, slots=True)
class FsspecStore(ReadOnlyStore):
    """A folder of a file system of fsspec."""

    folder_url: str
    _opened: PerProcess[_Opened] = field(default_factory=PerProcess, repr=False, compare=False)

    @classmethod
    def parse(cls, url: str) -> FsspecStore:
        """Take a URL that fsspec knows. Imports what its scheme needs, and opens no connection.

        Raises:
            InvalidInputError: fsspec does not know the scheme, its package is not installed, or the URL holds a password.
        """
        scheme = url_scheme(url)
        if any(":" in place.partition("://")[2].partition("/")[0].rpartition("@")[0] for place in url.split("::")):
            raise InvalidInputError(
                problem="a store's URL holds no password",
                where=f"{scheme[:40]}://...",
                remedy="Give it as fsspec takes it: its configuration file, or FSSPEC_<SCHEME>_PASSWORD.",
            )
        try:
            for part in url.split("::"):
                urlsplit(part)
                fsspec.get_filesystem_class(url_scheme(part) if "://" in part else "file" if part.startswith("/") else part)
        except ValueError:
            raise InvalidInputError(problem="this is no URL: its host or port makes no sense", where=shown_url(url)) from None
        except ImportError as error:
            raise InvalidInputError(
                problem=f"the scheme {scheme[:40]!r} needs a package that is not installed: {shown(error)}", where=f"{scheme[:40]}://..."
            ) from None
        return cls(url.rstrip("/"))

    @property
    def url(self) -> str:
        """As it was given, without a slash at the end."""
        return self.folder_url

    def get(self, name: str, start: int, stop: int) -> bytes:
        """See `Store.get`."""
        check_range(start, stop)
        with self._calling(name) as (files, path):
            if start == stop:
                return bytes(files.cat_file(path)[:0])
            return checked_length(files.cat_file(path, start=start, end=stop), stop - start, f"{self.url}/{name}")

    def info(self, name: str) -> ObjectInfo | None:
        """See `Store.info`; versions are left empty, since nothing is swapped here."""
        try:
            with self._calling(name) as (files, path):
                files.invalidate_cache()
                found = files.info(path)
                return _info(name, found) if found["type"] == "file" else None
        except ObjectNotFoundError:
            return None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        with self._calling(check_prefix(prefix), is_folder=True) as (files, path):
            files.invalidate_cache()
            found = files.find(path, detail=True)
            root = self._file_system().root.strip("/")
            named = {path.strip("/").removeprefix(root).strip("/"): entry for path, entry in found.items()}
            infos = [_info(name, entry) for name, entry in sorted(named.items())]
        yield from infos

    def _file_system(self) -> _Opened:
        return self._opened.get(self._open_file_system)

    def _open_file_system(self) -> _Opened:
        files, root = fsspec.url_to_fs(self.folder_url, skip_instance_cache=True, use_listings_cache=False)
        return _Opened(files, root.rstrip("/"), nullcontext() if files.async_impl else threading.Lock())

    @contextmanager
    def _calling(self, name: str, *, is_folder: bool = False) -> Iterator[tuple[Any, str]]:
        """Yield the file system and an object's path in it; turn its errors into errors of a store."""
        inside = name if is_folder else check_object_name(name)
        where = f"{self.url}/{inside}"
        try:
            opened = self._file_system()
            with opened.turn:
                yield opened.file_system, "/".join(part for part in (opened.root, inside) if part)
        except StatecastError:
            raise
        except Exception as error:
            raise _store_error(error, where) from error


def _info(name: str, entry: dict[str, Any]) -> ObjectInfo:
    if entry.get("size") is None:
        raise StoreError(problem="the file system does not say how long the object is", where=name)
    return ObjectInfo(name, int(entry["size"]))


def _store_error(error: Exception, where: str) -> StoreError:
    """Return the store's error for an error of a file system of fsspec."""
    text = shown(error)
    if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError, KeyError)):
        return ObjectNotFoundError(problem="no such object", where=where)
    if isinstance(error, PermissionError):
        return StoreDeniedError(problem=f"the store refuses access: {text}", where=where)
    if isinstance(error, (TimeoutError, ConnectionError, EOFError)):
        return TransientStoreError(problem=f"the store has a transient fault: {text}", where=where)
    return StoreError(problem=f"the store failed: {text}", where=where)
