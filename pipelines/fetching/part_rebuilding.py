"""What a fetch asks of a rebuilder of parts out of an older state and deltas: values and protocols, nothing done.

Rebuilding is a producer's work, so it is done elsewhere (`pipelines.producing.rebuild`) and given to the fetch, which chooses, brings the
deltas, and lands what comes back. Nothing of it is believed: a part that is rebuilt has the bytes that the manifest says, or is fetched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pipelines.fetching.documents import DocumentReader
from pipelines.fetching.epoch_target import HeldPart
from pipelines.fetching.fetch_part import FetchPart
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout
from schemas.published.shard_statement import ShardStatement

THIN_BYTES_RATIO: Final = 16
"""Where whole parts are not there, base and deltas may cost this many times the shard. That they are not there is nobody's signed word."""


@dataclass(frozen=True, slots=True)
class WantedShard:
    """A shard of which parts are missing."""

    manifest: Manifest
    statement: ShardStatement
    missing: tuple[FetchPart, ...]
    """Ascending; at least one."""
    is_thin: bool = False
    """By the sources' catalogue the parts are not there whole."""

    @property
    def layout(self) -> EpochLayout:
        """The epoch's."""
        return self.manifest.layout

    @property
    def missing_size(self) -> int:
        """Stored bytes of the missing parts: what they cost whole; many times the shard's bytes where they can't be had so."""
        if self.is_thin:
            return THIN_BYTES_RATIO * sum(part.decoded_size for part in self.statement.parts)
        return sum(part.size for part in self.missing)


@dataclass(frozen=True, slots=True)
class RebuildStep:
    """One delta of a way."""

    base_epoch_height: int
    epoch_height: int
    size: int
    """Stored bytes of its objects."""


@dataclass(frozen=True, slots=True)
class RebuildWay:
    """How a shard's missing parts are had for fewer bytes than whole."""

    base: str
    """Where the base's records are, for people."""
    steps: tuple[RebuildStep, ...]
    """From the base to the wanted epoch; none where nothing changed since."""

    @property
    def size(self) -> int:
        """Bytes of all deltas."""
        return sum(step.size for step in self.steps)


class RebuildingShard(Protocol):
    """The rebuilding of one shard, its deltas already brought."""

    def build(self) -> Collection[int]:
        """Build what can be; return the ids of the parts that can't, which the fetch then brings whole.

        Raises:
            StatecastError: nothing can be rebuilt.
        """
        ...

    def finish(self, whole: Mapping[int, HeldPart]) -> Mapping[int, Path]:
        """Return files that hold the parts' published bytes, by part id; parts that come out in other bytes are left out.

        Args:
            whole: the parts that `build` could not build, in place now, by part id.
        Raises:
            StatecastError: nothing can be rebuilt.
        """
        ...


class PartRebuilder(Protocol):
    """Rebuilds parts out of a base."""

    def find_way(self, wanted: WantedShard, reader: DocumentReader) -> tuple[RebuildWay | None, str]:
        """Return the cheapest way to a shard's missing parts, and what there is to be told: why there is none, or nothing."""
        ...

    def find_other_way(self, wanted: WantedShard, reader: DocumentReader) -> RebuildWay | None:
        """Return the next way, once the one that was found has led nowhere and no trusted key had signed it; None where there is none."""
        ...

    def open(self, wanted: WantedShard, reader: DocumentReader, scratch: Path) -> RebuildingShard:
        """Bring the deltas of the way that was found.

        Args:
            scratch: a folder on the disk of the fetch; emptied after it.
        Raises:
            StatecastError: the statement of a delta can't be had or is wrong, or the deltas don't lead there.
        """
        ...
