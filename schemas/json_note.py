"""Notes that a run leaves for the next one, in JSON: a damaged one says nothing, and what it was of is done again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from schemas.errors import StatecastError

Value = TypeVar("Value")


def read_note(data: bytes | str, read: Callable[[dict[str, Any]], Value]) -> Value | None:
    """Return what ``read`` makes of a note's JSON object; None where it is none, or lacks what ``read`` looks for.

    Args:
        read: may raise whatever fields of another form raise, `schemas.json_document.FieldReader`'s complaints too.
    """
    try:
        document = json.loads(data)
        return read(document) if isinstance(document, dict) else None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, StatecastError):
        return None
