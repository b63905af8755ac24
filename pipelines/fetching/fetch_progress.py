"""Progress of a fetch, for observers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SourceProgress:
    """One source at one moment."""

    source_id: str
    parts: int
    bytes_received: int
    bytes_per_s: float
    """Over the last seconds."""
    active: int
    errors: int
    state: str
    """``active``, ``idle``, ``resting``, ``banned`` or ``given up``."""


@dataclass(frozen=True, slots=True)
class FetchProgress:
    """A fetch at one moment."""

    parts_done: int
    """Verified and under their final names, those that were here before too."""
    parts_total: int
    bytes_done: int
    """Of parts that are done."""
    bytes_total: int
    bytes_received: int
    """In this run, those of unfinished and useless transfers too."""
    bytes_per_s: float
    """Over the last seconds, all sources together."""
    elapsed_s: float
    left_s: float | None
    """Estimate; None while nothing can be said."""
    sources: tuple[SourceProgress, ...]


class FetchWatcher(Protocol):
    """Hears of a fetch."""

    def progress(self, progress: FetchProgress) -> None:
        """Take note of where it stands; called a few times a second."""
        ...

    def event(self, name: str, facts: dict[str, object]) -> None:
        """Take note of something that happened.

        Names and facts: ``part`` (object, source, bytes: verified and in place), ``reused`` (parts, bytes), ``rebuilt`` (shard_id, parts, bytes, delta_bytes),
        ``attempt_failed`` (object,
        source, problem), ``banned`` (source, problem), ``given_up`` (source, problem), ``hedged`` (object, source), ``note`` (text),
        ``lease`` (source, state, problem); of a mirror also ``epoch`` (epoch, number, epochs: begun), ``delta``
        (shard_id, base_epoch_height, objects, bytes: in place) and ``epoch_done`` (what became of it).
        """
        ...
