"""What is known of a source during one fetch: what it brought, how fast, what went wrong, and whether it is still asked. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.source import SourceTraits

PROBLEMS_KEPT_MAX: Final = 20
"""Most problems of a source that are kept for the report; all are counted."""

RATE_SAMPLE_SHARE: Final = 0.3
"""Weight of the newest sample in a source's measured throughput."""


ABSENCES_FREE: Final = 4
"""Parts that a source which has brought none may lack before it rests."""


@dataclass(slots=True)
class SourceAccount:
    """One source. Times are of the caller's clock, in seconds."""

    source_id: str
    traits: SourceTraits
    connections_max: int
    ranges: bool
    """It was not seen to refuse a range so far."""
    active: int = 0
    """Transfers under way, cancelled ones that have not ended yet among them."""
    parts: int = 0
    """Parts with the right digest."""
    bytes_received: int = 0
    """All bytes, those that were of no use too."""
    bytes_used: int = 0
    """Bytes of parts with the right digest."""
    errors: int = 0
    problems: list[str] = field(default_factory=list)
    rate: float | None = None
    """Bytes a second of one transfer, measured."""
    failures_in_row: int = 0
    failed_s: float = float("-inf")
    """When the last failure was that counted."""
    absences: int = 0
    """Parts that it did not have before it had brought any."""
    denials: int = 0
    is_late: bool = False
    """It had not answered for a document when all others had, and is not waited for again."""
    is_failing: bool = False
    """It failed when it was last asked for a document."""
    races_lost: int = 0
    """Documents that another brought while it was asked: no fault, and others are asked first."""
    rests_until_s: float = 0.0
    banned: str | None = None
    """Why: it served a wrong byte."""
    given_up: str | None = None
    """Why: it failed or refused too often. Not a lie."""

    @property
    def is_out(self) -> bool:
        """Whether it is asked no more in this run."""
        return self.banned is not None or self.given_up is not None

    def is_free(self, now_s: float) -> bool:
        """Whether it can be asked for one more object now."""
        return not self.is_out and self.active < self.connections_max and now_s >= self.rests_until_s

    def note(self, problem: str) -> None:
        """Count a problem and keep it for the report."""
        self.errors += 1
        if len(self.problems) < PROBLEMS_KEPT_MAX and problem not in self.problems:
            self.problems.append(problem)

    def ban(self, problem: str) -> None:
        """Ask it no more: it served a wrong byte."""
        self.note(problem)
        self.banned = self.banned or problem

    def pardon(self) -> None:
        """Ask it again: the manifest by which its bytes were wrong is not followed any more."""
        self.banned = None

    def succeeded(self) -> None:
        """Forget failures: it works."""
        self.failures_in_row = 0

    def failed(self, problem: str, retry_after_s: float, limits: FetchLimits, now_s: float, random: Random, *, began_s: float) -> None:
        """Count a transient fault and let the source rest, longer with each one in a row.

        Args:
            began_s: when the request began. Requests that were under way together fail together, and count as one.
        """
        self.note(problem)
        if began_s >= self.failed_s:
            self.failures_in_row += 1
            self.failed_s = now_s
        if self.failures_in_row >= limits.source_failures_max:
            self.given_up = f"{self.failures_in_row} failures in a row, the last: {problem}"
        pause_s = min(limits.backoff_max_s, limits.backoff_first_s * 2.0 ** (self.failures_in_row - 1))
        # Full pauses would let all connections of a source come back at one moment.
        pause_s *= random.uniform(0.5, 1.0)
        self.rests_until_s = max(self.rests_until_s, now_s + max(pause_s, min(retry_after_s, limits.retry_after_max_s)))

    def lacked(self, problem: str, limits: FetchLimits, now_s: float) -> None:
        """Count an object that it does not have. One that has brought nothing so far is asked ever more rarely."""
        self.note(problem)
        self.absences += 1
        if self.parts == 0 and self.absences >= ABSENCES_FREE:
            pause_s = limits.backoff_first_s * 2.0 ** min(self.absences - ABSENCES_FREE, 30)
            self.rests_until_s = max(self.rests_until_s, now_s + min(limits.backoff_max_s, pause_s))

    def denied(self, problem: str, limits: FetchLimits) -> None:
        """Count a refusal."""
        self.note(problem)
        self.denials += 1
        if self.denials >= limits.source_denials_max:
            self.given_up = f"it refused {self.denials} objects, the last: {problem}"

    def measured(self, bytes_per_s: float) -> None:
        """Take a sample of one transfer's throughput into the average."""
        self.rate = bytes_per_s if self.rate is None else (1 - RATE_SAMPLE_SHARE) * self.rate + RATE_SAMPLE_SHARE * bytes_per_s


def open_account(source_id: str, traits: SourceTraits, limits: FetchLimits) -> SourceAccount:
    """Return the account of a source that was not asked yet."""
    connections_max = limits.connections_per_source
    if traits.connections_max is not None:
        connections_max = min(connections_max, traits.connections_max)
    return SourceAccount(source_id, traits, connections_max, traits.ranges)
