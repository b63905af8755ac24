"""Reads which epoch of a chain is the newest complete one."""

from __future__ import annotations

from pipelines.stores.store import Store
from schemas.errors import ManifestError, ObjectNotFoundError
from schemas.published.latest_pointer import POINTER_BYTES_MAX, LatestPointer
from schemas.published.object_layout import latest_name


def read_latest(store: Store, chain_id: str) -> LatestPointer | None:
    """Return a chain's latest pointer; None where no complete epoch was published.

    Raises:
        ManifestError: it can't be parsed, or is another chain's. The next publisher replaces it.
        StoreError: the store can't be read.
    """
    name = latest_name(chain_id)
    where = f"{store.url}/{name}"
    try:
        pointer = LatestPointer.parse(store.get(name, 0, POINTER_BYTES_MAX + 1), where)
    except ObjectNotFoundError:
        return None
    if pointer.chain_id != chain_id:
        raise ManifestError(problem=f"the latest pointer is of {pointer.chain_id}", where=where)
    return pointer
