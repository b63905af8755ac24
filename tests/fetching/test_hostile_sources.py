"""Fetches from one honest source beside hostile ones: the right files, in bounded time, and each source named with its fault."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.fetching import documents
from pipelines.fetching.fetch_result import FetchResult, SourceReport
from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.schedule import FailureKind
from pipelines.fetching.source import WantedObject
from pipelines.fetching.source_from_url import open_source
from pipelines.fetching.throttle import Throttle
from pipelines.fetching.transfer import failure_of
from schemas.errors import FetchError, StoreError, TransientStoreError
from tests.support.commands import statecast_process
from tests.support.fetches import (
    fetch,
    missing_names,
    parts_manifest,
    published_parts,
    settings_for,
    temporary_names,
    wrong_final_names,
)
from tests.support.hostile_server import KINDS, WHERES, HostileServer, hostile_server
from tests.support.published import public_key

IMPATIENT = FetchLimits(
    backoff_first_s=0.05,
    backoff_max_s=0.4,
    retry_after_max_s=0.3,
    source_timeout_s=5.0,
    stall_s=4.0,
    unproven_after_s=0.5,
    unproven_after_min_s=0.5,
    silent_after_s=0.3,
)
SMALL_FETCH_WAIT_S = 4.0
"""Most that a fetch of hardly any bytes waits, beside what the machine needs for 64 sources."""

HARMLESS = ("bad-length", "absent")
"""What HTTP has a meaning for that keeps the bytes right, and what is no fault: a source need not have everything."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileServer]:
    """One server for all sources."""
    with hostile_server(published_parts(), tmp_path_factory.mktemp("hostile") / "log") as running:
        yield running


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents are waited for as long as a test can."""
    monkeypatch.setattr(documents, "HTTP_STRAGGLER_S", 0.5)
    monkeypatch.setattr(documents, "NEXT_SOURCE_AFTER_S", 0.3)


def _reports(result: FetchResult) -> dict[str, SourceReport]:
    return {report.source_id: report for report in result.sources}


@pytest.mark.usefixtures("impatient")
def test_one_of_each_kind_beside_an_honest_source(server: HostileServer, tmp_path: Path) -> None:
    """One shard, in the time that the machine needs; each source that was asked for what it does not serve honestly is named."""
    wheres = list(WHERES)
    hostile = [server.url(kind, wheres[number % 4], number) for number, kind in enumerate(KINDS)]
    into = tmp_path / "into"
    began_s = time.monotonic()
    honest = server.url("honest")
    result = fetch(settings_for(into, hostile[0], *hostile[1:20], honest, *hostile[20:], shard_ids=(1,), limits=IMPATIENT))
    assert time.monotonic() - began_s < 60
    assert wrong_final_names(into, published_parts()) == [] and missing_names(into, published_parts(), (1,)) == []
    assert temporary_names(into) == []
    reports = _reports(result)
    for url, kind in zip(hostile, KINDS, strict=True):
        if "/all/" in url and kind not in HARMLESS:
            assert reports[url].errors and reports[url].parts == 0, url
    assert reports[honest].errors == 0


@pytest.mark.parametrize("kind", ["bad-location", "bad-retry-after", "far-retry-after"])
def test_words_from_outside_end_no_fetch(kind: str, server: HostileServer, tmp_path: Path) -> None:
    """Alone, such a source ends it with the error of a fetch, which names it."""
    with pytest.raises(FetchError) as caught:
        fetch(settings_for(tmp_path / "into", server.url(kind, "parts"), shard_ids=(1,), limits=replace(IMPATIENT, attempts_max=1)))
    assert kind in str(caught.value) and "unexpected" not in str(caught.value)


class Raising:
    """A source that raises what it is told to."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.inner = open_source(str(published_parts()), Throttle([]))

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    source_id = "raising"

    def stream(self, wanted: WantedObject, *arguments: object) -> object:
        """Raise it."""
        raise self.error


