"""Which parts of an epoch a scrub reads: all, or the next stretch of them in an order that a seed makes. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from schemas.errors import InvalidInputError
from schemas.published.scrub_state import SEED_MAX, WHOLE_PPM


@dataclass(frozen=True, slots=True)
class SampleWindow:
    """A stretch of an epoch's parts. Stretches that follow each other cover every part once a round, however few parts there are."""

    length_ppm: int
    """How much of the epoch, in millionths; `WHOLE_PPM` for all."""
    start_ppm: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.length_ppm <= WHOLE_PPM or not 0 <= self.start_ppm < WHOLE_PPM or not 0 <= self.seed <= SEED_MAX:
            raise InvalidInputError(
                problem="a sample is more than 0% and at most 100%, its seed a number below 2^32", where=f"{self.length_ppm / 10_000:g}%"
            )

    @property
    def is_full(self) -> bool:
        """Whether every part is read."""
        return self.length_ppm == WHOLE_PPM

    @property
    def next_ppm(self) -> int:
        """Where the sample after this one begins."""
        return (self.start_ppm + self.length_ppm) % WHOLE_PPM

    @property
    def description(self) -> str:
        """The stretch in words."""
        if self.is_full:
            return "every part"
        return f"{self.length_ppm / 10_000:g}% of the parts, from {self.start_ppm / 10_000:g}% on in the order of seed {self.seed}"

    def choose(self, names: Iterable[str]) -> frozenset[str]:
        """Return the names within the stretch."""
        ordered = sorted(names, key=lambda name: (hashlib.sha256(f"{self.seed} {name}".encode()).digest(), name))
        return frozenset(name for rank, name in enumerate(ordered) if self._covers(rank * WHOLE_PPM // len(ordered)))

    def _covers(self, position_ppm: int) -> bool:
        return (position_ppm - self.start_ppm) % WHOLE_PPM < self.length_ppm


def parse_sample_ppm(text: str, option: str) -> int:
    """Parse a share such as ``5%`` or ``0.5%``.

    Raises:
        InvalidInputError: another form, nothing, or more than all.
    """
    number = text.strip().removesuffix("%")
    try:
        ppm = round(float(number) * 10_000) if text.strip().endswith("%") else 0
    except (ValueError, OverflowError):
        ppm = 0
    if not 1 <= ppm <= WHOLE_PPM:
        raise InvalidInputError(problem=f"{text!r} is no share of the parts", where=option, remedy="Write 5% or 0.5%.")
    return ppm
