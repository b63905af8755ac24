"""A mirror's limits, and its log entry of each request. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.errors import InvalidInputError

CONNECTIONS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class MirrorLimits:
    """What a mirror gives. Rates are None where there is none."""

    connections: int = 256
    """Open at once; one more is answered with Retry-After."""
    requests_per_client: int = 32
    """Answers under way to one address; one more is answered with Retry-After."""
    upload_bytes_per_s: float | None = None
    """All clients together."""

    def __post_init__(self) -> None:
        for name in ("connections", "requests_per_client"):
            if not 1 <= getattr(self, name) <= CONNECTIONS_MAX:
                raise InvalidInputError(
                    problem=f"{name.replace('_', ' ')} lie between 1 and {CONNECTIONS_MAX}", where=str(getattr(self, name))
                )
        if self.upload_bytes_per_s is not None and not self.upload_bytes_per_s > 0:
            raise InvalidInputError(problem="a rate limit must be above 0 bytes a second", where=str(self.upload_bytes_per_s))


@dataclass(frozen=True, slots=True)
class Access:
    """One answered request."""

    client: str
    method: str
    path: str
    status: int
    bytes_sent: int
    seconds: float
    range: str
    agent: str
