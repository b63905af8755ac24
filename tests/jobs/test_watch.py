"""A watcher beside a node that gains epochs: each is published once, whatever is killed."""

from __future__ import annotations

import json
import random
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest

from jobs.produce import default_work_folder
from tests.support.commands import epoch_folder, has_come, kill_tree, lasting_objects_in, start_process, statecast
from tests.support.growing_node import HEIGHTS, GrowingNode
from tests.support.json_process import WAIT_S, JsonProcess, Line
from tests.support.nodes import localnet_home
from tests.support.published import published_localnet, session_folder, signing_key

POLL = ("--poll-interval", "0.1s")
SETTLED = ("epoch_published", "epoch_found_published")


class WatchProcess(JsonProcess):
    """A watcher in a process of its own."""

    def close(self) -> None:
        """Kill it if it still runs, and read it to its end."""
        kill_tree(self.process.pid)
        self.ended()


def start_watcher(home: Path, to: Path, work: Path, *options: object) -> WatchProcess:
    """Start a watcher."""
    return WatchProcess(
        start_process(
            *("watch", "--node-home", home, "--to", to, "--work", f"file://{work}", "--signing-key", signing_key()),
            *("--log-format", "json", *POLL, *(options or ("--in-process",))),
        )
    )


def is_settled(height: int, line: Line) -> bool:
    """Tell whether a line says that an epoch needs no more work."""
    return line["event"] in SETTLED and line["epoch_height"] == height


@contextmanager
def watching(home: Path, to: Path, work: Path, *options: object) -> Iterator[WatchProcess]:
    """Run a watcher for a while; it must end well when it is asked to."""
    with closing(start_watcher(home, to, work, *options)) as watcher:
        watcher.event("watching")
        yield watcher
        assert watcher.stop() == 0, watcher.errors


def manifests(to: Path) -> dict[int, Path]:
    """Return the manifests that are there, by epoch height."""
    return {
        int(path.parts[-3].removeprefix("epoch_height=")): path for path in to.glob("chain_id=*/epoch_height=*/epoch_id=*/manifest.json")
    }


def published(to: Path) -> dict[str, str]:
    """Return the digests of everything that holds no time."""
    return {name: digest for name, digest in lasting_objects_in(to).items() if not name.endswith("catalogue.json")}


@lru_cache
def quietly_published() -> Path:
    """Return what an undisturbed watcher publishes."""
    folder = session_folder() / "watched"
    folder.mkdir()
    with GrowingNode(folder / "node") as node, watching(node.home, folder / "out", folder / "work", "--in-process") as watcher:
        for height in HEIGHTS:
            node.add(height)
            watcher.event("epoch_published", epoch_height=height)
    return folder / "out"


def assert_each_epoch_once(to: Path) -> None:
    """Every epoch has one revision of its manifest, and the bytes of a quiet run."""
    assert sorted(manifests(to)) == sorted(HEIGHTS)
    for manifest in manifests(to).values():
        assert [path.name for path in sorted((manifest.parent / "manifests").iterdir())] == ["000001.json"]
    assert published(to) == published(quietly_published())


def test_epochs_are_published_as_they_come(tmp_path: Path) -> None:
    """Each epoch once, the claims given back, nothing left in the work folder but the memory, the newest equal to what produce makes."""
    to = quietly_published()
    assert_each_epoch_once(to)
    newest = epoch_folder(published_localnet()).relative_to(published_localnet())
    assert {name: digest for name, digest in published(to).items() if name.startswith(f"{newest}/")} == {
        name: digest for name, digest in published(published_localnet()).items() if name.startswith(f"{newest}/")
    }
    left = [path.name for path in (to.parent / "work").rglob("*") if path.is_file() and ".statecast-tmp" not in path.parts]
    assert left == ["watch.json"]
    assert json.loads(next((to).glob("chain_id=*/latest.json")).read_text())["epoch_height"] == 6


