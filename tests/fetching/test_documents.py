"""Documents that several sources have: how much of them a reader holds."""

from __future__ import annotations

import threading
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from random import Random

import pytest

from pipelines.fetching import documents
from pipelines.fetching.documents import DocumentReader
from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.source import Buffer, Cancellation, SourceTraits, WantedObject
from pipelines.fetching.source_account import open_account
from schemas.errors import FetchError, ObjectNotFoundError, TransientStoreError

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


@dataclass(slots=True)
class _ScriptedSource:
    """Gives at each request what comes next: a document, an error, or nothing until the test ends."""

    source_id: str
    answers: list[bytes | Exception | None]
    ends: threading.Event
    traits: SourceTraits = field(default_factory=SourceTraits)
    asked: int = 0

    def stream(self, wanted: WantedObject, start: int, cancelled: Cancellation) -> Iterator[Buffer]:
        """Take the next answer; the last one stays."""
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if answer is None:
            self.ends.wait(60.0)
            return
        if isinstance(answer, Exception):
            raise answer
        yield answer

    def close(self) -> None:
        """Nothing to give back."""


@pytest.fixture
def ends() -> Iterator[threading.Event]:
    """Set when the test ends, so that no source keeps a thread."""
    event = threading.Event()
    yield event
    event.set()


def _reader(*sources: _ScriptedSource) -> DocumentReader:
    limits = FetchLimits(backoff_first_s=20.0)
    return DocumentReader(sources, {one.source_id: open_account(one.source_id, one.traits, limits) for one in sources}, limits, Random(1))


BROKEN = TransientStoreError(problem="broken off")


def test_who_fails_is_not_waited_for_where_what_others_say_is_enough(ends: threading.Event) -> None:
    """Its pause before it is asked again would be everybody's."""
    reader = _reader(_ScriptedSource("fails", [BROKEN], ends), _ScriptedSource("ready", [b"x"], ends))
    began_s = time.monotonic()
    with closing(reader.read_all("a", 8, lambda data: data == b"x")) as offers:
        assert [offer.data for offer in offers] == [b"x"]
    assert time.monotonic() - began_s < 0.9 * documents.HTTP_STRAGGLER_S
    assert reader.accounts["fails"].problems == ["broken off", "no answer in time: a"]


def test_who_was_late_before_is_waited_for_where_what_others_say_is_not_enough(ends: threading.Event) -> None:
    """Two signatures are asked for, and one of the two was slow once: its word counts all the same."""
    second = _ScriptedSource("second", [b"y"], ends)
    reader = _reader(_ScriptedSource("first", [b"x"], ends), second)
    reader.accounts["second"].is_late = True
    heard: list[bytes] = []

    def is_enough(data: bytes) -> bool:
        heard.append(data)
        return len(heard) == 2

    with closing(reader.read_all("a", 8, is_enough)) as offers:
        assert sorted(offer.data for offer in offers) == [b"x", b"y"]


def test_what_is_not_needed_is_not_waited_for_beside_who_says_nothing(ends: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """The honest source says that it has it not; the other one is waited for once, and not at all from then on."""
    monkeypatch.setattr(documents, "HTTP_STRAGGLER_S", 0.3)
    absent = ObjectNotFoundError(problem="it is not there")
    reader = _reader(_ScriptedSource("silent", [None], ends), _ScriptedSource("honest", [absent], ends))
    began_s = time.monotonic()
    for _ in range(20):
        with pytest.raises(FetchError):
            reader.read_judged("a", 8, bytes, is_needed=False)
    assert time.monotonic() - began_s < 10
    assert any("no answer in time" in problem for problem in reader.accounts["silent"].problems)


def test_silent_sources_in_front_cost_a_race_little(ends: threading.Event) -> None:
    """Thirty that say nothing are asked before the one that has it; to ask more while not a byte comes costs nothing."""
    silent = [_ScriptedSource(f"silent {number}", [None], ends) for number in range(30)]
    reader = _reader(*silent, _ScriptedSource("honest", [b"x"], ends))
    began_s = time.monotonic()
    assert reader.read_judged("a", 8, bytes) == ("honest", b"x")
    assert time.monotonic() - began_s < 3 * documents.NEXT_SOURCE_AFTER_S
    assert reader.read_judged("b", 8, bytes) == ("honest", b"x")


def test_a_race_grows_slowly_once_a_byte_has_come(ends: threading.Event) -> None:
    """Each of those that send may have a megabyte under way."""
    asked_s: list[float] = []
    sending = [_SendingSource(str(number), ends, asked_s) for number in range(9)]
    limits = FetchLimits(silent_after_s=0.01)
    reader = DocumentReader(sending, {one.source_id: open_account(one.source_id, one.traits, limits) for one in sending}, limits, Random(1))
    # They go on once the second one is asked.
    assert reader.read_judged("a", 8, bytes)[1] == b"xx"
    assert len(asked_s) == 2 and asked_s[1] - asked_s[0] >= documents.NEXT_SOURCE_AFTER_S


@dataclass(slots=True)
class _SendingSource:
    """Sends one byte, and the other when it is let."""

    source_id: str
    is_let: threading.Event
    asked_s: list[float]
    traits: SourceTraits = field(default_factory=SourceTraits)

    def stream(self, wanted: WantedObject, start: int, cancelled: Cancellation) -> Iterator[Buffer]:
        """Send a byte, then wait for the second source."""
        self.asked_s.append(time.monotonic())
        if len(self.asked_s) > 1:
            self.is_let.set()
        yield b"x"
        self.is_let.wait(60.0)
        yield b"x"

    def close(self) -> None:
        """Nothing to give back."""
