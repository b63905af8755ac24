"""How much a fetch may ask of its sources and of this machine, and when it loses patience. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipelines.bucket.lease_keeper import END_WAIT_S
from pipelines.fetching.source import SOURCE_TIMEOUT_S
from schemas.errors import InvalidInputError

SOURCES_MAX: Final = 64
"""Most sources of a fetch, the manifest's mirrors among them."""

CONNECTIONS_MAX: Final = 256
"""Most connections that can be asked for."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """The limits of one fetch. Rates are None where there is none."""

    connections: int = 16
    """Most transfers that move at once, all sources together; one that stalled counts at its source alone."""
    connections_per_source: int = 4
    bytes_per_s: float | None = None
    """All sources together."""
    bytes_per_s_per_source: float | None = None
    requests_per_s: float | None = None
    requests_per_s_per_source: float | None = None
    parts_in_flight: int = 32
    """Most parts that are being transferred or wait for verification: bounds temporary files and memory."""

    source_timeout_s: float = SOURCE_TIMEOUT_S
    """Longest wait for one answer or one buffer, where a source takes it."""
    attempts_max: int = 5
    """Attempts at one part from one source that brought no bytes forward, before it is not asked for that part again."""
    resumes_max: int = 64
    """Attempts at one part from one source in all, those that brought some bytes forward too."""
    source_failures_max: int = 12
    """Failures of a source in a row, whatever the part, before it is given up for this run."""
    source_denials_max: int = 3
    """Parts that a source may refuse to give before it is given up for this run."""
    backoff_first_s: float = 0.5
    """Pause of a source after its first failure; it doubles with each further one in a row."""
    backoff_max_s: float = 20.0
    retry_after_max_s: float = 60.0
    """A server that asks to be left alone for longer than this is asked again after this."""

    lease_end_wait_s: float = END_WAIT_S
    """How long the end of a fetch waits for its leases to be removed."""

    silent_after_s: float = 0.25
    """A race for a document in which not a byte has come yet is entered by more sources after so long: to ask them costs nothing then."""
    stall_s: float = 8.0
    """A transfer that brought nothing for so long is hedged."""
    hedge_after_s: float = 2.0
    """No transfer younger than this is hedged for being slow."""
    unproven_after_s: float = 1.0
    """A transfer of this age, from a source that has brought no part yet, waits in nobody's way while it is slow."""
    unproven_after_min_s: float = 0.2
    """The same where other sources bring a part in much less time: four times that, but not less than this."""
    hedge_gain_min: float = 2.0
    """A slow transfer is hedged when another source should be done with the whole part this many times sooner."""

    @property
    def has_rates(self) -> bool:
        """Whether bytes or requests are limited."""
        rates = (self.bytes_per_s, self.bytes_per_s_per_source, self.requests_per_s, self.requests_per_s_per_source)
        return any(rate is not None for rate in rates)

    def __post_init__(self) -> None:
        for name in ("connections", "connections_per_source", "parts_in_flight"):
            if not 1 <= getattr(self, name) <= CONNECTIONS_MAX:
                raise InvalidInputError(
                    problem=f"{name.replace('_', ' ')} lie between 1 and {CONNECTIONS_MAX}", where=str(getattr(self, name))
                )
        for name in ("bytes_per_s", "bytes_per_s_per_source", "requests_per_s", "requests_per_s_per_source"):
            rate = getattr(self, name)
            if rate is not None and not rate > 0:
                raise InvalidInputError(problem=f"the limit {name} must be above 0", where=str(rate))
