"""Running the command in this process or as a process of its own, and looking at what it left in a folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from jobs.cli import run

PROJECT = Path(__file__).resolve().parents[2]
PROCESS_TIMEOUT_S = 600

_COMMAND = (
    "import signal; [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)]; from jobs.cli import main; main()"
)
"""The command; what whoever runs the tests ignores does not reach it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run of the command."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        (line,) = self.stdout.splitlines()
        document = json.loads(line)
        assert isinstance(document, dict)
        return document

    @property
    def error_line(self) -> str:
        """The last line on standard error."""
        return self.stderr.splitlines()[-1]


def statecast(*arguments: object) -> Outcome:
    """Run the command in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr):
        code = run([str(argument) for argument in arguments])
    return Outcome(code, stdout.getvalue(), stderr.getvalue())


def start_process(
    *arguments: object, environment: Mapping[str, str] | None = None, before: Sequence[str] = (), stdin: IO[bytes] | None = None
) -> subprocess.Popen[str]:
    """Start the command as a process.

    Args:
        before: a command that runs the command.
    """
    return subprocess.Popen(
        [*before, sys.executable, "-c", _COMMAND, *map(str, arguments)],
        stdin=stdin,
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def statecast_process(*arguments: object, environment: Mapping[str, str] | None = None, before: Sequence[str] = ()) -> Outcome:
    """Run the command as a process to its end; see `start_process`."""
    process = start_process(*arguments, environment=environment, before=before)
    stdout, stderr = process.communicate(timeout=PROCESS_TIMEOUT_S)
    return Outcome(process.returncode, stdout, stderr)


def kill_when(process: subprocess.Popen[str], moment: Callable[[], bool]) -> bool:
    """Kill a process as soon as something has happened; return False if it ended before that. Nothing of its own cleans up."""
    deadline = time.monotonic() + PROCESS_TIMEOUT_S
    while process.poll() is None:
        if has_come(moment):
            kill_tree(process.pid)
            process.communicate()
            return True
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.001)
    process.communicate()
    return False


def has_come(moment: Callable[[], bool]) -> bool:
    """Look for something in folders that another process may remove in the midst of the look: then it has not happened yet."""
    try:
        return moment()
    except FileNotFoundError:
        return False


def wait_until(moment: Callable[[], bool], timeout_s: float) -> None:
    """Wait for something that another process does."""
    deadline_s = time.monotonic() + timeout_s
    while not has_come(moment):
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.02)


def kill_tree(pid: int) -> None:
    """Kill a process and then those that it started, as a power cut would."""
    try:
        process = psutil.Process(pid)
        children = process.children(recursive=True)
        process.kill()
    except psutil.NoSuchProcess:
        return
    for child in children:
        try:
            child.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue


def objects_in(folder: Path) -> dict[str, str]:
    """Return the sha256 of every object below a folder by its name; the store's own temporary folder holds none."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".statecast-tmp" not in path.parts
    }


def lasting_objects_in(folder: Path) -> dict[str, str]:
    """Return `objects_in` without what holds the time of its making: manifests, the latest pointer, the catalogue, a killed producer's claim."""
    return {name: sha256 for name, sha256 in objects_in(folder).items() if is_lasting(name)}


def is_lasting(name: str) -> bool:
    """Whether an object is the same whenever it was made."""
    return "manifest" not in name and not name.endswith(("/latest.json", "/catalogue.json", "/claim.json"))


def epoch_folder(folder: Path) -> Path:
    """Return the folder of the only epoch that is published below a folder."""
    (manifest,) = folder.glob("chain_id=*/epoch_height=*/epoch_id=*/manifest.json")
    return manifest.parent


def part_names(folder: Path) -> list[str]:
    """Return the names of all state parts below a folder."""
    return [name for name in objects_in(folder) if "/state_part_" in name]
