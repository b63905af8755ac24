"""A process that is asked to stop learns of it, whatever it is doing and whoever else sets handlers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.support.commands import PROJECT

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_PROGRAM = """
import ctypes, hashlib, os, signal, subprocess, sys, threading, time
from pipelines.execution import stop_signals
from pipelines.execution.stop_signals import handled_signals, interrupted_by, receive_signals, stopping

def say(line):
    os.write(1, (line + chr(10)).encode())

try:
    with handled_signals(lambda number: say(f"late {number}")):
        BODY
except KeyboardInterrupt:
    say("interrupted")
    os._exit(128 + interrupted_by())
"""

_IN_NATIVE_CODE = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
"""Which neither Python nor a system call interrupts."""


def _take_signals() -> None:
    """Tests that run in the background ignore them, and a child inherits that."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def program(*body: str, before: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """Run a program that handles signals and says ``ready`` before the last line of its body."""
    lines = [*body[:-1], "say('ready')", body[-1]]
    text = _PROGRAM.replace("BODY", "\n        ".join(lines))
    process = subprocess.Popen(
        [*before, sys.executable, "-c", text],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_take_signals,  # noqa: PLW1509 - it takes no lock
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_native_code(process: subprocess.Popen[str]) -> None:
    """Wait until the program computes: before, it is in Python, which a signal interrupts."""
    measured = psutil.Process(process.pid)
    begun_s = measured.cpu_times().user
    while measured.cpu_times().user < begun_s + 0.2:
        assert process.poll() is None
        time.sleep(0.01)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit code and what was said since."""
    # Through the reader that took the first line: it may have taken more.
    assert process.stdout is not None
    said = process.stdout.read()
    return process.wait(timeout=60), said


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("doing", ["time.sleep(60)", "threading.Event().wait()", "while True: pass"])
def test_the_main_thread_is_interrupted(number: signal.Signals, doing: str) -> None:
    """In a system call, a lock and a loop; with the exit code of the signal."""
    with program(doing) as process:
        process.send_signal(number)
        assert ended(process) == (128 + number, "interrupted\n")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_library_that_takes_the_signals_over_changes_nothing(number: signal.Signals) -> None:
    """Neither Python's handlers nor the system's: Ray sets both, at its start and at its end."""
    with program(
        f"signal.signal({number}, lambda *_: os._exit(7))", f"ctypes.CDLL(None).signal({number}, None)", "time.sleep(60)"
    ) as process:
        process.send_signal(number)
        assert ended(process) == (128 + number, "interrupted\n")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_a_thread_that_does_not_block_it_counts(number: signal.Signals) -> None:
    """A library that was loaded earlier may have such threads, and multiprocessing unblocks them in the thread that starts its tracker."""
    with program("signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals.STOP_SIGNALS)", "time.sleep(60)") as process:
        process.send_signal(number)
        assert ended(process) == (128 + number, "interrupted\n")


def test_a_tracker_of_multiprocessing_leaves_the_signals_blocked() -> None:
    """It is started by the first pool of processes."""
    with program(
        "from multiprocessing import resource_tracker",
        "with stop_signals.kept_blocked(): resource_tracker.ensure_running()",
        "say(str(signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= set(stop_signals.STOP_SIGNALS)))",
    ) as process:
        assert ended(process) == (0, "True\n")


def test_native_code_does_not_keep_a_process_alive() -> None:
    """When it has not stopped in time it does the least, and ends."""
    with program("stop_signals.STOP_S_MAX = 0.1", _IN_NATIVE_CODE) as process:
        wait_for_native_code(process)
        process.send_signal(signal.SIGTERM)
        assert ended(process) == (143, "late 15\n")


def test_a_last_resort_that_hangs_is_left() -> None:
    """A store that does not answer keeps no process alive."""
    with program(
        *("stop_signals.STOP_S_MAX = stop_signals.LATE_S_MAX = 0.1", "stop_signals._wish.on_late = lambda _: time.sleep(60)"),
        _IN_NATIVE_CODE,
    ) as process:
        wait_for_native_code(process)
        process.send_signal(signal.SIGTERM)
        assert ended(process) == (143, "")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_command_that_ends_by_itself_is_told(number: signal.Signals) -> None:
    """It is not interrupted, and its stop is how it ends well."""
    with program(
        "stop = threading.Event()",
        "with stopping(lambda name: (say(name), stop.set())): say('ready'); stop.wait(); say(f'done {interrupted_by()}'); os._exit(0)",
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        assert ended(process) == (0, f"{number.name}\ndone None\n")


def test_a_command_that_ends_by_itself_has_only_so_long() -> None:
    """It is done all the same."""
    with program(
        "with stopping(say, lambda: say('stopped'), 0.1): say('ready'); " + _IN_NATIVE_CODE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        wait_for_native_code(process)
        process.send_signal(signal.SIGTERM)
        assert ended(process) == (0, "SIGTERM\nlate None\nstopped\n")


def test_a_second_signal_ends_a_process_at_once() -> None:
    """But not one that comes together with the first: that is the same wish."""
    with program("with stopping(say): say('ready'); time.sleep(60)") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "SIGTERM\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.6)
        process.send_signal(signal.SIGINT)
        assert ended(process) == (130, "")


def test_what_was_ignored_at_the_start_stays_ignored() -> None:
    """As under nohup."""
    with program("time.sleep(60)", before=("sh", "-c", "trap '' HUP; exec \"$@\"", "sh")) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert ended(process) == (143, "interrupted\n")


def test_a_program_that_is_started_gets_the_signals() -> None:
    """Blocked they would be inherited."""
    with program(
        "child = subprocess.Popen(['sleep', '60'], preexec_fn=receive_signals)", "child.terminate(); say(str(child.wait())); os._exit(0)"
    ) as process:
        assert ended(process) == (0, "-15\n")
