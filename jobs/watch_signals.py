"""SIGTERM and SIGINT for a long-running command: the first asks it to stop, the second ends it at once, and it has only so long.

A handler written in Python runs when the main thread gets to it, which may be after a long call into native code. So a thread is woken
by the interpreter's own handler instead. Libraries that set handlers of their own (Ray does) are overruled by `StopSignals.install`.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

STOP_S_MAX: Final = 20.0
"""How long a command has to stop by itself; orchestrators commonly allow 30 seconds."""

RELEASE_S_MAX: Final = 3.0
"""How long the last resort has."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Handles both signals while it is open."""

    def __init__(self, on_stop: Callable[[str], None], on_late: Callable[[], None]) -> None:
        """Prepare.

        Args:
            on_stop: called with the first signal's name, in a thread.
            on_late: called when the command has not stopped in time, before the process ends with exit code 0.
        """
        self._on_stop = on_stop
        self._on_late = on_late
        self._before: dict[int, Any] = {}
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)

    def __enter__(self) -> Self:
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in _SIGNALS:
            self._before[number] = signal.getsignal(number)
        self.install()
        threading.Thread(target=self._serve, name="stop-signals", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        # The thread ends with the pipe.
        os.close(self._write_end)

    def install(self) -> None:
        """Set the handlers again: after something else may have set its own. In the main thread only."""
        for number in _SIGNALS:
            signal.signal(number, _do_nothing)

    def _serve(self) -> None:
        asked = False
        try:
            while True:
                readable, _, _ = select.select([self._read_end], [], [], STOP_S_MAX if asked else None)
                if not readable:
                    self._end_late()
                received = os.read(self._read_end, 1)
                if not received:
                    return
                if received[0] not in _SIGNALS:
                    continue
                if asked:
                    os._exit(128 + received[0])
                asked = True
                self._on_stop(signal.Signals(received[0]).name)
        finally:
            os.close(self._read_end)

    def _end_late(self) -> None:
        release = threading.Thread(target=self._on_late, daemon=True)
        release.start()
        release.join(RELEASE_S_MAX)
        os._exit(0)


def _do_nothing(_number: int, _frame: object) -> None:
    """Stand in for the default action; the thread is woken without this."""
