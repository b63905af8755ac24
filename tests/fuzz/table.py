"""All decoders. `test_decoders.py` notices one that is not here."""

from __future__ import annotations

from functools import lru_cache

from tests.fuzz import files, http_answers, nearcore, peers, published
from tests.fuzz.decoder import Decoder


@lru_cache
def decoders() -> dict[str, Decoder]:
    """Return the table by name."""
    table = (*published.decoders(), *nearcore.decoders(), *peers.decoders(), *files.decoders(), *http_answers.decoders())
    assert len({decoder.name for decoder in table}) == len(table)
    return {decoder.name: decoder for decoder in table}
