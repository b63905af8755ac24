"""What stores' clients say in errors and answers: how long to wait, and text without what must not be shown. No I/O."""

from __future__ import annotations

import email.utils
from datetime import UTC, datetime
from typing import Final

from schemas.shown_text import shown_text

RETRY_AFTER_S_MAX: Final = 30.0
"""The longest pause that a store can ask for; more is taken as this."""

ERROR_TEXT_CHARACTERS_MAX: Final = 300
"""How much of a client's own words is passed on."""


def retry_after_s(text: str | None) -> float:
    """Return the pause that a Retry-After header asks for, in seconds from 0 to `RETRY_AFTER_S_MAX`; 0 for none or nonsense."""
    if not text:
        return 0.0
    text = text.strip()
    if text.isdecimal():
        seconds = float(text)
    else:
        try:
            asked = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        seconds = (asked.replace(tzinfo=asked.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX)


def shown(error: BaseException) -> str:
    """Return an error's words as `shown_text` leaves them, shortened."""
    return shown_text(str(error) or type(error).__name__)[:ERROR_TEXT_CHARACTERS_MAX]
