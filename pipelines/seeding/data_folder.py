"""A seeder's own folder: epochs in nearcore's layout, and beside them in ``.seed`` what it must remember.

Parts are under their names only when they are verified and synced; a killed seeder leaves temporary files in ``.seed`` and nothing
else. Everything below the folder is the seeder's to delete, so a folder with other things in it is refused.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipelines.stores.durable_file import disk_errors, sync_folder, write_all
from pipelines.stores.file_lock import take_lock
from pipelines.stores.regular_file import read_regular
from schemas.errors import InvalidInputError
from schemas.json_note import read_note
from schemas.published.object_layout import EpochLayout, parse_epoch_folder

OWN_FOLDER: Final = ".seed"

OWN_BYTES_MAX: Final = 256 << 20
"""Largest file of a seeder's own that is read: a line for each part that it has."""

WHEN_FULL: Final = "Free space; it goes on by itself."
"""A seeder's advice for a full disk."""


@dataclass(frozen=True, slots=True)
class DataFolder:
    """See the module. Opened by `open_data_folder`."""

    root: Path

    def path(self, name: str) -> Path:
        """Return where an object lies."""
        return self.root / name

    def own(self, name: str) -> Path:
        """Return where something that the seeder remembers lies."""
        return self.root / OWN_FOLDER / name

    def write(self, path: Path, data: bytes) -> None:
        """Write a file whole and synced, or not at all."""
        with self.temporary(path) as file:
            write_all(file, memoryview(data))

    @contextmanager
    def temporary(self, path: Path) -> Iterator[int]:
        """Yield a descriptor to write to; its file gets its name, synced, unless the body raises.

        Raises:
            StoreError: the disk is full or refuses.
        """
        temporary = self.own("tmp") / uuid.uuid4().hex
        with disk_errors(path, WHEN_FULL):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                try:
                    yield descriptor
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                os.replace(temporary, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
            sync_folder(path.parent)

    def read_own_json(self, name: str) -> dict[str, Any]:
        """Return a JSON object that was remembered; empty where there is none, or a damaged one: all of it can be made again."""
        try:
            return read_note(read_regular(self.own(name), OWN_BYTES_MAX), dict) or {}
        except OSError:
            return {}

    def epochs(self) -> Iterator[EpochLayout]:
        """Yield the epochs whose manifest is here."""
        for path in sorted(self.root.glob("chain_id=*/epoch_height=*/epoch_id=*/manifest.json")):
            layout = parse_epoch_folder(str(path.parent.relative_to(self.root)))
            if layout is not None:
                yield layout

    def drop(self, layout: EpochLayout) -> None:
        """Delete an epoch: its manifest first, so that a killed deletion is finished by the next start."""
        with disk_errors(self.path(layout.manifest), WHEN_FULL):
            self.path(layout.manifest).unlink(missing_ok=True)
        shutil.rmtree(self.path(layout.folder), ignore_errors=True)
        with suppress(OSError):
            self.path(layout.folder).parent.rmdir()

    def free_bytes(self) -> int:
        """Return how much fits."""
        return shutil.disk_usage(self.root).free


@contextmanager
def open_data_folder(root: Path) -> Iterator[DataFolder]:
    """Make or open a seeder's folder, hold it for this process alone, and remove what a killed one left.

    Raises:
        InvalidInputError: something else lies in the folder, or another seeder has it.
        StoreError: it can't be written.
    """
    folder = DataFolder(root.absolute())
    own = folder.own("")
    if not own.is_dir() and root.is_dir() and any(root.iterdir()):
        raise InvalidInputError(
            problem="this folder is not a seeder's and is not empty: a seeder deletes old epochs",
            where=str(root),
            remedy="Give --data a folder of its own; files that are already here are seeded in place with --local.",
        )
    with disk_errors(root, WHEN_FULL):
        own.mkdir(parents=True, exist_ok=True)
        try:
            lock = take_lock(folder.own("lock"))
        except BlockingIOError as error:
            raise InvalidInputError(
                problem="another seeder has this folder", where=str(root), remedy="Give each a folder of its own."
            ) from error
    with lock:
        with disk_errors(root, WHEN_FULL):
            shutil.rmtree(folder.own("tmp"), ignore_errors=True)
            folder.own("tmp").mkdir()
            _finish_drops(folder)
        yield folder


def _finish_drops(folder: DataFolder) -> None:
    held = {layout.folder for layout in folder.epochs()}
    for path in folder.root.glob("chain_id=*/epoch_height=*/epoch_id=*"):
        if str(path.relative_to(folder.root)) not in held:
            shutil.rmtree(path, ignore_errors=True)
