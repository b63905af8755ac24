"""What options of several commands are parsed to."""

from __future__ import annotations

import pytest

from jobs.options import parse_duration_s
from schemas.errors import InvalidInputError


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("1.5m", 90), ("2 H", 7200), ("36500d", 36_500 * 86_400)])
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    """Seconds, minutes, hours or days."""
    assert parse_duration_s(text, "--poll") == seconds


@pytest.mark.parametrize("text", ["", "10", "0s", "-1s", "1w", "nan", "36501d", "999999999d"])
def test_other_durations_are_refused(text: str) -> None:
    """Also those that no timer and no calendar can hold."""
    with pytest.raises(InvalidInputError, match="--poll"):
        parse_duration_s(text, "--poll")
