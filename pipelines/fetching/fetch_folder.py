"""The folder that a fetch fills: final names, temporary files, the memory of what was accepted, one fetch at a time.

A file gets its final name by a rename, after it was synced and verified, and the folder is synced after that: whatever kills the fetch, a
final name has verified bytes or is not there. All else lies in one folder of another name at the root, and temporary files of a
fetch that was killed are removed by the next.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pipelines.stores.durable_file import disk_errors, give_name, make_folder, sync_file, sync_folder
from pipelines.stores.file_lock import take_lock
from pipelines.stores.regular_file import read_regular
from pipelines.trust.freshness import MEMORY_BYTES_MAX, AcceptedManifests
from schemas.errors import ClaimedError

WORK_FOLDER: Final = ".statecast-fetch"
"""Folder at the root that holds what has no final name."""


class FetchFolder:
    """A folder of nearcore's object names."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._work = self.root / WORK_FOLDER
        self._next_file = 0

    @property
    def scratch(self) -> Path:
        """A folder for sources that need one; gone after the fetch."""
        return self._work / "scratch"

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the folder for one fetch; temporary files are removed before and after.

        Raises:
            ClaimedError: another fetch holds it.
            StoreError: it can't be written.
        """
        with disk_errors(self.root):
            make_folder(self._work)
            try:
                lock = take_lock(self._work / "lock")
            except BlockingIOError:
                raise ClaimedError(
                    problem="another fetch is at work in this folder", where=str(self.root), remedy="Wait for it, or fetch into another."
                ) from None
        with lock:
            with disk_errors(self.root):
                self._clean()
                make_folder(self._incoming)
            try:
                yield
            finally:
                self._clean()

    def temporary(self) -> Path:
        """Return the path of a new temporary file, which is not made yet."""
        self._next_file += 1
        return self._incoming / f"{self._next_file:08d}"

    def path(self, name: str) -> Path:
        """Return the path of an object's final name."""
        return self.root / name

    def land(self, temporary: Path, name: str) -> None:
        """Give a verified and synced temporary file its final name.

        Raises:
            StoreError: as it says.
        """
        target = self.path(name)
        with disk_errors(target):
            make_folder(target.parent)
            os.replace(temporary, target)
            sync_folder(target.parent)

    def write(self, name: str, data: bytes) -> None:
        """Put verified bytes under their final name; the same bytes there already are left alone.

        Raises:
            StoreError: as it says.
        """
        target = self.path(name)
        with disk_errors(target):
            if target.is_file() and target.stat().st_size == len(data) and read_regular(target, len(data)) == data:
                return
            temporary = self.temporary()
            temporary.write_bytes(data)
            sync_file(temporary)
        self.land(temporary, name)

    def remove(self, name: str) -> None:
        """Take away a final name whose bytes are not right, or do not belong here; nothing to do where it is not there.

        Raises:
            StoreError: as it says.
        """
        target = self.path(name)
        with disk_errors(target):
            if target.is_dir() and not target.is_symlink():
                raise IsADirectoryError(errno.EISDIR, "a folder has the name of an object", str(target))
            target.unlink(missing_ok=True)
            if target.parent.is_dir():
                sync_folder(target.parent)

    def accepted(self, chain_id: str) -> AcceptedManifests:
        """Read what was accepted before of a chain.

        Raises:
            ManifestError: the memory is damaged.
            StoreError: it can't be read.
        """
        path = self._memory(chain_id)
        with disk_errors(path):
            if not path.exists():
                return AcceptedManifests(chain_id)
            return AcceptedManifests.parse(read_regular(path, MEMORY_BYTES_MAX), chain_id, str(path))

    def remember(self, accepted: AcceptedManifests) -> None:
        """Write what is accepted, before anything of it is fetched: a kill must not make it forgotten.

        Raises:
            StoreError: as it says.
        """
        path = self._memory(accepted.chain_id)
        with disk_errors(path):
            temporary = self.temporary()
            temporary.write_bytes(accepted.to_bytes())
            give_name(temporary, path)

    @property
    def _incoming(self) -> Path:
        return self._work / "incoming"

    def _memory(self, chain_id: str) -> Path:
        return self._work / f"accepted-{chain_id}.json"

    def _clean(self) -> None:
        for folder in (self._incoming, self.scratch):
            shutil.rmtree(folder, ignore_errors=True)
