"""Chaos: an epoch produced on a cluster while workers, a machine and the driver die and the store fails, and what must come of it.

The result is that of a quiet run, nothing is left over, and little was done twice. The seed is printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import psutil

from pipelines.stores.open_store import open_store
from tests.support.commands import PROJECT, is_lasting, kill_tree, lasting_objects_in, statecast
from tests.support.fault_proxy import FaultPlan
from tests.support.logged_command import limit_parts, parts_ended, parts_made, read_log
from tests.support.published import produce_localnet, session_folder, signing_key
from tests.support.ray_cluster import LocalCluster
from tests.support.stored_bytes import stored_bytes

SHARDS = 4
REDONE_SHARE_MAX = 0.25
RUNS_MAX = 8
PARTS_AHEAD_MAX = 3
"""Enough for those at work to be in the middle of it when one of them dies."""
RUN_TIMEOUT_S = 900.0
POLL_S = 0.05
BUCKET = "states"


@dataclass(slots=True)
class Chaos:
    """What goes wrong, and where everything is."""

    cluster: LocalCluster
    home: Path
    """Of the NEAR node."""
    plan: FaultPlan
    folder: Path
    seed: int
    name: str
    num_parts: int
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
        arguments = ("--node-home", self.home, "--to", self.to, "--signing-key", signing_key(), "--num-parts", self.num_parts)
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.support.logged_command", str(self.log), "produce", *map(str, arguments)),
                *("--work", f"file://{self.folder / 'work'}", "--ray-address", self.cluster.address, "--json"),
            ],
            cwd=PROJECT,
            env={**os.environ, "TMPDIR": str(self.scratch)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def parts_done(self) -> int:
        """Return how many parts were made by now."""
        return parts_ended(self.log)

    def run(self) -> None:
        """Produce until it is done, while things die at the planned numbers of parts; a rerun follows a death of the driver."""
        parts = SHARDS * self.num_parts
        moments = sorted(self.generator.sample(range(parts // 16, parts * 3 // 4), self.worker_kills + 2))
        kinds = ["driver", "machine", *["worker"] * self.worker_kills]
        self.generator.shuffle(kinds)
        left = list(zip(moments, kinds, strict=True))
        self._let_parts_come_to(left)
        for _ in range(RUNS_MAX):
            if self._run_once(left) == 0:
                return
        raise AssertionError(f"not done after {RUNS_MAX} runs: {self.deaths}")

    def _run_once(self, left: list[tuple[int, str]]) -> int:
        driver = self.start_driver()
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.extend(driver.communicate()))
        reader.start()
        deadline = time.monotonic() + RUN_TIMEOUT_S
        with contextlib.ExitStack() as adding:
            while reader.is_alive():
                assert time.monotonic() < deadline, f"a run takes too long: {self.deaths}"
                if left and self.parts_done() >= left[0][0] and self._strike(left[0][1], driver, adding):
                    left.pop(0)
                    self._let_parts_come_to(left)
                time.sleep(POLL_S)
        reader.join()
        code = driver.returncode
        # Killed, or the same task died too often, which says to run the command again: nothing else.
        assert code in (0, 3, -9), said
        if code == 0:
            # Nothing but the result, whatever Ray had to say of the dead.
            assert len(json.loads(said[0])["shards"]) == SHARDS
        return code

    def _let_parts_come_to(self, left: list[tuple[int, str]]) -> None:
        """Let little more be made than what the next death waits for, so that it does not come too late, however fast the machine is."""
        limit_parts(self.log, left[0][0] + PARTS_AHEAD_MAX if left else None)

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


@lru_cache
def quiet_run(num_parts: int) -> dict[str, str]:
    """Return what an undisturbed run leaves: the sha256 of each lasting object by its name."""
    folder = session_folder() / f"quiet-{num_parts}"
    assert produce_localnet(folder, "--num-parts", num_parts).code == 0
    return lasting_objects_in(folder)


def check_chaos(chaos: Chaos) -> None:
    """Produce in chaos; compare everything that is left with a quiet run."""
    plan, parts = chaos.plan, SHARDS * chaos.num_parts
    plan.seed = chaos.seed
    plan.generator.seed(chaos.seed)
    plan.injected.clear()
    plan.unavailable, plan.broken, plan.reply_lost, plan.slow_s = 0.04, 0.02, 0.02, 0.02
    began = time.monotonic()
    chaos.run()
    seconds = time.monotonic() - began
    plan.quiet()
    made = parts_made(read_log(chaos.log))
    redone = sum(made.values()) - parts
    print(f"seed {chaos.seed}: {seconds:.0f} s, {chaos.deaths}, store {dict(plan.injected)}, {redone} of {len(made)} parts made twice")
    assert len(made) == parts
    assert redone <= REDONE_SHARE_MAX * parts
    assert len(chaos.deaths) == chaos.worker_kills + 2
    check_result(chaos)
    check_leftovers(chaos)


def check_result(chaos: Chaos) -> None:
    """Same objects with the same bytes and no others; the check finds nothing."""
    store, fetched = open_store(chaos.to), chaos.folder / "fetched"
    there = [info.name for info in store.list()]
    assert {name for name in there if is_lasting(name)} == set(quiet_run(chaos.num_parts))
    copy = open_store(str(fetched), durable=False)
    for name in there:
        copy.put(name, stored_bytes(store, name))
    assert lasting_objects_in(fetched) == quiet_run(chaos.num_parts)
    assert statecast("check", fetched, "--in-process").code == 0


def check_leftovers(chaos: Chaos) -> None:
    """No unfinished upload, no claim, no file in the work folder or among temporary files, and no process that still works."""
    import boto3

    uploads = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"]).list_multipart_uploads(Bucket=BUCKET)
    assert not uploads.get("Uploads")
    left = [path for path in (chaos.folder / "work").rglob("*") if path.is_file() and ".statecast-tmp" not in path.parts]
    # What a killed writer had in hand is removed by the next run that comes an hour later.
    assert all(".statecast-tmp" in path.parts for path in left), left
    assert len(left) <= len(chaos.deaths) * len(chaos.cluster.machines)
    assert not [path for path in chaos.scratch.rglob("*") if path.is_file()]
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while chaos.cluster.busy_workers():
        assert time.monotonic() < deadline, "a worker still works for a driver that is gone"
        time.sleep(POLL_S)
    assert not [process for process in psutil.Process().children(recursive=True) if is_driver(process)]


def is_driver(process: psutil.Process) -> bool:
    """Whether a process is a producer that was started here."""
    try:
        return "tests.support.logged_command" in process.cmdline()
    except psutil.Error:
        return False
