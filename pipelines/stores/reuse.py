"""Gives an object that is stored already a second name, as cheaply as its store can.

In a folder that is a hard link: no byte is copied, and either name may be deleted without the other. Safe because a file store never writes
into a file that has a name. Everywhere else the object is read and put again.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from pipelines.stores.object_names import check_object_name
from pipelines.stores.store import Store
from schemas.errors import ObjectMismatchError


def reuse_object(source: Store, source_name: str, target: Store, target_name: str, *, size: int, sha256: str) -> None:
    """Make an object of one store an object of another, or of the same under another name; what has that name is replaced.

    Args:
        size, sha256: of the object, from its summary. A copy is checked by both, a link by its size alone: it is the same file.
    Raises:
        ObjectNotFoundError: the source has no such object.
        ObjectMismatchError: it is not the object of the summary.
        StoreError: as the stores say.
    """
    info = source.info(source_name)
    source_root, target_root = source.local_root(), target.local_root()
    if source_root is not None and target_root is not None and info is not None and info.size == size:
        # Another file system, or one without hard links: then the bytes are copied after all.
        with suppress(OSError):
            _link(source_root / check_object_name(source_name), target_root / check_object_name(target_name))
            return
    data = source.get(source_name, 0, size + 1)
    if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
        raise ObjectMismatchError(problem="the object does not have the bytes of its summary", where=f"{source.url}/{source_name}")
    target.put(target_name, data)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        os.unlink(target)
    os.link(source, target)
