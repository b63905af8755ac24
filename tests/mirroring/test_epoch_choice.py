"""How wanted epochs are written."""

from __future__ import annotations

import pytest

from pipelines.mirroring.epoch_choice import EpochChoice
from schemas.errors import InvalidInputError


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("latest", EpochChoice(None, None, follows=False)),
        ("latest..", EpochChoice(None, None, follows=True)),
        ("2949", EpochChoice(2949, 2949, follows=False)),
        (" 2949..2960 ", EpochChoice(2949, 2960, follows=False)),
        ("2949..", EpochChoice(2949, None, follows=True)),
    ],
)
def test_every_form_is_read(text: str, choice: EpochChoice) -> None:
    """Both ends belong to a range."""
    assert EpochChoice.parse(text) == choice


@pytest.mark.parametrize("text", ["", "..", "..5", "5..4", "latest..7", "newest", "-1", "1...3", "1..2..3", "0..10000", "٣", "9" * 40])
def test_anything_else_is_refused(text: str) -> None:
    """Also a range that has no epoch, or too many."""
    with pytest.raises(InvalidInputError):
        EpochChoice.parse(text)
