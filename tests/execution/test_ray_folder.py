"""The private folder of an embedded Ray: its permissions and its removal."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.execution.ray_folder import FOLDER_BYTES_MAX, make_ray_folder
from pipelines.stores.held_folder import KEPT_S, UNLOCKED_S, held_folder_prefix
from schemas.errors import InvalidInputError
from tests.support.commands import PROJECT

PREFIX = held_folder_prefix("ray")

HOLD_ONE = """
from pipelines.execution.ray_folder import make_ray_folder
folder = make_ray_folder()
print(folder.path, flush=True)
input()
"""


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let folders be made in one of the test's own, whose path is short."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="s") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


def held_by_another() -> tuple[subprocess.Popen[str], Path]:
    """Let another process make a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD_ONE], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def kill(process: subprocess.Popen[str]) -> None:
    """End a process as the kernel does when memory is short."""
    process.kill()
    process.communicate()


def aged(folder: Path, age_s: float) -> Path:
    """Let a folder be so old."""
    then = time.time() - age_s
    os.utime(folder, (then, then))
    return folder


def test_only_its_user_sees_the_folder_and_its_token() -> None:
    """Whatever the umask is; each has a token of its own, and nothing of it is left."""
    before = os.umask(0)
    try:
        one, two = make_ray_folder(), make_ray_folder()
    finally:
        os.umask(before)
    assert one.path.stat().st_mode & 0o777 == 0o700
    assert one.token_file.stat().st_mode & 0o777 == 0o600
    tokens = {folder.token_file.read_text() for folder in (one, two)}
    assert len(tokens) == 2 and all(len(token) == 64 for token in tokens)
    one.close()
    assert not one.path.exists() and two.path.exists()
    two.close()


def test_what_a_killed_process_left_is_removed_by_the_next() -> None:
    """What a living one holds stays."""
    (living, held), (dying, left) = held_by_another(), held_by_another()
    (left / "r" / "session" / "logs").mkdir(parents=True)
    kill(dying)
    make_ray_folder().close()
    assert held.exists() and not left.exists()
    kill(living)


def test_wanted_logs_stay_for_a_day() -> None:
    """Since an error has named them."""
    folder = make_ray_folder()
    folder.keep_logs()
    folder.close()
    make_ray_folder().close()
    assert folder.path.exists()
    aged(folder.path, KEPT_S + 60)
    make_ray_folder().close()
    assert not folder.path.exists()


def test_what_is_not_ours_is_left_alone(temporary: Path, tmp_path: Path) -> None:
    """A link, a file, and a folder that is just being made; one without a lock for a day is stale."""
    target = tmp_path / "target"
    target.mkdir()
    link, file = temporary / f"{PREFIX}link0000", temporary / f"{PREFIX}file0000"
    link.symlink_to(target)
    file.touch()
    young = temporary / f"{PREFIX}young000"
    old = temporary / f"{PREFIX}old00000"
    for folder in (young, old):
        folder.mkdir(mode=0o700)
    aged(old, UNLOCKED_S + 60)
    make_ray_folder().close()
    assert link.is_symlink() and target.exists() and file.exists() and young.exists() and not old.exists()
    for path in (link, file):
        path.unlink()
    young.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_the_folder_of_another_user_is_left_alone(temporary: Path) -> None:
    """However old it is."""
    folder = temporary / f"{PREFIX}other000"
    folder.mkdir()
    os.chown(folder, 65_534, 65_534)
    aged(folder, UNLOCKED_S + 60)
    make_ray_folder().close()
    assert folder.exists()
    folder.rmdir()


def test_a_place_that_won_t_do_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path too long for sockets, a folder in which others may rename ours, none at all: then it is in /tmp."""
    deep, open_to_all = tmp_path / ("d" * FOLDER_BYTES_MAX), Path(tempfile.mkdtemp(dir="/tmp", prefix="s"))
    deep.mkdir()
    open_to_all.chmod(0o777)
    for place in (deep, open_to_all, tmp_path / "missing"):
        monkeypatch.setenv("RAY_TMPDIR", str(place))
        folder = make_ray_folder()
        assert folder.path.parent == Path("/tmp")
        folder.close()
    open_to_all.chmod(0o1777)
    monkeypatch.setenv("RAY_TMPDIR", str(open_to_all))
    folder = make_ray_folder()
    assert folder.path.parent == open_to_all, "a sticky folder is as good as /tmp"
    folder.close()
    open_to_all.rmdir()


def test_a_place_named_from_here_is_one_for_ray(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes absolute paths alone."""
    monkeypatch.chdir(temporary)
    monkeypatch.setenv("RAY_TMPDIR", ".")
    folder = make_ray_folder()
    assert folder.path.is_absolute() and folder.path.parent == temporary
    folder.close()


def test_where_no_place_will_do_each_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the folder that is named, and of /tmp."""
    deep = tmp_path / ("d" * FOLDER_BYTES_MAX)
    deep.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(deep))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InvalidInputError, match=r"Ray's sockets need a path of at most \d+ bytes; /tmp: it can't be written \[TMPDIR\]"):
        make_ray_folder()


def test_no_room_for_the_folder_is_an_error_and_leaves_nothing(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk, or a file system without locks."""

    def refuse(path: Path) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("pipelines.stores.held_folder.take_lock", refuse)
    with pytest.raises(InvalidInputError, match="no temporary folder can be made there: No locks available"):
        make_ray_folder()
    assert not list(temporary.iterdir())
