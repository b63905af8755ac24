"""The refusal of writes by a store that is only read."""

from __future__ import annotations

from typing import Final

from pipelines.stores.remote_store import RemoteStore
from pipelines.stores.store import Data, ObjectInfo, Store
from schemas.errors import InvalidInputError, StoreDeniedError
from schemas.published.object_layout import split_chain_url
from schemas.shown_text import shown_url

WRITABLE_SCHEMES: Final = ("file", "memory", "gs", "s3", "az")
"""Schemes of stores that create an object only where there is none."""

_REMEDY: Final = "Write to a folder, gs://bucket/prefix, s3://bucket/prefix or az://container/prefix."


def url_scheme(url: str) -> str:
    """Return a URL's scheme, of a chain of URLs the first; ``file`` for a path."""
    first = url.partition("::")[0]
    return first.partition("://")[0] if "://" in first else first if "::" in url else "file"


def is_written(url: str) -> bool:
    """Tell whether a store of this URL's scheme can be written."""
    return url_scheme(url) in WRITABLE_SCHEMES


def check_destination(url: str, option: str) -> None:
    """Refuse a place that is only read.

    Args:
        option: what named it.
    Raises:
        InvalidInputError: nothing can be written there.
    """
    if not is_written(url):
        raise InvalidInputError(problem=_problem(url), where=option, remedy=_REMEDY)


def check_readable_again(url: str, option: str) -> None:
    """Refuse the URL of a store or dataset to write that would be read as something inside another.

    Args:
        option: what named it.
    Raises:
        InvalidInputError: it ends like a chain's or an epoch's folder.
    """
    if split_chain_url(url)[1]:
        raise InvalidInputError(
            problem="this is a chain's or an epoch's folder in a store, and would be read as one",
            where=f"{option} {shown_url(url)}",
            remedy="Give the folder that is to hold chain_id=….",
        )


class ReadOnlyStore(RemoteStore):
    """The half of a store that is only read which writes: it refuses."""

    __slots__ = ()

    def put(self: Store, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        """Refuse: StoreDeniedError."""
        raise _refused(self)

    def swap(self: Store, name: str, data: Data, expected: ObjectInfo | None) -> ObjectInfo:
        """Refuse: StoreDeniedError."""
        raise _refused(self)

    def delete(self: Store, name: str) -> None:
        """Refuse: StoreDeniedError."""
        raise _refused(self)

    def delete_folder(self: Store, folder: str) -> None:
        """Refuse: StoreDeniedError."""
        raise _refused(self)


def _refused(store: Store) -> StoreDeniedError:
    return StoreDeniedError(problem=_problem(store.url), where=store.url, remedy=_REMEDY)


def _problem(url: str) -> str:
    return f"{url_scheme(url)[:40]}:// is only read: it can't create an object on the condition that there is none"
