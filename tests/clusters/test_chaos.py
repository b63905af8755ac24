"""Chaos: an epoch produced on a cluster of four machines while workers, a machine and the driver die and the store fails.

The result is that of a quiet run, nothing is left over, and little was done twice. The seed is printed.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from pipelines.stores.open_store import open_store
from tests.support.commands import PROJECT, is_lasting, kill_tree, lasting_objects_in, statecast
from tests.support.fault_proxy import FaultPlan, fault_proxy
from tests.support.logged_command import parts_made, read_log
from tests.support.nodes import localnet_home
from tests.support.published import produce_localnet, signing_key
from tests.support.ray_cluster import LocalCluster, local_cluster
from tests.support.servers import aws_environment, make_s3_bucket, moto_server

NUM_PARTS = 24
SHARDS = 4
REDONE_SHARE_MAX = 0.25
RUNS_MAX = 8
RUN_TIMEOUT_S = 240.0
POLL_S = 0.05
BUCKET = "states"


@dataclass(slots=True)
class Chaos:
    """What goes wrong, and where everything is."""

    cluster: LocalCluster
    plan: FaultPlan
    folder: Path
    seed: int
    name: str
    worker_kills: int
    deaths: list[str] = field(default_factory=list)
    generator: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.generator = random.Random(self.seed)
        self.log.mkdir(parents=True)
        self.scratch.mkdir()

    @property
    def log(self) -> Path:
        """Folder with a mark for each time that a task was begun."""
        return self.folder / "log"

    @property
    def scratch(self) -> Path:
        """What the driver takes for the place of temporary files."""
        return self.folder / "tmp"

    @property
    def to(self) -> str:
        """Where the epoch goes."""
        return f"s3://{BUCKET}/{self.name}"

    def start_driver(self) -> subprocess.Popen[str]:
        """Start the command; its tasks are logged."""
        arguments = ("--node-home", localnet_home(), "--to", self.to, "--signing-key", signing_key(), "--num-parts", NUM_PARTS)
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.support.logged_command", str(self.log), "produce", *map(str, arguments)),
                *("--work", f"file://{self.folder / 'work'}", "--ray-address", self.cluster.address),
            ],
            cwd=PROJECT,
            env={**os.environ, "TMPDIR": str(self.scratch)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def parts_done(self) -> int:
        """Return how many parts were made by now."""
        return sum(1 for _ in self.log.glob("ProducePartTask * ended"))

    def run(self) -> None:
        """Produce until it is done, while things die at the planned numbers of parts; a rerun follows a death of the driver."""
        parts = SHARDS * NUM_PARTS
        moments = sorted(self.generator.sample(range(parts // 16, parts * 3 // 4), self.worker_kills + 2))
        kinds = ["driver", "machine", *["worker"] * self.worker_kills]
        self.generator.shuffle(kinds)
        left = list(zip(moments, kinds, strict=True))
        for _ in range(RUNS_MAX):
            if self._run_once(left) == 0:
                return
        raise AssertionError(f"not done after {RUNS_MAX} runs: {self.deaths}")

    def _run_once(self, left: list[tuple[int, str]]) -> int:
        driver = self.start_driver()
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.append(driver.stderr.read() if driver.stderr else ""))
        reader.start()
        deadline = time.monotonic() + RUN_TIMEOUT_S
        with contextlib.ExitStack() as adding:
            while driver.poll() is None:
                assert time.monotonic() < deadline, f"a run takes too long: {self.deaths}"
                if left and self.parts_done() >= left[0][0] and self._strike(left[0][1], driver, adding):
                    left.pop(0)
                time.sleep(POLL_S)
        reader.join()
        code = driver.wait()
        # Killed, or the same task died too often, which says to run the command again: nothing else.
        assert code in (0, 3, -9), said
        return code

    def _strike(self, kind: str, driver: subprocess.Popen[str], adding: contextlib.ExitStack) -> bool:
        if kind == "driver":
            kill_tree(driver.pid)
        elif kind == "machine":
            name = self.generator.choice([name for name in self.cluster.machines if name not in ("head", "disk")])
            self.cluster.switch_off(name)
            # Another one takes its place, some seconds later.
            thread = threading.Thread(target=self.cluster.add, args=(f"{name}-again",))
            thread.start()
            adding.callback(thread.join)
        else:
            workers = self.cluster.busy_workers()
            if not workers:
                return False
            with contextlib.suppress(psutil.NoSuchProcess):
                self.generator.choice(workers).kill()
        self.deaths.append(f"{kind} at {self.parts_done()} parts")
        return True


@pytest.fixture(scope="module")
def plan() -> FaultPlan:
    """The store's faults; none to begin with."""
    return FaultPlan()


