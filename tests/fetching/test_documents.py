"""Documents that several sources have: how much of them a reader holds."""

from __future__ import annotations

import threading
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from random import Random

from pipelines.fetching.documents import DocumentReader
from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.source import Buffer, Cancellation, SourceTraits, WantedObject
from pipelines.fetching.source_account import open_account

SIZE = 4 << 20
SOURCES = 8


@dataclass(frozen=True, slots=True)
class _Source:
    """Has another long document than all others."""

    source_id: str
    traits: SourceTraits = field(default_factory=SourceTraits)

    def stream(self, wanted: WantedObject, start: int, cancelled: Cancellation) -> Iterator[Buffer]:
        """Yield it in pieces."""
        for _ in range(SIZE >> 16):
            yield self.source_id.encode() * (1 << 16)

    def close(self) -> None:
        """Nothing to give back."""


def test_what_sources_offer_is_held_one_after_the_other() -> None:
    """However many there are, and each as often as it is gone through."""
    sources = [_Source(str(number)) for number in range(SOURCES)]
    limits = FetchLimits()
    reader = DocumentReader(
        sources, {source.source_id: open_account(source.source_id, source.traits, limits) for source in sources}, limits, Random()
    )
    tracemalloc.start()
    try:
        with closing(reader.read_all("chain_id=c/latest.json", SIZE)) as offers:
            for _ in range(2):
                assert [(offer.source_id, offer.data[:1], len(offer.data)) for offer in offers] == [
                    (source.source_id, source.source_id.encode(), SIZE) for source in sources
                ]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Each of the threads that ask holds a piece.
    assert peak < 3 * SIZE + SOURCES * (1 << 20)


@dataclass(frozen=True, slots=True)
class _HeldSource:
    """Has a document, and gives it when it is let."""

    source_id: str
    is_let: threading.Event
    traits: SourceTraits = field(default_factory=SourceTraits)

    def stream(self, wanted: WantedObject, start: int, cancelled: Cancellation) -> Iterator[Buffer]:
        """Wait, then yield all of it."""
        assert self.is_let.wait(30.0)
        yield self.source_id.encode()

    def close(self) -> None:
        """Nothing to give back."""


def test_an_answer_that_comes_while_another_is_judged_is_closed() -> None:
    """Its file does not stay open until the collector comes by."""
    late, ready = threading.Event(), threading.Event()
    ready.set()
    sources = [_HeldSource("late", late), _HeldSource("ready", ready)]
    limits = FetchLimits()
    reader = DocumentReader(
        sources, {source.source_id: open_account(source.source_id, source.traits, limits) for source in sources}, limits, Random()
    )

    def judge(document: bytes) -> bytes:
        late.set()
        for thread in threading.enumerate():
            if thread.name == "document-late":
                thread.join(30.0)
        return document

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert reader.read_judged("a", 8, judge) == ("ready", b"ready")
    assert [str(warning.message) for warning in seen] == []
