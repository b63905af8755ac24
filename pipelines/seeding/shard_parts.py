"""Brings a shard's parts to the disk, each verified by its digest before it has its name, or finds them there.

A part that was verified is remembered by its file's size and modification time, so a restart reads no part again.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from pipelines.seeding.data_folder import WHEN_FULL, DataFolder
from pipelines.seeding.status import ShardKey
from pipelines.stores.durable_file import disk_errors, write_all
from pipelines.stores.pace import Pace
from pipelines.stores.regular_file import open_regular
from pipelines.stores.store import Store
from schemas.errors import ObjectMismatchError, StatecastError, StoreFullError, TransientStoreError
from schemas.ids import PartId
from schemas.published.manifest_shard import ManifestPart, ManifestShard

RANGE_BYTES_MAX: Final = 32 << 20
"""Most bytes asked for at once, and so most that a download holds in memory."""

FREE_BYTES_MIN: Final = 64 << 20
"""What a download leaves free on the disk."""

OnPart = Callable[[int, int], None]
"""Called with a part's size, and the bytes of it that came from the bucket; from several threads."""


class ShardFiles:
    """The files of one shard, in the seeder's folder or in place in another folder."""

    def __init__(self, key: ShardKey, shard: ManifestShard, data: DataFolder, local: Path | None, stop: threading.Event) -> None:
        self._key = key
        self._shard = shard
        self._data = data
        self._local = local
        self._stop = stop
        self._ledger_lock = threading.Lock()
        self._ledger = {name: entry for name, entry in data.read_own_json(self._ledger_name).items() if isinstance(entry, list)}

    @property
    def _ledger_name(self) -> str:
        return f"verified/{self._key.layout.epoch_id}-{self._key.shard_id}.json"

    def are_here(self) -> bool:
        """Whether there is a file for each part in one of the folders; nothing is read."""
        roots = [self._data.root] if self._local is None else [self._data.root, self._local]
        return any(all((root / self._name(part)).exists() for part in self._shard.parts) for root in roots)

    def find_in_place(self) -> Path | None:
        """Return the epoch's folder among local files if it has every part of the shard, right to the last byte."""
        if self._local is None:
            return None
        folder = self._local / self._key.layout.folder
        for part in self._shard.parts:
            path = self._local / self._name(part)
            if self._stop.is_set() or not self._is_verified(path, part):
                return None
        self._save_ledger()
        return folder

    def bring(self, store: Store, executor: ThreadPoolExecutor, on_part: OnPart, pace: Pace | None = None) -> Path:
        """Make sure that every part is in the seeder's folder; return the epoch's folder.

        What is there and right is kept. Parts are downloaded side by side; the first failure ends those that have not begun.

        Args:
            pace: of the bytes that come from the store, all threads together; None for as fast as they come.
        Raises:
            ObjectMismatchError: the bucket has other bytes than were published.
            StoreError: the bucket can't be read, the disk can't be written.
        """
        self._check_room()
        self._bring_parts(self._shard.parts, store, executor, on_part, pace)
        return self._data.path(self._key.layout.folder)

    def missing(self) -> list[ManifestPart]:
        """Return the parts that are not in the seeder's folder, or not right there."""
        return [part for part in self._shard.parts if not self._is_verified(self._data.path(self._name(part)), part)]

    def bring_some(
        self, part_ids: Collection[int], store: Store, executor: ThreadPoolExecutor, on_part: OnPart, pace: Pace | None = None
    ) -> dict[int, Path]:
        """Make sure that some parts are in the seeder's folder; return their files by part id. Else as `bring`."""
        wanted = [part for part in self._shard.parts if part.part_id in part_ids]
        self._bring_parts(wanted, store, executor, on_part, pace)
        return {part.part_id: self._data.path(self._name(part)) for part in wanted}

    def take(self, path: Path, part: ManifestPart) -> None:
        """Give a file of the same disk, which is to be a part, the part's name.

        Raises:
            ObjectMismatchError: it has other bytes than the manifest says.
            StoreError: the disk can't be written.
        """
        name = self._name(part)
        with disk_errors(path, WHEN_FULL):
            data = path.read_bytes()
        if len(data) != part.size or hashlib.sha256(data).hexdigest() != part.sha256:
            raise ObjectMismatchError(problem="a rebuilt part has other bytes than the manifest says", where=name)
        self._data.write(self._data.path(name), data)
        with disk_errors(path, WHEN_FULL):
            path.unlink()
        self._remember(self._data.path(name), part)

    def _bring_parts(
        self, parts: Sequence[ManifestPart], store: Store, executor: ThreadPoolExecutor, on_part: OnPart, pace: Pace | None
    ) -> None:
        futures = [executor.submit(self._bring_part, store, part, on_part, pace) for part in parts]
        failure: StatecastError | None = None
        for future in futures:
            if failure is not None:
                future.cancel()
            if not future.cancelled():
                try:
                    future.result()
                except StatecastError as error:
                    failure = failure or error
        self._save_ledger()
        if failure is not None:
            raise failure

    def forget(self) -> None:
        """Forget what was verified: the next look reads every part."""
        with self._ledger_lock:
            self._ledger.clear()
        self._data.own(self._ledger_name).unlink(missing_ok=True)

    def _bring_part(self, store: Store, part: ManifestPart, on_part: OnPart, pace: Pace | None) -> None:
        name = self._name(part)
        path = self._data.path(name)
        if self._is_verified(path, part):
            on_part(part.size, 0)
            return
        digest = hashlib.sha256()
        with self._data.temporary(path) as descriptor:
            for start in range(0, part.size, RANGE_BYTES_MAX):
                stop = min(start + RANGE_BYTES_MAX, part.size)
                if self._stop.wait(0.0 if pace is None else pace.book(stop - start)):
                    raise TransientStoreError(problem="stopped", where=name)
                data = store.get(name, start, stop)
                digest.update(data)
                write_all(descriptor, memoryview(data))
            if digest.hexdigest() != part.sha256:
                raise ObjectMismatchError(
                    problem="the bucket has other bytes than the manifest says",
                    where=f"{store.url}/{name}",
                    remedy="statecast check tells more; a repair by the publisher is taken up by itself.",
                )
        self._remember(path, part)
        on_part(part.size, part.size)

    def _is_verified(self, path: Path, part: ManifestPart) -> bool:
        try:
            found = os.stat(path)
        except OSError:
            return False
        if found.st_size != part.size:
            return False
        if self._ledger.get(str(path)) == [found.st_mtime_ns, found.st_size, part.sha256]:
            return True
        digest = hashlib.sha256()
        with disk_errors(path, WHEN_FULL), open_regular(path) as file:
            while data := file.read(1 << 20):
                if self._stop.is_set():
                    return False
                digest.update(data)
        if digest.hexdigest() != part.sha256:
            return False
        self._remember(path, part)
        return True

    def _remember(self, path: Path, part: ManifestPart) -> None:
        found = os.stat(path)
        with self._ledger_lock:
            self._ledger[str(path)] = [found.st_mtime_ns, found.st_size, part.sha256]

    def _save_ledger(self) -> None:
        with self._ledger_lock:
            self._data.write(self._data.own(self._ledger_name), json.dumps(self._ledger).encode())

    def _check_room(self) -> None:
        missing = sum(part.size for part in self._shard.parts if not self._data.path(self._name(part)).exists())
        free = self._data.free_bytes()
        if missing and missing + FREE_BYTES_MIN > free:
            raise StoreFullError(
                problem=f"shard {self._key.shard_id} of epoch {self._key.epoch_height} needs {missing} bytes more, {free} are free",
                where=str(self._data.root),
                remedy="Free space, keep fewer epochs or fewer shards; it goes on by itself.",
            )

    def _name(self, part: ManifestPart) -> str:
        return self._key.layout.state_part(self._key.shard_id, PartId(part.part_id, self._shard.num_parts))
