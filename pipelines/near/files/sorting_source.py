"""What sources have in common whose files are in any order: they are sorted as a whole at first use, in each process that reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from pipelines.near.files.sorted_file import SortedFile, SortedSize, sorted_file, sorted_size, value_batches
from pipelines.near.node.flat_state_source import NO_STATE_HEADER, FlatStateSource, FoundStateHeader
from schemas.nearcore.epoch_context import ShardContext


@dataclass(frozen=True, slots=True)
class SortingSource(FlatStateSource, ABC):
    """Some methods of a `FlatStateSource` over `read`, which adds a file's entries. A file has no headers and no nodes."""

    path: str
    scratch: str | None = field(default=None, kw_only=True)
    """Folder in which a sorted copy is made; None for where temporary files go."""

    @property
    def on_node_disk(self) -> bool:
        """See `FlatStateSource.on_node_disk`."""
        return False

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that are read."""
        return (Path(self.path),)

    @abstractmethod
    def read(self, target: SortedFile) -> None:
        """Add all entries.

        Raises:
            SourceError: a file can't be read, or has what is no record.
        """

    def sorted(self) -> SortedFile:
        """Return the sorted entries; a caller that reads rows of it holds it for as long, since its folder goes with it.

        Raises:
            SourceError: as `read`, or a file changed meanwhile.
        """
        return sorted_file(self.paths, self.read, self.scratch)

    def sorted_size(self) -> SortedSize:
        """Return what the sorted copy takes, about.

        Raises:
            SourceError: a file can't be read.
        """
        return sorted_size(self.paths)

    def values(self, shard: ShardContext, value_hashes: Sequence[bytes], record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield referenced values, in the order asked for.

        Raises:
            ValueMismatchError: no record has such a value.
            SourceError: as `sorted`.
        """
        opened = self.sorted()
        yield from value_batches(opened.values, value_hashes, record_batch_bytes_max, self.path)

    def state_header(self, shard: ShardContext, sync_hash: bytes) -> FoundStateHeader:
        """Have none."""
        return NO_STATE_HEADER

    def root_memory_usage(self, shard: ShardContext) -> int | None:
        """Return None."""
        return None
