"""A long-running process that prints JSON objects, one a line: started, listened to, stopped or killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tests.support.commands import PROJECT, start_process

WAIT_S = 300.0
"""Longer than anything takes on a slow machine: what does not come by then does not come."""
STOP_S = 120.0

Line = dict[str, Any]


class JsonProcess:
    """A process and what it said so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[Line] = []
        self._errors: list[str] = []
        self._heard = threading.Condition()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._read_lines, self._read_errors)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, wanted: Callable[[Line], bool], timeout_s: float = WAIT_S) -> Line:
        """Return the first line, from the beginning, that is wanted; fail if it does not come."""
        deadline = time.monotonic() + timeout_s
        seen = 0
        with self._heard:
            while True:
                for line in self._lines[seen:]:
                    if wanted(line):
                        return line
                seen = len(self._lines)
                assert self._alive() and time.monotonic() < deadline, (self.process.poll(), self._lines[-3:], "".join(self._errors)[-2000:])
                self._heard.wait(0.2)

    def event(self, name: str, **facts: object) -> Line:
        """Wait for an event with these facts."""
        return self.wait_for(lambda line: line.get("event") == name and all(line.get(key) == value for key, value in facts.items()))

    def lines(self) -> list[Line]:
        """Return what was said so far."""
        with self._heard:
            return list(self._lines)

    def ended(self, timeout_s: float = WAIT_S) -> int:
        """Wait for the end; return the exit code, with everything read."""
        code = self.process.wait(timeout_s)
        for thread in self._threads:
            thread.join(STOP_S)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        return self.ended(STOP_S)

    def kill(self) -> None:
        """Kill it: nothing of its own cleans up."""
        self.process.kill()
        self.ended(STOP_S)

    @property
    def errors(self) -> str:
        """Standard error so far."""
        return "".join(self._errors)

    def _alive(self) -> bool:
        return self.process.poll() is None or any(thread.is_alive() for thread in self._threads)

    def _read_lines(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            with self._heard:
                self._lines.append(json.loads(text))
                self._heard.notify_all()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self._errors.append(text)


@contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[JsonProcess]:
    """Listen to a process; kill it at the end if it still runs."""
    listened = JsonProcess(process)
    try:
        yield listened
    finally:
        if process.poll() is None:
            listened.kill()
        else:
            listened.ended()


def running_command(*arguments: object) -> AbstractContextManager[JsonProcess]:
    """Run a statecast command whose events are on standard output."""
    return running(start_process(*arguments, "--events", "-"))


@contextmanager
def running_mirror(folder: Path, *options: object) -> Iterator[tuple[JsonProcess, str]]:
    """Run ``statecast serve`` on loopback; yield it and its URL."""
    with running_command("serve", folder, "--listen", "127.0.0.1:0", *options) as mirror:
        yield mirror, f"http://127.0.0.1:{mirror.event('listening')['port']}"


@contextmanager
def running_client(into: Path, *arguments: object, with_utp: bool = False) -> Iterator[JsonProcess]:
    """Run the stock client of `tests.support.stock_client` in a process of its own; ``with_utp`` is how it comes, and takes longer."""
    into.mkdir(parents=True, exist_ok=True)
    command: Sequence[str] = [sys.executable, str(PROJECT / "tests/support/stock_client.py"), str(into), *map(str, arguments)]
    if not with_utp:
        command = [*command, "--tcp"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with running(process) as client:
        yield client
