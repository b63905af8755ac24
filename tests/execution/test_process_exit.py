"""How a process ends."""

from __future__ import annotations

import subprocess
import sys

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
