"""The library libtorrent, which comes with the extra ``p2p``."""

from __future__ import annotations

from typing import Any

from schemas.errors import InvalidInputError


def import_libtorrent() -> Any:
    """Return the module libtorrent.

    Raises:
        InvalidInputError: it is not installed.
    """
    try:
        import libtorrent
    except ImportError as error:
        raise InvalidInputError(
            problem="torrents need the package libtorrent", remedy='Install it: pip install "statecast[p2p]".'
        ) from error
    return libtorrent
