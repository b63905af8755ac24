"""The folder that a fetch fills: final names, temporary files, the memory of what was accepted, one fetch at a time.

A file gets its final name by a rename, after it was synced and verified, and the folder is synced after that: whatever kills the fetch, a
final name has verified bytes or is not there. All else lies in one folder of another name at the root, and temporary files of a
fetch that was killed are removed by the next.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipelines.fetching.epoch_target import Landed
from pipelines.fetching.fetch_part import FetchPart
from pipelines.stores.durable_file import disk_errors, give_name, make_folder, sync_file, sync_folder
from pipelines.stores.file_lock import take_lock
from pipelines.stores.regular_file import open_regular, read_regular
from pipelines.trust.freshness import MEMORY_BYTES_MAX, AcceptedManifests
from schemas.errors import ClaimedError, ManifestError
from schemas.published.latest_pointer import POINTER_BYTES_MAX, LatestPointer
from schemas.published.manifest_delta import ManifestDelta
from schemas.published.object_layout import latest_name

if TYPE_CHECKING:
    from pipelines.fetching.believed_epoch import BelievedEpoch

WORK_FOLDER: Final = ".statecast-fetch"
"""Folder at the root that holds what has no final name."""


class FetchFolder:
    """A folder of nearcore's object names: an `EpochTarget`."""

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

    def look(self, epoch: BelievedEpoch) -> bool:
        """See `EpochTarget.look`: what is here is believed no more than a source, and judged again."""
        return False

    def entered(self, epoch: BelievedEpoch) -> AbstractContextManager[None]:
        """See `EpochTarget.entered`: the folder's own lock is enough."""
        return nullcontext()

    def has(self, part: FetchPart) -> bool:
        """See `EpochTarget.has`: by the digest."""
        return has_digest(self.path(part.object_name), part.size, part.sha256)

    def held(self, name: str, size: int, sha256: str) -> bytes | None:
        """See `EpochTarget.held`."""
        path = self.path(name)
        if not has_digest(path, size, sha256):
            return None
        with disk_errors(path):
            return read_regular(path, size)

    def present(self, parts: Sequence[FetchPart]) -> Iterator[tuple[FetchPart, Path]]:
        """See `EpochTarget.present`."""
        for part in parts:
            path = self.path(part.object_name)
            with disk_errors(path):
                is_there = path.is_file()
            if is_there:
                yield part, path

    def placed(self, part: FetchPart) -> Path:
        """See `EpochTarget.placed`."""
        return self.path(part.object_name)

    def land_part(self, temporary: Path, part: FetchPart, landed: Landed) -> None:
        """See `EpochTarget.land_part`: done at once; raises StoreError."""
        self.land(temporary, part.object_name)
        landed(None)

    def missing_revisions(self, epoch: BelievedEpoch) -> Sequence[int]:
        """See `EpochTarget.missing_revisions`: the newest is enough."""
        return ()

    def lacks_tables_statement(self, epoch: BelievedEpoch) -> bool:
        """See `EpochTarget.lacks_tables_statement`: tables are read where they are."""
        return False

    def missing_deltas(self, epoch: BelievedEpoch) -> Sequence[ManifestDelta]:
        """See `EpochTarget.missing_deltas`: whole parts are what a folder is for."""
        return ()

    def publish(self, epoch: BelievedEpoch) -> None:
        """See `EpochTarget.publish`."""
        self.write(epoch.layout.manifest, epoch.manifest.envelope.to_bytes())

    def point_at(self, epoch: BelievedEpoch, stays: Callable[[LatestPointer], bool], warn: Callable[[str], None]) -> None:
        """See `EpochTarget.point_at`: the folder's own pointer, so that the folder can be used like a bucket."""
        name = latest_name(epoch.layout.chain_id)
        path = self.path(name)
        with disk_errors(path):
            there = read_regular(path, POINTER_BYTES_MAX) if path.is_file() else None
        try:
            if there is not None and stays(LatestPointer.parse(there, str(path))):
                return
        except ManifestError:
            warn("the latest pointer in the folder could not be read and is replaced")
        self.write(name, epoch.pointer.to_bytes())

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


def has_digest(path: Path, size: int, sha256: str) -> bool:
    """Tell whether a file is there and has these bytes."""
    with disk_errors(path):
        if not path.is_file() or path.stat().st_size != size:
            return False
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
