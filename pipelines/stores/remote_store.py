"""What stores that are no folder of this machine have in common: objects read by ranges, folders deleted object by object."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from pipelines.stores.object_names import check_object_name
from pipelines.stores.ranges import open_ranges
from pipelines.stores.store import Store


class RemoteStore:
    """Some methods of a `Store` over its others."""

    __slots__ = ()

    def local_root(self) -> Path | None:
        """See `Store.local_root`."""
        return None

    def open(self: Store, name: str) -> pa.NativeFile:
        """See `Store.open`."""
        return open_ranges(self, name)

    def delete_folder(self: Store, folder: str) -> None:
        """Delete all objects below a folder, one by one in the order of their names. See `Store.delete_folder`."""
        for info in tuple(self.list(check_object_name(folder))):
            self.delete(info.name)

    def _where(self: Store, name: str) -> str:
        return f"{self.url}/{name}"
