"""The peer of nearcore's network beside a seeder."""

from __future__ import annotations

from pipelines.seeding.peer_service import event_words


def test_an_answer_is_told_by_what_was_asked_for() -> None:
    """A header is no part."""
    assert event_words("answered", {"shard": 2, "part": None, "bytes": 5}) == "answered: shard 2, header, bytes 5"
    assert event_words("answered", {"shard": 2, "part": 0, "bytes": 5}) == "answered: shard 2, part 0, bytes 5"
