"""Plan and result of a fetch: values for the command line and for programs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pipelines.fetching.believed_epoch import BelievedShard
from pipelines.fetching.fetch_part import FetchPart
from pipelines.fetching.part_rebuilding import RebuildWay
from pipelines.fetching.source_account import SourceAccount
from schemas.published.object_layout import EpochLayout


@dataclass(frozen=True, slots=True)
class FetchShard:
    """One shard of a fetch: in a plan what would be fetched of it, in a result what was."""

    believed: BelievedShard
    here: tuple[FetchPart, ...]
    """Parts that were here before, and right."""
    missing: tuple[FetchPart, ...]
    """All others: a finished fetch has brought them."""
    rebuilt: tuple[FetchPart, ...] = ()
    """Those of the missing parts that were not fetched but rebuilt."""
    way: RebuildWay | None = None
    """How missing parts are rebuilt, where that takes fewer bytes than to fetch them."""

    @classmethod
    def of(cls, believed: BelievedShard, here: Collection[str], rebuilt: Collection[str] = (), way: RebuildWay | None = None) -> FetchShard:
        """Return a shard of which some parts are here.

        Args:
            here, rebuilt: object names.
        """
        parts = believed.parts
        present = tuple(part for part in parts if part.object_name in here)
        missing = tuple(part for part in parts if part.object_name not in here)
        return cls(believed, present, missing, tuple(part for part in missing if part.object_name in rebuilt), way)

    @property
    def fetched(self) -> tuple[FetchPart, ...]:
        """Missing parts that are fetched whole, or were."""
        made = {part.object_name for part in self.rebuilt}
        return tuple(part for part in self.missing if part.object_name not in made)

    @property
    def signers(self) -> tuple[str, ...]:
        """Trusted keys that signed the shard's statement."""
        return tuple(map(str, self.believed.statement.signers))


@dataclass(frozen=True, slots=True)
class PlannedSource:
    """What would be asked of one source first."""

    source_id: str
    parts: int
    size: int


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """What a fetch would do."""

    layout: EpochLayout
    revision: int
    shards: tuple[FetchShard, ...]
    sources: tuple[PlannedSource, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What came from one source."""

    source_id: str
    parts: int
    bytes_used: int
    bytes_received: int
    errors: int
    problems: tuple[str, ...]
    banned: str | None
    given_up: str | None


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The result of a fetch."""

    layout: EpochLayout
    revision: int
    manifest_source: str
    manifest_signers: tuple[str, ...]
    sync_hash_is_proven: bool
    tied_to_chain: bool
    """A trusted block vouches for the shards' state roots."""
    shards: tuple[FetchShard, ...]
    sources: tuple[SourceReport, ...]
    warnings: tuple[str, ...]
    seconds: float


def report_source(account: SourceAccount) -> SourceReport:
    """Return the report of one source."""
    return SourceReport(
        account.source_id,
        account.parts,
        account.bytes_used,
        account.bytes_received,
        account.errors,
        tuple(account.problems),
        account.banned,
        account.given_up,
    )
