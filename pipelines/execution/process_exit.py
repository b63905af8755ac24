"""How this process ends: as always, or at once where its libraries could not be left any more."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

_AT_ONCE: list[str] = []
"""Why the process can't end as always; empty where it can."""


def end_at_once(reason: str) -> None:
    """Let the process end without the farewells of its libraries, which would never return or fail."""
    _AT_ONCE.append(reason)


def leave(code: int) -> NoReturn:
    """End the process with an exit code, and with that one in any case."""
    if _AT_ONCE:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
