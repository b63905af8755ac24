"""How this process ends: with the farewells of its libraries, unless they could not be left any more, and with its exit code in any case."""

from __future__ import annotations

import atexit
import os
import sys
import traceback
from typing import Final, NoReturn

_AT_ONCE: list[str] = []
"""Why the process can't end as always; empty where it can."""

_UNWRITTEN: Final = 120
"""Exit code of Python where the last of its output can't be written."""


def end_at_once(reason: str) -> None:
    """Let the process end without the farewells of its libraries, which would never return or fail."""
    _AT_ONCE.append(reason)


def say_farewell() -> None:
    """Let libraries do what they do at an exit, so that nothing is left but to end at once.

    The interpreter is not taken apart then: a thread that comes back from native code meanwhile would be ended within it, for which C++
    and Rust end the whole process with SIGABRT.
    """
    if not _AT_ONCE:
        try:
            atexit._run_exitfuncs()
        except Exception as error:
            traceback.print_exception(error)
        end_at_once("every library has been left")


def leave(code: int) -> NoReturn:
    """End the process with an exit code, and with that one in any case."""
    if _AT_ONCE:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                code = code or _UNWRITTEN
        os._exit(code)
    sys.exit(code)
