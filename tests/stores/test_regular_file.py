"""Only regular files are read, and no further than a limit."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pipelines.keeping.check_part import CheckPartTask
from pipelines.stores.file_store import FileStore
from pipelines.stores.ranges import read_object
from pipelines.stores.regular_file import UnfitFileError, open_regular, read_regular
from schemas.errors import ObjectMismatchError, ObjectNotFoundError, StoreError
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.state_part import Encoding
from schemas.published.manifest_shard import ManifestPart


def unfit(folder: Path) -> dict[str, str]:
    """Make what is no regular file in a folder; return what each is, by name."""
    os.mkfifo(folder / "pipe")
    (folder / "endless").symlink_to("/dev/zero")
    (folder / "terminal").symlink_to("/dev/tty")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
    return {"pipe": "a named pipe", "endless": "a character device", "socket": "a socket"}


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    """Through a link too; one byte more is refused."""
    (tmp_path / "file").write_bytes(b"x" * 10)
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 10) == b"x" * 10
    with pytest.raises(UnfitFileError, match="more than 9 bytes"):
        read_regular(tmp_path / "file", 9)
    with open_regular(tmp_path / "file") as file:
        assert os.get_blocking(file.fileno())


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path) -> None:
    """A pipe without a writer, an endless device, a socket, a folder."""
    for name, what in unfit(tmp_path).items():
        with pytest.raises(UnfitFileError, match=f"it is {what}, not a regular file"):
            open_regular(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "missing")


def test_a_store_reads_regular_files_alone(tmp_path: Path) -> None:
    """What is no file is an error that says what it is; a folder is no object."""
    store = FileStore(str(tmp_path))
    for name, what in unfit(tmp_path).items():
        with pytest.raises(StoreError, match=f"it is {what}, not a regular file") as caught:
            store.get(name, 0, 10)
        assert caught.value.where == f"{tmp_path}/{name}"
        assert store.info(name) is None
    (tmp_path / "folder").mkdir()
    with pytest.raises(ObjectNotFoundError):
        store.get("folder", 0, 10)


def test_an_object_over_its_limit_is_not_read(tmp_path: Path) -> None:
    """A sparse file of 3 TiB is refused by a byte over the limit."""
    store = FileStore(str(tmp_path))
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(3 << 40)
    with pytest.raises(ObjectMismatchError, match="more than 1000 bytes"):
        read_object(store, "huge", 1000)
    task = CheckPartTask(
        store_url=store.url,
        object_name="huge",
        stored=ManifestPart(0, 1000, "0" * 64),
        stated=None,
        part_id=PartId(0, 1),
        state_root=CryptoHash(bytes(32)),
        encoding=Encoding.V0,
        piece_length=16384,
        kernel_name="reference",
    )
    assert task.run().problem == "it has more than the manifest's 1000 bytes"
