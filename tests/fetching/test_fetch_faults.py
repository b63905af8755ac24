"""Whole fetches over real parts and servers of their own process that misbehave: the right files or a typed error, nothing between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from schemas.errors import FetchError
from tests.support.fault_server import fault_server
from tests.support.fetches import (
    NUM_PARTS,
    QUICK,
    Recorder,
    fetch,
    is_whole,
    published_parts,
    settings_for,
    temporary_names,
    wrong_final_names,
)

LIES = ["flip", "swap", "endless", "bomb"]
FAILURES = ["short", "close", "busy", "busy-once", "unavailable", "deny", "deny-range", "no-range", "missing", "compress", "redirect-loop"]
HARMLESS = ["close", "busy-once", "deny-range", "no-range", "redirect"]


@pytest.mark.parametrize("fault", LIES)
def test_a_source_that_lies_is_banned_and_named(fault: str, tmp_path: Path) -> None:
    """All parts come from the other source, and the result says why."""
    with fault_server(published_parts(), tmp_path / "bad", fault) as bad, fault_server(published_parts(), tmp_path / "good") as good:
        recorder = Recorder()
        result = fetch(settings_for(tmp_path / "into", bad.url, good.url), recorder)
        reports = {report.source_id: report for report in result.sources}
        assert is_whole(tmp_path / "into", published_parts())
        assert reports[bad.url].banned is not None and reports[bad.url].parts == 0
        assert reports[good.url].banned is None and reports[good.url].parts == 4 * NUM_PARTS
        assert {facts["source"] for facts in recorder.named("banned")} == {bad.url}


@pytest.mark.parametrize("fault", [*LIES, "short", "busy", "unavailable", "deny", "missing", "compress", "redirect-loop"])
def test_where_no_source_is_right_the_error_lists_the_attempts(fault: str, tmp_path: Path) -> None:
    """And no part has a final name, nor a temporary file is left."""
    into = tmp_path / "into"
    with fault_server(published_parts(), tmp_path / "bad", fault) as bad:
        with pytest.raises(FetchError) as caught:
            fetch(settings_for(into, bad.url))
        assert list(caught.value.attempts) == [bad.url] and caught.value.attempts[bad.url]
    assert not wrong_final_names(into, published_parts())
    assert not list(into.rglob("state_part_*")) and not list(into.rglob("manifest.json"))
    assert not temporary_names(into)


@pytest.mark.parametrize("fault", FAILURES)
def test_a_source_that_fails_is_made_up_for_and_not_called_a_liar(fault: str, tmp_path: Path) -> None:
    """Whatever its fault."""
    with fault_server(published_parts(), tmp_path / "bad", fault) as bad, fault_server(published_parts(), tmp_path / "good") as good:
        result = fetch(settings_for(tmp_path / "into", bad.url, good.url))
    assert is_whole(tmp_path / "into", published_parts())
    assert all(report.banned is None for report in result.sources)


@pytest.mark.parametrize("fault", HARMLESS)
def test_a_source_with_passing_faults_is_enough(fault: str, tmp_path: Path) -> None:
    """It is asked again: from where it broke off, or for the whole where it refuses ranges."""
    with fault_server(published_parts(), tmp_path / "log", fault) as bad:
        result = fetch(settings_for(tmp_path / "into", bad.url, shard_ids=(0,)))
        ranged = [request for request in bad.requests if "bytes=" in request]
    assert result.sources[0].parts == NUM_PARTS
    assert not wrong_final_names(tmp_path / "into", published_parts())
    assert bool(ranged) == (fault in ("close", "deny-range", "no-range"))


def test_a_source_that_stalls_is_hedged(tmp_path: Path) -> None:
    """The other one brings the parts that it holds; slow is not a lie."""
    with fault_server(published_parts(), tmp_path / "bad", "stall") as bad, fault_server(published_parts(), tmp_path / "good") as good:
        recorder = Recorder()
        settings = settings_for(tmp_path / "into", bad.url, good.url, limits=replace(QUICK, stall_s=0.6, hedge_after_s=0.3))
        result = fetch(settings, recorder)
    assert is_whole(tmp_path / "into", published_parts())
    assert recorder.named("hedged")
    assert all(report.banned is None and report.given_up is None for report in result.sources)
    assert {report.source_id: report.parts for report in result.sources}[good.url] == 4 * NUM_PARTS


def test_a_source_that_stalls_alone_ends_in_an_error(tmp_path: Path) -> None:
    """After its attempts are used up."""
    # Long enough for the documents, which do not stall.
    limits = replace(QUICK, source_timeout_s=3.0, attempts_max=2, resumes_max=2, connections_per_source=16)
    with fault_server(published_parts(), tmp_path / "bad", "stall") as bad, pytest.raises(FetchError, match="connection failed"):
        fetch(settings_for(tmp_path / "into", bad.url, limits=limits, shard_ids=(1,)))
    assert not list((tmp_path / "into").rglob("state_part_*"))


def test_one_damaged_part_does_not_keep_the_others(tmp_path: Path) -> None:
    """With one source that lies about one part: it is banned, what it got right before is kept, and a rerun elsewhere adds the rest."""
    into = tmp_path / "into"
    name = f"state_part_{NUM_PARTS - 1:06d}_of"
    # One after the other: a part beside the lie would be lost with its source.
    limits = replace(QUICK, connections=1, connections_per_source=1)
    with fault_server(published_parts(), tmp_path / "bad", "flip", only=name) as bad, pytest.raises(FetchError):
        fetch(settings_for(into, bad.url, shard_ids=(2,), limits=limits))
    kept = len(list(into.rglob("state_part_*")))
    assert kept == NUM_PARTS - 1
    assert not wrong_final_names(into, published_parts())
    result = fetch(settings_for(into, published_parts(), shard_ids=(2,)))
    assert (len(result.shards[0].here), len(result.shards[0].missing)) == (kept, 1)


def test_a_lie_about_documents_is_found(tmp_path: Path) -> None:
    """A header with a changed byte bans the source; the other one's is taken."""
    with fault_server(published_parts(), tmp_path / "bad", "flip", everything=True, only="/header") as bad:
        result = fetch(settings_for(tmp_path / "into", bad.url, published_parts()))
        reports = {report.source_id: report for report in result.sources}
    assert is_whole(tmp_path / "into", published_parts())
    assert "headers" in str(reports[bad.url].banned)
