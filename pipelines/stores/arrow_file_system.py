"""A store as a file system of Arrow's, to read from: for Arrow's own scanners, which know files and not stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import pyarrow as pa
from pyarrow import fs

from pipelines.stores.store import ObjectInfo, Store


class StoreHandler(fs.FileSystemHandler):  # type: ignore[misc]
    """Paths are object names. Writing raises NotImplementedError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get_type_name(self) -> str:
        """Return what Arrow calls it."""
        return "statecast"

    def normalize_path(self, path: str) -> str:
        """Return the path as it is: a name has one spelling."""
        return path

    def get_file_info(self, paths: Sequence[str]) -> list[Any]:
        """Return which objects are there."""
        return [_info(path, self._store.info(path)) for path in paths]

    def get_file_info_selector(self, selector: Any) -> list[Any]:
        """Return all objects below a folder."""
        return [_info(found.name, found) for found in self._store.list(selector.base_dir)]

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open an object for random access."""
        return self._store.open(path)

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """Open an object to be read from its begin."""
        return self._store.open(path)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError("a store is only read through this")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = move = copy_file = _refuse
    open_output_stream = open_append_stream = _refuse


def arrow_file_system(store: Store) -> fs.PyFileSystem:
    """Return a store as a file system to read from."""
    return fs.PyFileSystem(StoreHandler(store))


def _info(path: str, found: ObjectInfo | None) -> Any:
    if found is None:
        return fs.FileInfo(path, fs.FileType.NotFound)
    return fs.FileInfo(path, fs.FileType.File, size=found.size, mtime=found.modified)
