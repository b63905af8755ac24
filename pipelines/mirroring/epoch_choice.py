"""Which epochs are mirrored: the latest one, a range of heights, or all from one on, for as long as the mirror runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from schemas.errors import InvalidInputError

LATEST: Final = "latest"

EPOCHS_MAX: Final = 10_000
"""Most epochs of a range that has an end."""

_FORM = re.compile(r"(?P<low>latest|[0-9]{1,15})(?P<range>\.\.(?P<high>[0-9]{1,15})?)?")


@dataclass(frozen=True, slots=True)
class EpochChoice:
    """The wanted epochs."""

    lowest: int | None
    """None for the latest."""
    highest: int | None
    """Belongs to it; None where it has no end."""
    follows: bool
    """Later epochs are wanted too, as they are published."""

    @property
    def is_latest_alone(self) -> bool:
        """Whether it is the one latest epoch."""
        return self.lowest is None and not self.follows

    @classmethod
    def parse(cls, text: str) -> EpochChoice:
        """Parse ``latest``, ``latest..``, ``2949``, ``2949..2960`` (both ends belong to it) or ``2949..``.

        Raises:
            InvalidInputError: another form, an empty range, or more than `EPOCHS_MAX` epochs.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None or (match["low"] == LATEST and match["high"] is not None):
            raise InvalidInputError(
                problem=f"{text!r:.80} is no choice of epochs",
                where="--epochs",
                remedy="Write latest, latest.., 2949, 2949..2960 or 2949...",
            )
        follows = match["range"] is not None and match["high"] is None
        if match["low"] == LATEST:
            return cls(None, None, follows)
        low = int(match["low"])
        if follows:
            return cls(low, None, follows=True)
        high = int(match["high"] or low)
        if not low <= high < low + EPOCHS_MAX:
            raise InvalidInputError(
                problem=f"a range of epochs has 1 to {EPOCHS_MAX} heights, the lower one first", where=f"--epochs {text.strip()}"
            )
        return cls(low, high, follows=False)
