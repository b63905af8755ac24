"""All of an object of a store, for tests that know that it is small."""

from __future__ import annotations

from pipelines.stores.ranges import read_object
from pipelines.stores.store import Store

STORED_BYTES_MAX = 64 << 20


def stored_bytes(store: Store, name: str) -> bytes:
    """Return an object's bytes."""
    return read_object(store, name, STORED_BYTES_MAX)
