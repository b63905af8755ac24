"""Deletes a folder of a store that knows objects alone: it is there for as long as one of them is."""

from __future__ import annotations

from pipelines.stores.object_names import check_object_name
from pipelines.stores.store import Store


def delete_listed(store: Store, folder: str) -> None:
    """Delete all objects below a folder, one by one in the order of their names. See `Store.delete_folder`."""
    for info in tuple(store.list(check_object_name(folder))):
        store.delete(info.name)
