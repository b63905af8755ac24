"""The figures of a run as values: what produce prints and what ``--json`` gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class StageFigure:
    """One stage's time, and its floor's."""

    stage: str
    seconds: float
    records: int
    """Records that this many seconds were spent on."""
    size: int
    """Bytes of the same."""
    size_of: str
    """What ``size`` counts."""
    floor_seconds: float | None = None
    floor: str = ""
    """What the floor is; empty where there is none."""

    @property
    def ns_per_record(self) -> float:
        """Nanoseconds a record."""
        return self.seconds / self.records * 1e9

    @property
    def mb_per_s(self) -> float:
        """Megabytes (10^6 bytes) a second."""
        return self.size / self.seconds / 1e6

    @property
    def ratio(self) -> float | None:
        """How many times its floor's time the stage took."""
        return None if self.floor_seconds is None else self.seconds / self.floor_seconds

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "ns_per_record": self.ns_per_record, "mb_per_s": self.mb_per_s, "ratio": self.ratio}


@dataclass(frozen=True, slots=True)
class MemoryFigure:
    """A stage's worker at one size of state."""

    stage: str
    records: int
    bytes_above_idle: int
    """Most resident bytes of a process that ran all of the stage's tasks, less those before the first."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One pass over bytes, in one stage."""

    stage: str
    kind: str
    """``read``, ``copied``, ``hashed``, ``compressed``, ``decompressed``, ``compared`` or ``written``."""
    what: str
    bytes_per_record: float
    times: float
    """To the bytes that come from the node's database."""
    reason: str


@dataclass(frozen=True, slots=True)
class ScalingFigure:
    """One whole run on Ray."""

    cores: int
    seconds: float
    stages: dict[str, float]
    hash_mb_per_s: float
    """What this many processes that only hash reach together: what the machine itself has to give."""


@dataclass(frozen=True, slots=True)
class Target:
    """One target and how it came out."""

    name: str
    wanted: str
    measured: str
    met: bool


@dataclass(slots=True)
class Results:
    """All figures of a run."""

    records: int
    parts: int
    memory_usage: int
    largest_part_bytes: int
    stages: list[StageFigure]
    memory: list[MemoryFigure] = field(default_factory=list)
    ledger: list[LedgerRow] = field(default_factory=list)
    scaling: list[ScalingFigure] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "stages": [figure.to_json() for figure in self.stages]}
