"""URLs that people write, taken apart. Resolves nothing."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from schemas.errors import InvalidInputError
from schemas.shown_text import shown_url


def split_url(url: str) -> SplitResult:
    """Take a URL apart; its port is a number, where it has one.

    Raises:
        InvalidInputError: it can't be taken apart. The library's own words would repeat user and password.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise InvalidInputError(problem="this is no URL: its host or port makes no sense", where=shown_url(url)) from None
    return parts
