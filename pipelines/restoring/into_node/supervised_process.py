"""Runs another program and watches it: its lines, its silence, its end. It is asked to stop when this process is.

Knows nothing about what the program does.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from pipelines.execution.stop_signals import receive_signals, stopping
from schemas.errors import NodeError, PartialResultError

STOP_GRACE_S: Final = 30.0
"""How long the program may take to end after SIGTERM, before it is killed."""

LINE_BYTES_MAX: Final = 64 << 10
"""A longer line is cut here."""

_POLL_S: Final = 0.2
_KILL_S: Final = 5.0
"""How long what is left to do may take after the program was killed."""


def run_supervised(
    command: Sequence[str],
    on_line: Callable[[str], None],
    silence_timeout_s: float,
    environment: dict[str, str],
    stop_grace_s: float = STOP_GRACE_S,
) -> int:
    """Run a program to its end and return its exit code, below zero for the signal that ended it.

    Args:
        on_line: gets each line of its output and errors as it comes. What it raises stops the program.
        silence_timeout_s: the program is stopped when it says nothing for so long.
        environment: added to this process's own.
    Raises:
        NodeError: it can't be started.
        PartialResultError: it was stopped because it said nothing for too long.
        KeyboardInterrupt: this process was asked to end; the program has ended.
    """
    try:
        # A session of its own, so that a terminal's Ctrl-C reaches it once, through us.
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **environment},
            preexec_fn=receive_signals,  # noqa: PLW1509  # one system call
        )
    except OSError as error:
        raise NodeError(problem=f"it can't be run: {error.strerror}", where=command[0]) from error
    try:
        asked_to_end = threading.Event()

        def stop(_name: str) -> None:
            asked_to_end.set()
            if process.poll() is None:
                process.terminate()

        with stopping(stop, stop_s_max=stop_grace_s + _KILL_S, ends_well=False):
            _follow(process, on_line, silence_timeout_s, asked_to_end, stop_grace_s)
            if asked_to_end.is_set():
                _stop(process, stop_grace_s)
                raise KeyboardInterrupt
            try:
                return process.wait(silence_timeout_s)
            except subprocess.TimeoutExpired:
                raise _silent(command[0], silence_timeout_s) from None
    finally:
        _stop(process, stop_grace_s)
        assert process.stdout is not None
        process.stdout.close()


def _follow(
    process: subprocess.Popen[bytes],
    on_line: Callable[[str], None],
    silence_timeout_s: float,
    asked_to_end: threading.Event,
    stop_grace_s: float,
) -> None:
    """Read lines until the program has ended."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    pending = b""
    heard = time.monotonic()
    ends_by: float | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            now = time.monotonic()
            if asked_to_end.is_set() and ends_by is None:
                ends_by = now + stop_grace_s
            if ends_by is not None and now > ends_by:
                return
            if ends_by is None and now - heard > silence_timeout_s:
                raise _silent(process.args[0] if isinstance(process.args, list) else "", silence_timeout_s)
            if not selector.select(_POLL_S):
                # A child of the program may hold the pipe open after its end.
                if process.poll() is not None:
                    break
                continue
            data = os.read(descriptor, LINE_BYTES_MAX)
            if not data:
                break
            heard = time.monotonic()
            *lines, pending = (pending + data).split(b"\n")
            pending = pending[:LINE_BYTES_MAX]
            for line in lines:
                on_line(line[:LINE_BYTES_MAX].decode(errors="replace"))
    if pending:
        on_line(pending.decode(errors="replace"))


def _silent(program: str, silence_timeout_s: float) -> PartialResultError:
    return PartialResultError(
        problem=f"it said nothing for {silence_timeout_s:.0f} s and was stopped",
        where=program,
        remedy="Look at the node's disk; the same command goes on with the parts that are left.",
    )


def _stop(process: subprocess.Popen[bytes], stop_grace_s: float) -> None:
    """End a program that still runs: asked first, then killed with all that it started."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(stop_grace_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
