"""When this process's command began, and whether it has shown anything yet: who presses Enter sees something within a second.

Imports of libraries count: results say how long the person waited.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Final

FIRST_LINE_S: Final = 0.6
"""When a line says that the command has begun, if nothing else was shown by then."""


class CommandTime:
    """The time of one command. Thread-safe."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._has_spoken = threading.Event()

    def begin(self) -> None:
        """Count from now."""
        self._began_s = time.monotonic()
        self._has_spoken.clear()

    def seconds(self) -> float:
        """Return the seconds since the command began."""
        return time.monotonic() - self._began_s

    def spoke(self) -> None:
        """Take note that something was shown."""
        self._has_spoken.set()

    def say_soon(self, name: str) -> threading.Thread:
        """Say that a command has begun, unless something is shown before; return the thread that does."""
        thread = threading.Thread(target=self._say, args=(name,), daemon=True)
        thread.start()
        return thread

    def _say(self, name: str) -> None:
        if not self._has_spoken.wait(FIRST_LINE_S):
            sys.stderr.write(f"statecast {name}: begun\n")
            sys.stderr.flush()


command_time = CommandTime()
"""Of this process's command."""
