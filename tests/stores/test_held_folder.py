"""Temporary folders: gone with their process, or with the next start where it was killed; nothing else is touched."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.stores.held_folder import KINDS, UNLOCKED_S, held_folder, held_folder_prefix, make_held_folder, remove_dead_folders
from schemas.errors import InvalidInputError
from tests.support.commands import PROJECT, statecast

HOLD_ALL = """
from pipelines.stores.held_folder import KINDS, make_held_folder
folders = [make_held_folder(kind) for kind in KINDS]
(folders[0].path / "inside").mkdir()
print("held", flush=True)
input()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let folders be made in one of the test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def aged(folder: Path, age_s: float) -> Path:
    """Make a folder that is so old."""
    folder.mkdir()
    then = time.time() - age_s
    os.utime(folder, (then, then))
    return folder


def test_a_folder_is_its_users_alone_and_gone_with_the_block(temporary: Path) -> None:
    """Whatever is in it."""
    with held_folder("links") as folder:
        (folder / "inside").mkdir()
        assert folder.parent == temporary and folder.stat().st_mode & 0o777 == 0o700
    assert not any(temporary.iterdir())


def test_the_next_command_removes_what_a_killed_process_left_and_nothing_that_lives(temporary: Path) -> None:
    """Of every kind."""
    living, dying = (
        subprocess.Popen([sys.executable, "-c", HOLD_ALL], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    for process in (living, dying):
        assert process.stdout is not None and process.stdout.readline() == "held\n"
    assert len(list(temporary.iterdir())) == 2 * len(KINDS)
    dying.kill()
    dying.communicate()
    assert statecast("inspect", temporary / "nothing").code == 2
    assert len(list(temporary.iterdir())) == len(KINDS), "those of the living one"
    living.communicate("\n")
    remove_dead_folders()
    assert not any(temporary.iterdir())


def test_a_forked_child_removes_nothing(temporary: Path) -> None:
    """It has a copy of what holds the folder."""
    folder = make_held_folder("sort")
    child = os.fork()
    if not child:
        folder.close()
        os._exit(0)
    os.waitpid(child, 0)
    remove_dead_folders()
    assert folder.path.exists()
    folder.close()
    assert not folder.path.exists()


def test_what_may_be_somebody_elses_stays(temporary: Path) -> None:
    """A folder with a name of its own, one that has just been made, a link, a file; not one of ours that is old and has no lock."""
    prefix = held_folder_prefix("sort")
    named = aged(temporary / "statecast-backup", 2 * UNLOCKED_S)
    similar = aged(temporary / f"{prefix}of-mine", 2 * UNLOCKED_S)
    young, old = aged(temporary / f"{prefix}00000000", 60), aged(temporary / f"{prefix}11111111", 2 * UNLOCKED_S)
    link, file = temporary / f"{prefix}22222222", temporary / f"{prefix}33333333"
    link.symlink_to(named)
    file.touch()
    remove_dead_folders()
    assert named.exists() and similar.exists() and young.exists() and link.is_symlink() and file.exists()
    assert not old.exists()


def test_no_place_for_a_folder_is_said(temporary: Path) -> None:
    """With what to do about it."""
    (temporary / "file").touch()
    with pytest.raises(InvalidInputError, match=r"no temporary folder can be made there: Not a directory.*Name a folder"):
        make_held_folder("sort", temporary / "file" / "below")