@pytest.mark.slow
def test_each_epochs_tables_come_with_it(tmp_path: Path) -> None:
    """Side by side in one place, each proved against its state roots and named by its manifest."""
    to, tables = tmp_path / "out", tmp_path / "tables"
    with (
        GrowingNode(tmp_path / "node") as node,
        watching(node.home, to, tmp_path / "work", "--in-process", "--tables", tables) as watcher,
    ):
        for height in HEIGHTS:
            node.add(height)
            watcher.event("epoch_published", epoch_height=height)
    catalogue = json.loads((tables / "_catalogue.json").read_bytes())
    assert [entry["epoch_height"] for entry in catalogue["epochs"]] == sorted(HEIGHTS)
    for manifest in manifests(to).values():
        outcome = statecast("check", manifest.parent, "--tables", tables, "--in-process", "--json")
        assert outcome.code == 0 and outcome.document["tables"]["unproved"] == ""


def test_a_watcher_waits_until_the_snapshot_is_complete(tmp_path: Path) -> None:
    """An epoch whose snapshot is there but not recorded by the node is seen and not begun."""
    to = tmp_path / "out"
    options = ("--in-process", "--health-port", 0)
    with GrowingNode(tmp_path / "node") as node, watching(node.home, to, tmp_path / "work", *options) as watcher:
        node.begin(4)
        watcher.event("epoch_seen", epoch_height=4)
        # A watcher that did not wait would be at work by the second.
        assert not any(facts["producing"] for facts in facts_of_polls(watcher, 3))
        assert not any(line["event"] in ("stage", "epoch_published") for line in watcher.lines())
        node.complete(4)
        watcher.event("epoch_published", epoch_height=4)


def wait_until(condition: Callable[[], bool], watcher: WatchProcess | None = None) -> None:
    """Wait for something that watchers do; one that must not end meanwhile may be named."""
    deadline = time.monotonic() + WAIT_S
    while not has_come(condition):
        said = [] if watcher is None else watcher.lines()[-5:]
        assert time.monotonic() < deadline and (watcher is None or watcher.process.poll() is None), said
        time.sleep(0.05)


def facts_of_polls(watcher: WatchProcess, count: int) -> list[dict[str, Any]]:
    """Return a watcher's metrics after each of its next polls of the node."""
    found: dict[float, dict[str, Any]] = {}

    def polled() -> bool:
        facts: dict[str, Any] = json.loads(answer(watcher, "/healthz")[1])
        found[facts["polled_at"]] = facts
        return len(found) > count

    wait_until(polled, watcher)
    return list(found.values())


def kill_and_rerun(tmp_path: Path, moments: random.Random, kills: int, longest_s: float) -> None:
    """Add epochs under watchers that are killed again and again; the last one is left in peace."""
    to, work = tmp_path / "out", tmp_path / "work"
    with GrowingNode(tmp_path / "node") as node:
        watcher = start_watcher(node.home, to, work)
        watcher.event("watching")
        node.begin(HEIGHTS[0])
        watcher.event("epoch_seen")
        heights = list(HEIGHTS)
        for number in range(kills):
            # The node goes on without a watcher, and with one.
            if heights and number * len(HEIGHTS) // kills >= len(HEIGHTS) - len(heights):
                node.add(heights.pop(0))
            time.sleep(moments.uniform(0.0, longest_s))
            kill_tree(watcher.process.pid)
            watcher.ended()
            watcher = start_watcher(node.home, to, work)
        for height in heights:
            node.add(height)
        watcher.event("watching")
        wait_until(lambda: len(manifests(to)) == len(HEIGHTS) and not list(to.rglob("claim.json")), watcher)
        assert watcher.stop() == 0
    assert_each_epoch_once(to)


