"""Which parts a node's neard has said it loaded, so that a rerun asks for the others alone.

A journal belongs to one database (its IDENTITY), epoch and set of parts; another one begins again. A part whose load was cut off is
asked for again. That it may then be applied twice does no harm that a node notices: flat state is the same, and reference counts come
out too high, never too low, so some rows will outlive their use.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipelines.near.node.node_home import IDENTITY_BYTES_MAX
from pipelines.stores.regular_file import read_regular
from schemas.errors import StoreError
from schemas.json_note import read_note

JOURNAL_BYTES_MAX: Final = 64 << 20
"""Largest journal that is read: some bytes a part."""


@dataclass(slots=True)
class LoadJournal:
    """The parts that are loaded, by shard id; each note is on disk when `note` returns."""

    path: Path
    loaded: dict[int, set[int]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, data: Path, facts: Sequence[Any]) -> LoadJournal:
        """Read the journal of a database and what is to be loaded into it, or begin one.

        Args:
            folder: where journals lie.
            data: the node's database.
            facts: what is loaded, as JSON values: epoch, sync hash, roots, numbers of parts.
        """
        try:
            identity = read_regular(data / "IDENTITY", IDENTITY_BYTES_MAX).decode()
        except (OSError, ValueError):
            identity = ""
        digest = hashlib.sha256(json.dumps([os.path.realpath(data), identity, *facts]).encode()).hexdigest()[:24]
        journal = cls(folder / f"{digest}.json")
        with contextlib.suppress(OSError):
            journal.loaded = read_note(read_regular(journal.path, JOURNAL_BYTES_MAX), _loaded) or {}
        return journal

    def note(self, shard_id: int, part: int) -> None:
        """Write down that a part is loaded.

        Raises:
            StoreError: the journal can't be written.
        """
        self.loaded.setdefault(shard_id, set()).add(part)
        unfinished = self.path.with_name(self.path.name + ".unfinished")
        document = {"loaded": {str(shard): sorted(parts) for shard, parts in sorted(self.loaded.items())}}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("w") as file:
                json.dump(document, file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self.path)
        except OSError as error:
            raise StoreError(problem=f"the journal can't be written: {error.strerror}", where=str(self.path)) from error

    def left(self, shard_id: int, num_parts: int) -> list[int]:
        """Return the parts of a shard that are not loaded, ascending."""
        return sorted(set(range(num_parts)) - self.loaded.get(shard_id, set()))


def _loaded(document: dict[str, Any]) -> dict[int, set[int]]:
    return {int(shard): {int(part) for part in parts} for shard, parts in document["loaded"].items()}
