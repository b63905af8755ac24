"""A node that runs is found, by its process or by its database's lock; looking changes nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.restoring.into_node.node_guard import check_not_running, lock_holder, running_process
from schemas.errors import NodeError

_HOLD_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen[str]]:
    """Run a program that says a line when it is ready, and end it."""
    process = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose database folder has a lock file."""
    (tmp_path / "home" / "data").mkdir(parents=True)
    (tmp_path / "home" / "data" / "LOCK").touch()
    return tmp_path / "home"


def test_a_held_lock_is_found_with_its_holder(home: Path) -> None:
    """RocksDB's lock is a lock on the file for writing, held by the process that has the database open."""
    with running(sys.executable, "-c", _HOLD_LOCK, home / "data" / "LOCK") as process:
        assert lock_holder(home / "data") == process.pid
        with pytest.raises(NodeError, match=f"process {process.pid} holds"):
            check_not_running(home, home / "data")
    assert lock_holder(home / "data") is None


def test_rocksdb_itself_holds_that_lock(tmp_path: Path) -> None:
    """The lock that is asked for is the one that RocksDB takes."""
    script = (
        "import sys\nfrom rocksdict import Options, Rdict\noptions = Options(raw_mode=True)\noptions.create_if_missing(True)\n"
        "database = Rdict(sys.argv[1], options)\nprint('open', flush=True)\nsys.stdin.read()\n"
    )
    with running(sys.executable, "-c", script, tmp_path / "data") as process:
        assert lock_holder(tmp_path / "data") == process.pid


def test_a_database_without_a_lock_file_is_free(home: Path) -> None:
    """A home that no node has opened yet; the file is not made."""
    (home / "data" / "LOCK").unlink()
    check_not_running(home, home / "data")
    assert not (home / "data" / "LOCK").exists()


@pytest.mark.parametrize("form", ["two words", "one word", "link"])
def test_a_neard_with_this_home_is_found(home: Path, tmp_path: Path, form: str) -> None:
    """However the home was written on its command line; one with another home does not matter."""
    program = tmp_path / "neard"
    program.write_text("#!/bin/sh\necho ready\nread line\n")
    program.chmod(0o755)
    link = tmp_path / "link"
    link.symlink_to(home)
    options: dict[str, list[object]] = {"two words": ["--home", home], "one word": [f"--home={home}"], "link": ["--home", link]}
    with running(program, *options[form], "run") as process:
        assert running_process(home) == process.pid
        assert running_process(tmp_path) is None
        with pytest.raises(NodeError, match="a neard runs"):
            check_not_running(home, home / "data")
    assert running_process(home) is None