@pytest.mark.slow
def test_every_epoch_is_published_once_across_kills(tmp_path: Path) -> None:
    """SIGKILL at two moments."""
    kill_and_rerun(tmp_path, random.Random(5), kills=2, longest_s=3.0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_epoch_is_published_once_across_many_kills(tmp_path: Path) -> None:
    """SIGKILL at random moments of many runs; the seed is printed."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        kill_and_rerun(folder, moments, kills=9, longest_s=4.0)


@pytest.mark.slow
def test_a_second_watcher_waits_and_takes_over(tmp_path: Path) -> None:
    """Two watchers of one bucket: the first publishes, and when it is killed the second goes on."""
    to = tmp_path / "out"
    with GrowingNode(tmp_path / "node") as node:
        # So slow that it is at work still when the second one has come.
        first = start_watcher(node.home, to, tmp_path / "first", "--in-process", "--read-limit", "5KB")
        first.event("watching")
        node.add(4)
        wait_until(lambda: bool(list(to.rglob("claim.json"))))
        with watching(node.home, to, tmp_path / "second", "--in-process") as second:
            waiting = second.event("waiting_for_other_producer")
            assert str(first.process.pid) in waiting["message"]
            first.kill()
            second.event("epoch_published", epoch_height=4)
    assert list(manifests(to)) == [4]
    assert not list(to.rglob("claim.json"))


@pytest.mark.slow
def test_two_watchers_publish_each_epoch_once(tmp_path: Path) -> None:
    """The first produces; the other finds it published."""
    to = tmp_path / "out"
    with (
        GrowingNode(tmp_path / "node") as node,
        watching(node.home, to, tmp_path / "first") as first,
        watching(node.home, to, tmp_path / "second") as second,
    ):
        for height in HEIGHTS:
            node.add(height)
            for watcher in (first, second):
                watcher.wait_for(partial(is_settled, height))
    assert_each_epoch_once(to)


def test_a_watcher_works_alone_in_its_folder(tmp_path: Path) -> None:
    """A second watcher and a producer end at once and name the folder; with one of its own the producer works beside it."""
    work = tmp_path / "work"
    with watching(localnet_home(), tmp_path / "out", work, "--in-process", "--deadline", "1h", "--poll-interval", "1h"):
        common = ("--node-home", localnet_home(), "--allow-unsigned", "--in-process")
        for command in ("watch", "produce"):
            outcome = statecast(command, *common, "--to", tmp_path / "other", "--work", work)
            assert outcome.code == 2, outcome.stderr
            assert str(work) in outcome.error_line and "--work" in outcome.error_line
        assert statecast("produce", *common, "--to", tmp_path / "other", "--work", tmp_path / "own").code == 0


def test_watchers_of_other_shards_or_nodes_have_other_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless they are named; the same options give the same folder again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    node, shard = default_work_folder("out", "watch", "/a"), default_work_folder("out", "watch", "/a", "1")
    assert len({default_work_folder("out"), node, shard, default_work_folder("out", "watch", "/b")}) == 4
    assert node == default_work_folder("out", "watch", "/a")


@pytest.mark.slow
def test_the_node_may_go_and_come_back(tmp_path: Path) -> None:
    """A database that is gone is reported once, not at each poll; the next epoch after its return is published."""
    to = tmp_path / "out"
    node = GrowingNode(tmp_path / "node")
    with watching(node.home, to, tmp_path / "work", "--in-process", "--health-port", 0) as watcher:
        node.start()
        node.add(4)
        watcher.event("epoch_published", epoch_height=4)
        node.stop()
        (node.home / "data").rename(node.home / "away")
        watcher.event("poll_failed")
        code, problem = answer(watcher, "/readyz")
        assert code == 503
        # Another problem shows that another poll has failed.
        (node.home / "data").mkdir()
        wait_until(lambda: answer(watcher, "/readyz") != (503, problem), watcher)
        assert answer(watcher, "/readyz")[0] == 503
        assert answer(watcher, "/healthz")[0] == 200
        (node.home / "away").rename(node.home / "data")
        watcher.event("poll_recovered")
        node.start()
        node.add(5)
        watcher.event("epoch_published", epoch_height=5)
        node.stop()
        assert sum(line.get("event") == "poll_failed" for line in watcher.lines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_watcher_that_is_asked_to_stop_stops(tmp_path: Path, number: signal.Signals) -> None:
    """In the middle of an epoch: within its bound, with exit code 0, the claim given back, no manifest; the next run finishes."""
    to, work = tmp_path / "out", tmp_path / "work"
    watcher = start_watcher(localnet_home(), to, work, "--in-process", "--read-limit", "100KB")
    watcher.wait_for(lambda line: line["event"] == "stage")
    assert list(to.rglob("claim.json"))
    began = time.monotonic()
    assert watcher.stop(number) == 0, watcher.errors
    # Twenty seconds from the signal on, and what a slow machine takes to end a process.
    assert time.monotonic() - began < 60
    assert [line.get("event") for line in watcher.lines()][-3:] == ["attempt_stopped", "stopped", None]
    assert not list(to.rglob("claim.json"))
    assert not manifests(to)
    with watching(localnet_home(), to, work) as again:
        again.event("epoch_published", epoch_height=6)


def test_a_second_signal_ends_a_watcher_at_once(tmp_path: Path) -> None:
    """Whatever it does; nothing is lost by that."""
    watcher = start_watcher(localnet_home(), tmp_path / "out", tmp_path / "work", "--in-process", "--read-limit", "1KB")
    watcher.event("epoch_seen")
    watcher.process.send_signal(signal.SIGTERM)
    watcher.event("stopping")
    assert watcher.stop(signal.SIGTERM) in (143, 0)


def test_a_watcher_whose_log_reader_is_gone_stops(tmp_path: Path) -> None:
    """A signal that ends a whole pipeline may reach the reader first; the exit code is 0 all the same."""
    process = start_process(
        *("watch", "--node-home", localnet_home(), "--to", tmp_path / "out", "--work", tmp_path / "work", "--allow-unsigned"),
        *("--in-process", "--log-format", "json", "--poll-interval", "1h"),
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        assert any('"epoch_published"' in line for line in process.stdout)
        process.stdout.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0, process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def answer(watcher: JsonProcess, path: str) -> tuple[int, str]:
    """Ask a watcher's server."""
    port = watcher.event("watching")["health_port"]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_health_and_metrics_say_how_it_stands(tmp_path: Path) -> None:
    """After one epoch: healthy, ready, and all that happened counted."""
    began = time.time()
    with watching(localnet_home(), tmp_path / "out", tmp_path / "work", "--in-process", "--health-port", 0) as watcher:
        watcher.event("epoch_published")
        code, text = answer(watcher, "/healthz")
        assert (code, json.loads(text)["epoch_height_published"]) == (200, 6)
        assert answer(watcher, "/readyz")[0] == 200
        assert answer(watcher, "/elsewhere")[0] == 404
        lines = answer(watcher, "/metrics")[1].splitlines()
    values = {name: float(value) for name, value in (line.split() for line in lines if line.startswith("statecast_"))}
    stored = sum(path.stat().st_size for path in (tmp_path / "out").rglob("state_part_*"))
    expected = {
        "statecast_epoch_height_published": 6,
        "statecast_epoch_height_seen": 6,
        "statecast_epochs_behind": 0,
        "statecast_epochs_published_total": 1,
        "statecast_epochs_abandoned_total": 0,
        "statecast_parts_published_total": 4,
        "statecast_published_bytes_total": stored,
        "statecast_producing": 0,
        "statecast_claim_held": 0,
    }
    assert {name: values[name] for name in expected} == expected
    assert 0 < values["statecast_first_part_seconds"] <= values["statecast_last_part_seconds"] < time.time() - began
    assert values["statecast_parts_per_second"] > 0
    assert began < values["statecast_last_poll_timestamp_seconds"] < time.time()


@pytest.mark.slow
def test_old_epochs_are_deleted(tmp_path: Path) -> None:
    """After each epoch no more are kept than was said."""
    to = tmp_path / "out"
    with GrowingNode(tmp_path / "node") as node, watching(node.home, to, tmp_path / "work", "--in-process", "--keep-epochs", 1) as watcher:
        for height in HEIGHTS[:2]:
            node.add(height)
            watcher.event("epoch_published", epoch_height=height)
        watcher.event("epochs_collected")
    assert sorted(manifests(to)) == [5]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--poll-interval", "x"), "--poll-interval"),
        (("--poll", "x"), "--poll"),
        (("--deadline", "0s"), "--deadline"),
        (("--claim-ttl", "2h"), "a claim lives"),
        (("--web-seed", "no-url"), "web seed"),
        (("--tracker", "no-url"), "tracker"),
        (("--health-port", 1, "--health-address", "no such place"), "--health-address"),
    ],
)
def test_options_that_can_not_be_used_are_refused(tmp_path: Path, options: tuple[object, ...], word: str) -> None:
    """Before anything is watched."""
    fixed = ("--node-home", localnet_home(), "--to", tmp_path / "out", "--work", tmp_path / "work", "--allow-unsigned", "--in-process")
    outcome = statecast("watch", *fixed, *options)
    assert outcome.code == 2, outcome.stderr
    assert word in outcome.error_line
