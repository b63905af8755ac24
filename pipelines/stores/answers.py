"""What stores' clients say in errors and answers: how long to wait, and text without what must not be shown. No I/O."""

from __future__ import annotations

import email.utils
import re
from datetime import UTC, datetime
from typing import Final

from schemas.errors import RangeRefusedError
from schemas.shown_text import shown_text

RETRY_AFTER_S_MAX: Final = 30.0
"""The longest pause that a store can ask for; more is taken as this."""

ERROR_TEXT_CHARACTERS_MAX: Final = 300
"""How much of a client's own words is passed on."""


_PASSING_STATUS = frozenset({408, 409, 425, 429})
_LASTING_STATUS = frozenset({501, 505, 510, 511})


def is_passing(status: int) -> bool:
    """Tell whether an HTTP status is of a transient fault: not where it says what a server can't do, or that another answers for it."""
    return status in _PASSING_STATUS or (status >= 500 and status not in _LASTING_STATUS)


def retry_after_s(text: str | None, longest_s: float = RETRY_AFTER_S_MAX) -> float:
    """Return the pause that a Retry-After header asks for, in seconds from 0 to ``longest_s``; 0 for none or nonsense."""
    text = (text or "").strip()
    if re.fullmatch(r"[0-9]+", text):
        return min(float(text), longest_s)
    asked = http_date(text)
    return 0.0 if asked is None else min(max((asked - datetime.now(UTC)).total_seconds(), 0.0), longest_s)


def check_range_start(start: int, content_range: str | None, where: str, *, is_partial: bool = False) -> None:
    """Assert that the body of an answer is the object from ``start``: as its Content-Range says, and without one it is all of the object.

    Args:
        is_partial: the answer is said to be a part (206), so that without a Content-Range nobody knows which.
    Raises:
        RangeRefusedError: it is not, also where the server took no notice of the range that it was asked for.
    """
    if not content_range:
        if start or is_partial:
            raise RangeRefusedError(problem="the server takes no notice of ranges", where=where)
        return
    found = re.match(r"bytes ([0-9]{1,18})-", content_range)
    if found is None or int(found[1]) != start:
        raise RangeRefusedError(problem="the answer is another range than was asked for", where=where)


def http_date(text: str) -> datetime | None:
    """Return the moment that a header names, with a time zone; None for none or nonsense."""
    try:
        moment = email.utils.parsedate_to_datetime(text)
        # A moment without a zone is in UTC; one at the edge of the calendar may have none there.
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def shown(error: BaseException) -> str:
    """Return an error's words as `shown_text` leaves them, shortened."""
    return shown_text(str(error) or type(error).__name__)[:ERROR_TEXT_CHARACTERS_MAX]
