"""The whole job on a real Ray: the same bytes as in one process, whatever dies."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from pipelines.near.node.node_columns import FLAT_STATE
from schemas.dataset.flat_state_value import encode_inlined
from schemas.ids import ShardUId
from tests.support.commands import Outcome, kill_when, lasting_objects_in, objects_in, start_process, statecast
from tests.support.nodes import change_rows, copied, localnet_home, node_a, snapshot_folder
from tests.support.published import produce_node_a, published_localnet, published_node_a, session_folder, signing_key
from tests.support.ray_cluster import ray_of_two_cores

__all__ = ["ray_of_two_cores"]
pytestmark = pytest.mark.usefixtures("ray_of_two_cores")
"""The commands of this module find a Ray running, and leave it running."""

LOOK_AGAIN_S = 0.005
"""How often Ray's workers are looked at while none of them has a task."""


def produce_on_ray(home: Path, to: Path, *options: object) -> Outcome:
    """Run ``produce`` on Ray, however small the work."""
    work = to.parent / "work"
    return statecast(
        "produce",
        "--node-home",
        home,
        "--to",
        to,
        "--signing-key",
        signing_key(),
        "--work",
        f"file://{work}",
        "--keep-work",
        "--workers",
        2,
        *options,
    )


def node_a_options(num_parts: int) -> tuple[object, ...]:
    """Return what node a needs beside its home."""
    return ("--context", node_a() / "context.json", "--num-parts", num_parts)


def test_the_localnet_is_the_same_on_ray(tmp_path: Path) -> None:
    """Parts, headers, statements and torrents, byte by byte; and the check on Ray finds nothing."""
    outcome = produce_on_ray(localnet_home(), tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    assert "on Ray in this process, 2 cores" in outcome.stderr
    assert lasting_objects_in(tmp_path / "out") == lasting_objects_in(published_localnet())
    assert statecast("check", tmp_path / "out", "--workers", 2).code == 0


def test_a_damaged_record_is_the_same_error_on_ray(tmp_path: Path) -> None:
    """The error crosses from the worker with its class and exit code, and nothing is published."""
    home = copied(node_a(), tmp_path)
    key = ShardUId(version=3, shard_id=0).to_bytes() + b"\x00added.near"
    for data in (snapshot_folder(home), home / "data"):
        change_rows(data, FLAT_STATE, {key: encode_inlined(b"value")})
    outcome = produce_on_ray(home, tmp_path / "out", *node_a_options(3), "--shard-id", 0, "--json")
    assert outcome.code == 20
    assert outcome.document["error"]["kind"] == "state_root_mismatch"
    assert objects_in(tmp_path / "out") == {}


def busy_workers() -> list[psutil.Process]:
    """Return Ray's worker processes that run a task of ours now."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] == ["ray::_run_task"]:
                found.append(process)
        except psutil.Error:
            continue
    return found


@contextmanager
def killing_workers(kills_max: int, generator: random.Random) -> Iterator[list[int]]:
    """Kill workers of this process's Ray while they work, until enough have died or the block ends; gives the list of the dead.

    Between two deaths passes a random time, and then the next moment is taken at which a worker is busy.
    """
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while len(killed) < kills_max and not ended.wait(generator.uniform(0.0, 0.8)):
            workers = busy_workers()
            while not workers and not ended.wait(LOOK_AGAIN_S):
                workers = busy_workers()
            if workers:
                victim = generator.choice(workers)
                # One that Ray ended since it was found is none of ours.
                with suppress(psutil.NoSuchProcess):
                    victim.kill()
                    killed.append(victim.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def sixteen_parts() -> dict[str, str]:
    """Return what an undisturbed run leaves of node a in 16 parts a shard."""
    folder = session_folder() / "sixteen-parts"
    if not folder.exists():
        assert produce_node_a(folder, "--num-parts", 16).code == 0
    return lasting_objects_in(folder)


def check_killed_workers(to: Path, kills: int, seed: int) -> int:
    """Produce while workers die; compare the result; return how many died."""
    with killing_workers(kills, random.Random(seed)) as killed:
        outcome = produce_on_ray(node_a(), to, *node_a_options(16), "--json")
        while outcome.code == 3:
            # The same task died more often than Ray retries it: the error says to run the same command again.
            assert not list(to.rglob("manifest.json"))
            outcome = produce_on_ray(node_a(), to, *node_a_options(16), "--json")
    assert outcome.code == 0, outcome.stderr
    # Nothing but the result, whatever Ray had to say.
    assert len(outcome.document["shards"]) == 3
    assert lasting_objects_in(to) == sixteen_parts()
    return len(killed)


@pytest.mark.slow
def test_workers_that_are_killed_change_nothing(tmp_path: Path) -> None:
    """SIGKILL to workers in the middle of their tasks, in as many productions as it takes to meet one."""
    killed, runs = 0, 0
    while not killed:
        folder = tmp_path / str(runs)
        folder.mkdir()
        killed = check_killed_workers(folder / "out", 3, seed=3 + runs)
        runs += 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_workers_that_are_killed_change_nothing(tmp_path: Path) -> None:
    """Twenty kills at random moments, over as many productions as it takes; the seed is printed."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    killed, runs = 0, 0
    while killed < 20:
        folder = tmp_path / str(runs)
        folder.mkdir()
        killed += check_killed_workers(folder / "out", 10, seed + runs)
        runs += 1
    print(f"{killed} workers were killed in {runs} productions")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["work/build/**/build-*.json", "out/**/state_part_000003_of_000005", "out/**/statements/*"])
def test_a_driver_that_is_killed_loses_nothing(tmp_path: Path, moment: str) -> None:
    """Driver and Ray die at once; the same command, in one process this time, ends with the same bytes."""
    home, to = node_a(), tmp_path / "out"
    process = start_process(
        *("produce", "--node-home", home, "--context", home / "context.json", "--num-parts", 5, "--to", to, "--workers", 2),
        *("--signing-key", signing_key(), "--work", f"file://{tmp_path / 'work'}", "--keep-work"),
    )
    assert kill_when(process, lambda: next(tmp_path.glob(moment), None) is not None)
    assert produce_node_a(to, "--num-parts", 5, work=tmp_path / "work").code == 0
    assert lasting_objects_in(to) == lasting_objects_in(published_node_a())
