"""What a fetch would do and what it came to: values for the command line and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.fetching.source_account import SourceAccount
from schemas.published.object_layout import EpochLayout


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """What is to be fetched of one shard."""

    shard_id: int
    state_root: str
    num_parts: int
    size: int
    """Stored bytes of all parts."""
    parts_here: int
    bytes_here: int
    signers: tuple[str, ...]


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
    shards: tuple[PlannedShard, ...]
    sources: tuple[PlannedSource, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FetchedShard:
    """What became of one shard."""

    shard_id: int
    state_root: str
    num_parts: int
    size: int
    parts_fetched: int
    parts_reused: int
    signers: tuple[str, ...]
    tied_to_chain: bool
    has_header: bool


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
    """What a fetch came to."""

    layout: EpochLayout
    folder: Path
    """The epoch's folder."""
    revision: int
    manifest_source: str
    manifest_signers: tuple[str, ...]
    sync_hash_is_proven: bool
    shards: tuple[FetchedShard, ...]
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
