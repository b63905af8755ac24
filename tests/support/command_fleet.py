"""Runs many commands side by side, each in a process of its own that is forked when all is imported: their time, memory, exit code and words.

``python -m tests.support.command_fleet`` takes a line of JSON with the lists of arguments on standard input, and gives one with the results.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

PROJECT = Path(__file__).resolve().parents[2]

AT_ONCE: Final = 12
"""Commands that run at once: most of the time they wait."""


@dataclass(frozen=True, slots=True)
class FleetResult:
    """How one command ended."""

    code: int
    """Negative for a signal."""
    seconds: float
    resident_bytes: int
    """The most of its process."""
    stdout: str
    stderr: str


def run_fleet(
    commands: Sequence[Sequence[object]], *, timeout_s: float, data_bytes_max: int, environments: Sequence[dict[str, str]] = ()
) -> list[FleetResult]:
    """Run commands side by side; return how each ended, in their order.

    Args:
        environments: what each has beside this process'; none for nothing.
        timeout_s: a command that takes longer is killed.
        data_bytes_max: most memory of a process, beside what it has when all is imported.
    """
    given = environments or [{}] * len(commands)
    asked = json.dumps([([str(word) for word in command], environment) for command, environment in zip(commands, given, strict=True)])
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.command_fleet", str(timeout_s), str(data_bytes_max)],
        input=asked + "\n",
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [FleetResult(**one) for one in json.loads(ended.stdout)]


def _child(arguments: Sequence[str], environment: dict[str, str], out: int, err: int, data_bytes_max: int) -> None:
    from jobs.cli import run

    status = 1
    try:
        os.environ.update(environment)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115 - the process ends with them
        now = 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmData:")).split()[1])  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_DATA, (now + data_bytes_max, resource.RLIM_INFINITY))
        status = run(list(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def main() -> None:
    """Run the fleet."""
    import jobs.check
    import jobs.fetch
    import jobs.get
    import jobs.inspect
    import jobs.mirror
    import jobs.prove
    import jobs.restore
    import jobs.seed  # noqa: F401 - what is imported before the fork is paid for once

    timeout_s, data_bytes_max = float(sys.argv[1]), int(sys.argv[2])
    commands = json.loads(sys.stdin.readline())
    waiting = deque(enumerate(commands))
    results: dict[int, FleetResult] = {}
    running: dict[int, tuple[int, float, IO[str], IO[str]]] = {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            number, (command, environment) = waiting.popleft()
            # Read when the process has ended.
            out: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115
            err: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115
            began_s = time.monotonic()
            pid = os.fork()
            if pid == 0:
                _child(command, environment, out.fileno(), err.fileno(), data_bytes_max)
            running[number] = pid, began_s, out, err
        for number, (pid, began_s, out, err) in list(running.items()):
            found, status, usage = os.wait4(pid, os.WNOHANG)
            seconds = time.monotonic() - began_s
            if not found and seconds <= timeout_s:
                continue
            if not found:
                os.kill(pid, 9)
                found, status, usage = os.wait4(pid, 0)
            out.seek(0)
            err.seek(0)
            code = os.waitstatus_to_exitcode(status)
            results[number] = FleetResult(code, seconds, usage.ru_maxrss * 1024, out.read(), err.read())
            del running[number]
        time.sleep(0.02)
    print(json.dumps([asdict(results[number]) for number in range(len(commands))]))


if __name__ == "__main__":
    main()
