"""nearcore's order of sources, and what weights make of it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipelines.fetching.preference import priority_score, weighted_score

SOURCES = ["a", "b", "c", "d"]


@given(st.integers(0, 2**32), st.integers(0, 100_000), st.floats(0.01, 1e9))
def test_equal_weights_keep_the_order_of_the_hashes(shard_id: int, part_id: int, weight: float) -> None:
    """Whatever the weight, as long as all have the same."""
    scores = {source: priority_score(source, shard_id, part_id) for source in SOURCES}
    by_hash = sorted(SOURCES, key=lambda source: scores[source])
    assert by_hash == sorted(SOURCES, key=lambda source: weighted_score(scores[source], weight))


def test_parts_spread_over_sources_in_proportion_to_weights() -> None:
    """A source three times as fast comes first three times as often."""
    first = Counter(
        min(("slow", "fast"), key=lambda source: weighted_score(priority_score(source, 0, part_id), 3.0 if source == "fast" else 1.0))
        for part_id in range(4000)
    )
    assert 0.72 < first["fast"] / 4000 < 0.78


def test_the_hash_has_every_field() -> None:
    """Source, shard and part each change it."""
    scores = {priority_score("a", 1, 2), priority_score("b", 1, 2), priority_score("a", 2, 2), priority_score("a", 1, 3)}
    assert len(scores) == 4
