"""SIGTERM, SIGINT and SIGHUP, for every command: how a process that is asked to stop learns of it, whatever it is doing.

The three are blocked in every thread, and one thread waits for them. So it does not matter which handlers a library sets (Ray's client
sets its own at every start, and the system's at every end), and a signal counts while the main thread is in native code. The main thread
is then interrupted: `Interrupted` is raised in it, as Ctrl-C raises KeyboardInterrupt. A command that ends by itself when it is told to
says so with `stopping`. Either way the process has only so long, and a second signal ends it at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

STOP_S_MAX: Final = 20.0
"""How long a process has to stop by itself; orchestrators commonly allow 30 seconds."""

LATE_S_MAX: Final = 3.0
"""How long the last resort has."""

ECHO_S: Final = 0.5
"""A signal so soon after the first is the same wish: `timeout` sends to a process and then to its group, systemd a SIGHUP behind a SIGTERM."""

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_WAKE: Final = signal.SIGUSR1
"""Sent to the main thread, which it interrupts in a system call too."""


class Interrupted(KeyboardInterrupt):
    """The process was asked to stop, and what the main thread did is ended here."""


def _nothing() -> None:
    """Leave nothing behind."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """How a command ends by itself; see `stopping`."""

    on_stop: Callable[[str], None]
    on_late: Callable[[], None]
    stop_s_max: float
    ends_well: bool


@dataclass(slots=True)
class _Wish:
    """Whether the process was asked to stop, and what answers. There is one, as there is one set of signals."""

    waiter: threading.Thread | None = None
    """The thread that waits for the signals."""
    first: int | None = None
    first_s: float = 0.0
    answer: _Answer | None = None
    """None where the main thread is interrupted."""
    ended_well: bool = False
    """Whether the command ended because it was asked to, as it should."""
    on_late: Callable[[int | None], None] = lambda _number: None
    over: bool = False
    """Whether the main thread was interrupted, or the command has come to its end."""
    lock: threading.Lock = field(default_factory=threading.Lock)


_wish = _Wish()


@contextmanager
def handled_signals(on_late: Callable[[int | None], None]) -> Iterator[None]:
    """Answer the signals for as long as the block runs, which is in the main thread and begins before libraries are loaded that start threads.

    What was ignored when the process began stays ignored, as `nohup` and a shell's background jobs want it.

    Args:
        on_late: called in a thread when the process has not stopped in time, before it ends: with the signal that interrupted it, or
            with None where the stop is how the command ends well.
    """
    handled = tuple(number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    # Ray's processes get the signals again.
    os.register_at_fork(after_in_child=partial(signal.pthread_sigmask, signal.SIG_SETMASK, before))
    for number in handled:
        signal.signal(number, _pass_on)
    signal.signal(_WAKE, _interrupt)
    _wish.on_late = on_late
    _wish.waiter = threading.Thread(target=_wait, args=(handled,), name="stop-signals", daemon=True)
    _wish.waiter.start()
    try:
        yield
    finally:
        _wish.over = True


def receive_signals() -> None:
    """Get the signals again in a process that inherited them blocked: called there, first."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


@contextmanager
def kept_blocked() -> Iterator[None]:
    """Leave this thread's signals as they are, where the block unblocks them: multiprocessing does when it starts its resource tracker."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def stopping(
    on_stop: Callable[[str], None], on_late: Callable[[], None] = _nothing, stop_s_max: float = STOP_S_MAX, *, ends_well: bool = True
) -> Iterator[None]:
    """Tell a command to stop by itself, where its block would else be interrupted.

    Args:
        on_stop: called once with the signal's name, in a thread, or here if it came before.
        on_late: called in a thread when the command has not stopped in time, before the process ends.
        stop_s_max: how long the command has.
        ends_well: whether the command is then done, and its exit code 0 even where it is late.
    """
    with _wish.lock:
        before = _wish.answer
        _wish.answer = _Answer(on_stop, on_late, stop_s_max, ends_well)
        first = _wish.first
    if first is not None:
        on_stop(signal.Signals(first).name)
    try:
        yield
    finally:
        with _wish.lock:
            _wish.ended_well = ends_well and _wish.first is not None
            _wish.answer = before


def interrupted_by() -> int | None:
    """Return the signal that this process was asked to stop by before it was done; None where there was none."""
    ends_well = _wish.ended_well or (_wish.answer is not None and _wish.answer.ends_well)
    return None if ends_well else _wish.first


def _wait(handled: tuple[int, ...]) -> None:
    while True:
        number = signal.sigwait(handled)
        if _wish.first is not None:
            # A terminal that closes sends as many SIGHUP as it likes.
            if number != signal.SIGHUP and time.monotonic() - _wish.first_s > ECHO_S:
                os._exit(128 + number)
            continue
        with _wish.lock:
            _wish.first, _wish.first_s = number, time.monotonic()
            answer = _wish.answer
        threading.Thread(target=_end_late, name="stop-late", daemon=True).start()
        if answer is None:
            signal.pthread_kill(threading.main_thread().ident or 0, _WAKE)
        else:
            answer.on_stop(signal.Signals(number).name)


def _end_late() -> None:
    time.sleep(STOP_S_MAX if _wish.answer is None else _wish.answer.stop_s_max)
    number, answer = interrupted_by(), _wish.answer

    def farewell() -> None:
        _wish.on_late(number)
        if answer is not None:
            answer.on_late()

    last = threading.Thread(target=farewell, name="stop-last", daemon=True)
    last.start()
    last.join(LATE_S_MAX)
    os._exit(0 if number is None else 128 + number)


def _interrupt(_number: int, _frame: object) -> None:
    """End what the main thread does, once."""
    if _wish.first is not None and _wish.answer is None and not _wish.over:
        _wish.over = True
        raise Interrupted


def _pass_on(number: int, _frame: object) -> None:
    """Send on what came to a thread that does not block it: one of before, or one that a library has unblocked them in."""
    if _wish.waiter is not None and _wish.waiter.ident is not None:
        signal.pthread_kill(_wish.waiter.ident, number)
