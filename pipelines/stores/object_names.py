"""Which names a store takes.

The alphabet is what local file systems, GCS, S3, URLs and torrents all carry unchanged, so a name never needs quoting and can't
climb out of the store's folder.
"""

from __future__ import annotations

import re

from schemas.errors import InvalidInputError

NAME_BYTES_MAX = 1024
"""Longest name; the limit of GCS and S3."""

NAME_COMPONENT_BYTES_MAX = 200
"""Longest folder or file name in a name; local file systems stop at 255."""

TEMPORARY_FOLDER = ".statecast-tmp"
"""Folder at the root of a local store that holds half-written files and locks. No object lies in it, and no listing shows it."""

_COMPONENT = re.compile(rf"[A-Za-z0-9._=+@,~-]{{1,{NAME_COMPONENT_BYTES_MAX}}}")


def check_object_name(name: str) -> str:
    """Return the name if it is one.

    Raises:
        InvalidInputError: empty, too long, absolute, with ``.`` or ``..``, or with a character outside the alphabet.
    """
    components = name.split("/")
    if len(name) > NAME_BYTES_MAX or not all(_is_component(component) for component in components) or components[0] == TEMPORARY_FOLDER:
        raise InvalidInputError(
            problem="this is not an object name",
            where=repr(name[:200]),
            remedy=f"Names are relative, of {_COMPONENT.pattern} between slashes, at most {NAME_BYTES_MAX} characters.",
        )
    return name


def check_prefix(prefix: str) -> str:
    """Return a folder's name without a trailing slash; empty for the whole store.

    Raises:
        InvalidInputError: as `check_object_name`.
    """
    folder = prefix.removesuffix("/")
    return check_object_name(folder) if folder else ""


def check_range(start: int, stop: int) -> None:
    """Assert that [start, stop) is a byte range: callers compute ranges, no user types them."""
    assert 0 <= start <= stop, (start, stop)


def _is_component(component: str) -> bool:
    return component not in (".", "..") and _COMPONENT.fullmatch(component) is not None
