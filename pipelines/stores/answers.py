"""What stores' clients say in errors and answers: how long to wait, and text without what must not be shown. No I/O."""

from __future__ import annotations

import email.utils
import re
from datetime import UTC, datetime
from typing import Final

RETRY_AFTER_S_MAX: Final = 30.0
"""The longest pause that a store can ask for; more is taken as this."""

ERROR_TEXT_CHARACTERS_MAX: Final = 300
"""How much of a client's own words is passed on."""

_USER_INFO = re.compile(r"(?<=://)[^/\s@'\"]+@")
_SECRET_VALUE = re.compile(
    r"(?i)\b(upload_id|x-amz-signature|x-amz-security-token|x-amz-credential|x-goog-signature|x-goog-credential|signature|access_token"
    r"|secret_access_key|aws_secret_access_key|authorization)(['\"]?\s*[=:]\s*['\"]?)(?:bearer\s+)?[^&\s'\",}]+"
)


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
    """Return an error's words, shortened, without user names in URLs, signatures, tokens and upload sessions."""
    text = str(error) or type(error).__name__
    text = _SECRET_VALUE.sub(r"\1\2...", _USER_INFO.sub("...@", text))
    return text[:ERROR_TEXT_CHARACTERS_MAX]
