"""Samples that follow each other read everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.keeping.scrub_sample import SampleWindow, parse_sample_ppm
from schemas.errors import InvalidInputError
from schemas.published.scrub_state import WHOLE_PPM


@given(st.integers(1, 60), st.lists(st.integers(1, WHOLE_PPM), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_successive_samples_cover_every_part(count: int, lengths: list[int], seed: int) -> None:
    """Once their lengths add up to the whole, whatever each of them is."""
    names, start, covered = [f"part {number}" for number in range(count)], 0, 0
    seen: set[str] = set()
    for length in lengths:
        window = SampleWindow(length, start, seed)
        seen |= window.choose(names)
        start, covered = window.next_ppm, covered + length
    assert covered < WHOLE_PPM or seen == set(names)


@given(st.integers(1, 60), st.integers(1, 50))
def test_samples_of_one_round_read_no_part_twice(count: int, rounds: int) -> None:
    """The work is spread evenly: samples differ by one part at most."""
    names, length = [f"part {number}" for number in range(count)], WHOLE_PPM // rounds
    samples = [SampleWindow(length, length * number).choose(names) for number in range(rounds)]
    assert sum(map(len, samples)) == len(set().union(*samples))
    assert max(map(len, samples)) - min(map(len, samples)) <= 1


def test_a_seed_makes_the_order() -> None:
    """The same seed gives the same sample."""
    names = [f"part {number}" for number in range(100)]
    samples = [SampleWindow(WHOLE_PPM // 10, 0, seed).choose(names) for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]
    assert len(samples[0]) == 10


@pytest.mark.parametrize(("text", "ppm"), [("5%", 50_000), ("0.5%", 5_000), ("100%", WHOLE_PPM), (" 12.5% ", 125_000)])
def test_shares_are_read(text: str, ppm: int) -> None:
    """In percent."""
    assert parse_sample_ppm(text, "--sample") == ppm


@pytest.mark.parametrize("text", ["", "5", "0%", "101%", "-5%", "x%", "nan%", "inf%", "%"])
def test_other_shares_are_refused(text: str) -> None:
    """With the option named."""
    with pytest.raises(InvalidInputError, match="--sample"):
        parse_sample_ppm(text, "--sample")
