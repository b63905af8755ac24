"""What only a store in a folder does: durability, leftovers, errors of the operating system."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.stores.file_store import TEMPORARY_FILE_AGE_S_MAX, FileStore
from pipelines.stores.object_names import TEMPORARY_FOLDER
from schemas.errors import ObjectExistsError, StoreDeniedError, StoreError, StoreFullError, TransientStoreError
from tests.support.stored_bytes import stored_bytes

KILLED_WRITER = """
import os, signal, stat, sys
from pipelines.stores.file_store import FileStore
def sync(descriptor):
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = sync
FileStore(sys.argv[1]).put("shard_id=0/part", bytes(1 << 20))
"""


def _files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_reading_makes_nothing(tmp_path: Path) -> None:
    """Opening, listing and looking at a store leave its folder as it was, here: not there."""
    store = FileStore(str(tmp_path / "store"))
    assert (list(store.list()), store.info("x")) == ([], None)
    assert not (tmp_path / "store").exists()


def test_an_object_is_memory_mapped(tmp_path: Path) -> None:
    """A local object is opened without being read."""
    store = FileStore(str(tmp_path))
    store.put("object", b"12345")
    with store.open("object") as file:
        assert isinstance(file, pa.MemoryMappedFile)
        assert file.read_at(2, 3) == b"45"


def test_a_deleted_folder_leaves_no_folder(tmp_path: Path) -> None:
    """The folders below it go too, those without objects as well; what lies beside it stays."""
    store = FileStore(str(tmp_path / "store"))
    for name in ("epoch=1/shard=0/part", "epoch=1/shard=1/deep/part", "epoch=2/part"):
        store.put(name, b"1")
    (tmp_path / "store/epoch=1/empty").mkdir()
    store.delete_folder("epoch=1")
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == [TEMPORARY_FOLDER, "epoch=2"]
    store.delete_folder("epoch=1")


def test_a_folder_that_is_deleted_under_a_put_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting and writing may be two processes."""
    store = FileStore(str(tmp_path))
    deletions: list[Path | None] = []

    def late(give: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def give_late(temporary: Path, target: Path) -> None:
            if len(deletions) % 2 == 0:
                deletions.append(target)
                os.rmdir(target.parent)
            else:
                deletions.append(None)
            give(temporary, target)

        return give_late

    for name in ("replace", "link"):
        monkeypatch.setattr(os, name, late(getattr(os, name)))
    store.put("folder/a", b"1")
    store.put("other/b", b"2", create_only=True)
    assert (len(deletions), stored_bytes(store, "folder/a"), stored_bytes(store, "other/b")) == (4, b"1", b"2")


def test_only_the_object_is_left_after_a_put(tmp_path: Path) -> None:
    """No temporary file remains, whether the put created, replaced, swapped, repeated or refused."""
    store = FileStore(str(tmp_path))
    info = store.put("shard_id=0/part", b"1", create_only=True)
    store.put("shard_id=0/part", b"1", create_only=True)
    with pytest.raises(ObjectExistsError):
        store.put("shard_id=0/part", b"2", create_only=True)
    info = store.swap("shard_id=0/part", b"2", info)
    store.put("shard_id=0/part", b"3")
    assert _files(tmp_path) == [f"{TEMPORARY_FOLDER}/swap.lock", "shard_id=0/part"]


def test_a_killed_writer_leaves_no_object(tmp_path: Path) -> None:
    """The half-written file is nowhere in a listing nor in the shard's folder, and is cleaned away once it is old."""
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(tmp_path)], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -signal.SIGKILL
    [left] = _files(tmp_path)
    assert left.startswith(f"{TEMPORARY_FOLDER}/")

    store = FileStore(str(tmp_path))
    assert list(store.list()) == []
    store.put("object", b"x")
    assert left in _files(tmp_path), "a young temporary file may belong to a live writer"

    old_s = time.time() - TEMPORARY_FILE_AGE_S_MAX - 60
    os.utime(tmp_path / left, (old_s, old_s))
    FileStore(str(tmp_path)).put("object", b"y")
    assert _files(tmp_path) == ["object"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """The kernel takes half of the object, then no more: StoreFullError, no object, no temporary file."""
    store = FileStore(str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StoreFullError, match="Free space"):
            store.put("object", bytes(2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert _files(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, StoreFullError),
        (errno.EDQUOT, StoreFullError),
        (errno.EACCES, StoreDeniedError),
        (errno.EROFS, StoreDeniedError),
        (errno.ESTALE, TransientStoreError),
        (errno.EIO, StoreError),
    ],
)
def test_a_failed_sync_is_a_failed_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[StoreError]) -> None:
    """Errors that a file system reports as late as fsync become a store's errors, and the old object stays."""
    store = FileStore(str(tmp_path))
    store.put("object", b"old")

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error) as caught:
        store.put("object", b"new")
    assert type(caught.value) is error
    monkeypatch.undo()
    assert stored_bytes(store, "object") == b"old"
    assert _files(tmp_path) == ["object"]


def test_a_folder_that_refuses_is_denied() -> None:
    """The kernel lets no process make folders in /sys/kernel."""
    if not os.path.isdir("/sys/kernel"):
        pytest.skip("no /sys on this system")
    with pytest.raises(StoreDeniedError):
        FileStore("/sys/kernel/statecast-test").put("object", b"x")


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    """An object can't lie below another, and a folder can't be replaced by an object."""
    store = FileStore(str(tmp_path))
    store.put("object", b"x")
    with pytest.raises(StoreError, match="a file is where a folder is needed"):
        store.put("object/below", b"x")
    store.put("folder/object", b"x")
    for create_only in (True, False):
        with pytest.raises(ObjectExistsError):
            store.put("folder", b"x", create_only=create_only)


def test_versions_rise_within_a_clock_tick(tmp_path: Path) -> None:
    """A version never comes back, even when swaps follow each other faster than the clock ticks and inodes are reused."""
    store = FileStore(str(tmp_path))
    versions = [(info := store.swap("pointer", b"0", None)).version]
    for number in range(1, 60):
        info = store.swap("pointer", b"%d" % (number % 10), info)
        versions.append(info.version)
    modified = [int(version.split("-")[0]) for version in versions]
    assert modified == sorted(set(modified))


@pytest.mark.parametrize("durable", [True, False])
def test_the_disk_is_waited_for_where_that_is_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
    """A durable store syncs the file and its folder with every put; one that is not durable waits for nothing."""
    synced: list[int] = []
    store = FileStore(str(tmp_path), durable=durable)
    store.put("folder/first", b"1")
    monkeypatch.setattr(os, "fsync", synced.append)

    store.put("folder/second", b"2")

    assert len(synced) == (2 if durable else 0)
