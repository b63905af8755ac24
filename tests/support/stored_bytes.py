"""Bytes of objects and files that are known to be small: read whole, and damaged."""

from __future__ import annotations

from pathlib import Path

from pipelines.stores.ranges import read_object
from pipelines.stores.store import Store

STORED_BYTES_MAX = 64 << 20


def stored_bytes(store: Store, name: str) -> bytes:
    """Return an object's bytes."""
    return read_object(store, name, STORED_BYTES_MAX)


def flip_bit(path: Path, position: int | None = None) -> None:
    """Flip one bit of a file, in the middle unless a position says where."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 1
    path.write_bytes(data)
