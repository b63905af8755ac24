"""What a store promises, and nothing more.

Names are relative to the store's URL, with ``/`` between folders, no leading ``/``, no ``.`` or ``..`` (all of the rule:
`pipelines.stores.object_names`). Bytes under a name are
whole or not there: no reader ever sees half an object, whatever kills the writer. A store is a frozen, picklable value: it
opens its connection in the process that uses it (the clients do not survive a fork).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeAlias

import pyarrow as pa

Data: TypeAlias = bytes | bytearray | memoryview | pa.Buffer
"""What can be put."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One stored object."""

    name: str
    size: int
    version: str = ""
    """What `Store.swap` compares: a generation, an ETag or a digest, as the store has it; opaque. Empty in listings that lack it."""
    modified: datetime | None = field(default=None, compare=False)
    """When it was stored by the store's own clock, in UTC; None where it does not say."""


class Store(Protocol):
    """A folder of objects.

    Every method may raise StoreDeniedError, TransientStoreError and StoreError, and InvalidInputError for a name that is none.
    """

    @property
    def url(self) -> str:
        """Where it is, for people and for workers; holds no secret."""
        ...

    def local_root(self) -> Path | None:
        """Return the folder of this machine in which objects are files under their names; None where they are not, or must not be read past the store."""
        ...

    def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        """Store an object whole, and check what the store says it took (size, and a checksum where it has one).

        Args:
            create_only: fail when the name is taken by other bytes; the same bytes count as success.
        Raises:
            ObjectExistsError: ``create_only`` and the name has other bytes.
            StoreDeniedError, StoreFullError, TransientStoreError, StoreError: as they say.
            ObjectMismatchError: the store took other bytes than were sent.
        """
        ...

    def get(self, name: str, start: int, stop: int) -> bytes:
        """Read bytes [start, stop) of an object; what lies past its end is left out.

        There is no way to ask for all of an object, however long it is: `pipelines.stores.ranges.read_object` takes a limit.

        Args:
            start: from 0.
            stop: not below ``start``.
        Raises:
            ObjectNotFoundError: no such object.
            StoreError: what has the name is no regular file, where the store is a folder.
        """
        ...

    def open(self, name: str) -> pa.NativeFile:
        """Open an object for random access (memory-mapped where it is a local file).

        Raises:
            ObjectNotFoundError: no such object.
        """
        ...

    def info(self, name: str) -> ObjectInfo | None:
        """Return what is stored under a name, past every cache; None when nothing is."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield all objects under a folder, at any depth, by name; ``prefix`` is a folder's name, empty for all.

        Half-written temporary files are not objects.
        """
        ...

    def swap(self, name: str, data: Data, expected: ObjectInfo | None) -> ObjectInfo:
        """Replace an object if it is still ``expected`` (None: if there is none), else fail.

        The same bytes already there count as success: they are our own from an attempt whose reply was lost.

        Raises:
            ObjectExistsError: it is not what was expected.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove an object; a name that is not there is no error."""
        ...

    def delete_folder(self, folder: str) -> None:
        """Remove all objects below a folder, at any depth; one that is not there is no error.

        What is put meanwhile may stay. A caller that is killed or fails half-way calls it again: it is idempotent. The whole store is no folder.
        """
        ...
