"""URLs that people write, taken apart. Resolves nothing."""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import SplitResult, urlsplit

from schemas.errors import InvalidInputError
from schemas.shown_text import shown_url

HOST_CHARACTERS_MAX: Final = 253
LABEL_BYTES_MAX: Final = 63
"""Of a name in the DNS, and of a part of one between dots (RFC 1035)."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_HOST: Final = re.compile(r"[\s<>\"{}|\\^`%]")


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
    if _CONTROL.search(url):
        # The library leaves some of them out, and another place would be meant.
        raise InvalidInputError(problem="this is no URL: there are control characters in it", where=shown_url(url))
    return parts


def split_web_url(url: str) -> SplitResult:
    """Take a URL apart whose host, where it has one, is one that a name server or a socket takes.

    Raises:
        InvalidInputError: as `split_url`, or its host is none.
    """
    parts = split_url(url)
    if parts.hostname and not _is_host(parts.hostname):
        raise InvalidInputError(problem="this is no URL: its host can be none", where=shown_url(url))
    return parts


def _is_host(host: str) -> bool:
    if ":" in host:
        return True
    # Compatibility forms of letters and digits, which IDNA leaves out, would lead to another name.
    if _NOT_IN_HOST.search(host) or unicodedata.normalize("NFKC", host) != host:
        return False
    try:
        labels = host.removesuffix(".").encode("idna").split(b".")
    except UnicodeError:
        return False
    return len(host) <= HOST_CHARACTERS_MAX and all(0 < len(label) <= LABEL_BYTES_MAX for label in labels)