@pytest.mark.parametrize("error", [ValueError("²"), AssertionError(), RecursionError(), KeyError("ETag"), UnicodeError("x"), EOFError()])
def test_every_exception_out_of_a_source_is_its_fault(error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of documents and of parts: another source serves them."""

    def opened(url: str, *arguments: object, **named: object) -> object:
        return Raising(error) if url == "raising" else open_source(url, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("pipelines.fetching.believed_epoch.open_source", opened)
    result = fetch(settings_for(tmp_path / "into", "raising", published_parts(), shard_ids=(1,)))
    report = _reports(result)["raising"]
    assert report.errors and any(type(error).__name__ in problem for problem in report.problems)
    assert missing_names(tmp_path / "into", published_parts(), (1,)) == []


def test_memory_that_runs_out_is_this_machines_fault() -> None:
    """Asking another source would not help."""
    with pytest.raises(MemoryError):
        failure_of(MemoryError())
    assert failure_of(TransientStoreError(problem="x", retry_after_s=2.0)) == (FailureKind.TRANSIENT, "x", 2.0)
    assert failure_of(StoreError(problem="x"))[0] is FailureKind.ABSENT


@pytest.mark.slow
@pytest.mark.parametrize("where", list(WHERES))
def test_sixty_three_hostile_sources_cost_at_most_as_much_again(server: HostileServer, where: str, tmp_path: Path) -> None:
    """Beside one that sends at the rate of a line, so that there is something to compare with."""
    rate = sum(part.size for shard in parts_manifest().shards for part in shard.parts) / 12
    limits = replace(FetchLimits(), bytes_per_s_per_source=None)
    alone = server.url("honest-slow", "parts", int(rate))
    began_s = time.monotonic()
    fetch(settings_for(tmp_path / "alone", alone, limits=limits))
    alone_s = time.monotonic() - began_s
    hostile = [server.url(KINDS[number % len(KINDS)], where, number) for number in range(63)]
    began_s = time.monotonic()
    result = fetch(settings_for(tmp_path / "into", hostile[0], *hostile[1:40], alone, *hostile[40:], limits=limits))
    seconds = time.monotonic() - began_s
    print(f"a fetch of {alone_s:.1f} s takes {seconds:.1f} s beside 63 hostile sources, {seconds / alone_s:.2f} times as long ({where})")
    assert wrong_final_names(tmp_path / "into", published_parts()) == [] and missing_names(tmp_path / "into", published_parts()) == []
    assert seconds <= 2 * alone_s, (seconds, alone_s)
    if where == "all":
        reports = _reports(result)
        assert [url for url in hostile if not reports[url].errors and not any(kind in url for kind in HARMLESS)] == []


@pytest.mark.slow
@pytest.mark.parametrize("where", list(WHERES))
def test_a_small_fetch_waits_little_for_hostile_sources(server: HostileServer, where: str, tmp_path: Path) -> None:
    """As a command, whose start is most of it alone: what is waited for is the pointer, of which nobody can tell which is the newest."""
    trust = ("--trust-key", public_key(), "--chain-id", parts_manifest().chain_id, "--no-lease", "--verify-workers", 1, "--json")
    seconds = {}
    hostile = [server.url(KINDS[number % len(KINDS)], where, number) for number in range(63)]
    for name, urls in {"alone": [server.url("honest")], "beside": [*hostile[:40], server.url("honest"), *hostile[40:]]}.items():
        more = [word for url in urls[1:] for word in ("--source", url)]
        began_s = time.monotonic()
        outcome = statecast_process("fetch", urls[0], *more, "--into", tmp_path / name, *trust)
        seconds[name] = time.monotonic() - began_s
        assert outcome.code == 0, outcome.stderr
        assert missing_names(tmp_path / name, published_parts()) == []
    ratio = seconds["beside"] / seconds["alone"]
    print(
        f"a command of {seconds['alone']:.1f} s takes {seconds['beside']:.1f} s beside 63 hostile sources, {ratio:.2f} times as long ({where})"
    )
    assert seconds["beside"] < 2 * seconds["alone"] + SMALL_FETCH_WAIT_S


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["continue-trickle", "body-trickle"])
def test_a_source_that_holds_headers_back_is_waited_for_once(kind: str, server: HostileServer, tmp_path: Path) -> None:
    """Of four shards' headers the first alone costs the time that the next source is asked after, and the source is named."""
    slow = server.url(kind, "headers")
    before = len(server.requests)
    result = fetch(settings_for(tmp_path / "into", slow, server.url("honest"), limits=IMPATIENT))
    asked = [path for path in server.requests[before:] if path.startswith(f"/{kind}/") and "/headers/shard" in path]
    assert len(asked) == 1
    assert any("no answer in time: header" in problem for problem in _reports(result)[slow].problems)
