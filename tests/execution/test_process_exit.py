"""How a process ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.execution.process_exit import leave


def test_a_process_ends_with_its_exit_code() -> None:
    """As always."""
    with pytest.raises(SystemExit) as caught:
        leave(20)
    assert caught.value.code == 20


def test_a_library_that_can_t_be_left_changes_no_exit_code() -> None:
    """Its farewell is not run, and what was said is said."""
    program = (
        "import atexit, os\n"
        "from pipelines.execution.process_exit import end_at_once, leave\n"
        "atexit.register(os._exit, 1)\n"
        "end_at_once('gone')\n"
        "print('the end', end='')\n"
        "leave(3)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (3, "the end")


def test_a_thread_in_native_code_does_not_change_how_a_process_ends(tmp_path: Path) -> None:
    """One that comes back while the interpreter is being taken apart ends the process with SIGABRT; libraries have had their farewell."""
    program = (
        "import atexit, sys, threading, time, rocksdict\n"
        "from pipelines.execution.process_exit import leave, say_farewell\n"
        "class LongToTakeApart:\n"
        "    def __del__(self, sleep=time.sleep): sleep(1)\n"
        "kept, begun = LongToTakeApart(), threading.Event()\n"
        "atexit.register(print, 'farewell', end='')\n"
        "def work():\n"
        "    database = rocksdict.Rdict(sys.argv[1])\n"
        "    while True:\n"
        "        database['key'] = 'value'\n"
        "        database.flush()\n"
        "        begun.set()\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "begun.wait()\n"
        "say_farewell()\n"
        "leave(3)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "database")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (3, "farewell"), ended.stderr
