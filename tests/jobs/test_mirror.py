"""``statecast mirror`` as a person and a program see it, also where it is killed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import Random

import pytest

from tests.support.commands import kill_tree, start_process, statecast, statecast_process
from tests.support.fetches import is_whole, layout_of, parts_manifest, published_manifest, published_parts
from tests.support.mirrors import contents
from tests.support.published import public_key

NUM_PARTS = 24


def arguments(destination: Path, work: Path, *more: object) -> list[object]:
    """A mirror of the published localnet."""
    return [
        "mirror", published_parts(), destination, "--work", work, "--trust-key", public_key(), "--verify-workers", 1, *more
    ]  # fmt: skip


def test_a_mirror_tells_what_it_would_do_does_it_and_finds_it_done(tmp_path: Path) -> None:
    """As one object, as events, and for people."""
    destination, work, events = tmp_path / "mine", tmp_path / "work", tmp_path / "events"
    planned = json.loads(statecast(*arguments(destination, work, "--plan", "--json")).stdout)
    assert planned["message_type"] == "plan"
    assert [(epoch["parts"], epoch["parts_there"]) for epoch in planned["epochs"]] == [(NUM_PARTS, 0)]
    assert not destination.exists()
    outcome = statecast(*arguments(destination, work, "--events", events, "--json"))
    summary = json.loads(outcome.stdout)
    (epoch,) = summary["epochs"]
    assert (outcome.code, epoch["state"], epoch["parts_copied"], epoch["error"]) == (0, "copied", NUM_PARTS, None)
    assert epoch["bytes_copied"] == planned["bytes"]
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert lines[-1] == summary
    assert {"epoch", "part", "epoch_done"} <= {line["event"] for line in lines if line["message_type"] == "event"}
    assert contents(str(destination)) == contents(str(published_parts()))
    again = statecast(*arguments(destination, work))
    assert again.code == 0 and "whole" in again.stdout


def test_one_epoch_that_fails_is_the_commands_error_and_one_of_several_makes_it_partial(tmp_path: Path) -> None:
    """With what became of each, for programs."""
    theirs, destination, work = tmp_path / "theirs", tmp_path / "mine", tmp_path / "work"
    statecast(*arguments(theirs, work))
    layout = layout_of(parts_manifest())
    next(iter((theirs / layout.folder).rglob("state_part_*"))).unlink()
    call = ["mirror", theirs, destination, "--work", work, "--insecure", "--verify-workers", 1, "--json"]
    alone = statecast(*call)
    assert alone.code == 31 and json.loads(alone.stdout)["error"]["kind"] == "fetch"
    assert json.loads(alone.stdout)["epochs"][0]["state"] == "failed"
    high = layout.epoch_height
    of_range = statecast(*call, "--epochs", f"{high - 1}..{high}")
    assert json.loads(of_range.stdout)["absent"] == [high - 1]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (("--epochs", "newest"), "--epochs"),
        (("--rate-limit", "fast"), "--rate-limit"),
        (("--upload-limit", "5"), "--upload-limit"),
        (("--insecure",), "--insecure"),
    ],
)
def test_what_can_not_be_used_is_a_usage_error(changes: tuple[str, ...], named: str, tmp_path: Path) -> None:
    """Before anything is written."""
    outcome = statecast(*arguments(tmp_path / "mine", tmp_path / "work", *changes))
    assert outcome.code == 2 and named in outcome.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("destination", ["https://host/near", "http://host", "memory://x/chain_id=test"])
def test_a_destination_that_can_not_be_written_or_read_again_is_refused(destination: str, tmp_path: Path) -> None:
    """A mirror needs a store that creates an object only where there is none."""
    outcome = statecast("mirror", published_parts(), destination, "--insecure", "--work", tmp_path)
    assert outcome.code == 2 and "DESTINATION" in outcome.stderr


def kill_and_finish(destination: Path, work: Path, kills: int, seed: int) -> None:
    """Kill a mirror some times and then let it end."""
    random = Random(seed)
    size = sum(part.size for shard in parts_manifest().shards for part in shard.parts)
    kept = 0
    for _ in range(kills):
        process = start_process(*arguments(destination, work, "--rate-limit", f"{size // 3}B"))
        while not (work / ".statecast-fetch" / "lock").exists() and process.poll() is None:
            time.sleep(0.01)
        # The moment is what is random here; whatever it hits must hold.
        time.sleep(random.uniform(0.0, 4.0))
        kill_tree(process.pid)
        process.communicate()
        found = contents(str(destination)) if destination.exists() else {}
        published = contents(str(published_parts()))
        assert all(published[name] == data for name, data in found.items() if name.count("/") > 1)
        assert len(found) >= kept, "what was right is kept"
        kept = len(found)
        if layout_of(parts_manifest()).manifest in found:
            assert set(found) >= {name for name in published if name.count("/") > 1}
    outcome = statecast_process(*arguments(destination, work))
    assert outcome.code == 0, outcome.stderr
    assert contents(str(destination)) == contents(str(published_parts()))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_leave_nothing_wrong(tmp_path: Path) -> None:
    """The claim of a mirror that was killed keeps no other from going on."""
    kill_and_finish(tmp_path / "mine", tmp_path / "work", kills=20, seed=2)


def test_a_mirror_is_a_source_again(tmp_path: Path) -> None:
    """With trust of its own: nothing of it is the mirror's word."""
    statecast(*arguments(tmp_path / "mine", tmp_path / "work"))
    outcome = statecast("fetch", tmp_path / "mine", "--into", tmp_path / "into", "--trust-key", public_key(), "--verify-workers", 1)
    assert outcome.code == 0
    assert is_whole(tmp_path / "into", published_parts())
    assert published_manifest(tmp_path / "mine") == parts_manifest()