@pytest.fixture(scope="module")
def cluster(plan: FaultPlan) -> Iterator[LocalCluster]:
    """Head, disk and two machines more, whose store is an S3 server behind a proxy that injects faults."""
    with pytest.MonkeyPatch.context() as patch, aws_environment(), moto_server() as server, fault_proxy(server, plan) as url:
        patch.setenv("AWS_ENDPOINT_URL_S3", url)
        make_s3_bucket(url, BUCKET)
        with local_cluster() as cluster:
            cluster.add("disk", node_disk=True)
            cluster.add("one")
            cluster.add("two")
            yield cluster


@pytest.fixture(scope="module")
def quiet_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an undisturbed run leaves, by the sha256 of each object."""
    folder = tmp_path_factory.mktemp("quiet") / "out"
    assert produce_localnet(folder, "--num-parts", NUM_PARTS).code == 0
    return lasting_objects_in(folder)


def check_chaos(chaos: Chaos, quiet_run: dict[str, str]) -> None:
    """Produce in chaos; compare everything that is left with a quiet run."""
    plan = chaos.plan
    plan.seed = chaos.seed
    plan.generator.seed(chaos.seed)
    plan.unavailable, plan.broken, plan.reply_lost, plan.slow_s = 0.04, 0.02, 0.02, 0.05
    began = time.monotonic()
    chaos.run()
    seconds = time.monotonic() - began
    plan.quiet()
    made = parts_made(read_log(chaos.log))
    redone = sum(made.values()) - SHARDS * NUM_PARTS
    print(f"seed {chaos.seed}: {seconds:.0f} s, {chaos.deaths}, store {dict(plan.injected)}, {redone} of {len(made)} parts made twice")
    assert len(made) == SHARDS * NUM_PARTS
    assert redone <= REDONE_SHARE_MAX * SHARDS * NUM_PARTS
    assert len(chaos.deaths) == chaos.worker_kills + 2
    check_result(chaos, quiet_run)
    check_leftovers(chaos)


def check_result(chaos: Chaos, quiet_run: dict[str, str]) -> None:
    """Same objects with the same bytes and no others; the check finds nothing."""
    there = {info.name: info for info in open_store(chaos.to).list()}
    assert {name for name in there if is_lasting(name)} == set(quiet_run)
    fetched = chaos.folder / "fetched"
    copy = open_store(str(fetched))
    for name in there:
        copy.put(name, open_store(chaos.to).get(name))
    assert lasting_objects_in(fetched) == quiet_run
    assert statecast("check", fetched, "--in-process").code == 0


def check_leftovers(chaos: Chaos) -> None:
    """No unfinished upload, no claim, no file in the work folder or among temporary files, and no process that still works."""
    import boto3

    uploads = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"]).list_multipart_uploads(Bucket=BUCKET)
    assert not uploads.get("Uploads")
    left = [path for path in (chaos.folder / "work").rglob("*") if path.is_file()]
    # What a killed writer had in hand is removed by the next run that comes an hour later.
    assert all(".statecast-tmp" in path.parts for path in left), left
    assert len(left) <= len(chaos.deaths) * len(chaos.cluster.machines)
    assert not [path for path in chaos.scratch.rglob("*") if path.is_file()]
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while chaos.cluster.busy_workers():
        assert time.monotonic() < deadline, "a worker still works for nobody"
        time.sleep(POLL_S)
    drivers = [process for process in psutil.Process().children(recursive=True) if "tests.support.logged_command" in process.cmdline()]
    assert not drivers


def test_an_epoch_in_chaos(cluster: LocalCluster, plan: FaultPlan, quiet_run: dict[str, str], tmp_path: Path) -> None:
    """Five workers, a machine and the driver die."""
    check_chaos(Chaos(cluster, plan, tmp_path, seed=1, name="short", worker_kills=5), quiet_run)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", range(4))
def test_many_epochs_in_chaos(cluster: LocalCluster, plan: FaultPlan, quiet_run: dict[str, str], tmp_path: Path, number: int) -> None:
    """At random moments; the seed is printed."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    check_chaos(Chaos(cluster, plan, tmp_path, seed, name=f"long-{number}", worker_kills=10), quiet_run)
