"""A cluster of four machines on this one: a head, one machine with the node's disk and two without, which really can't see it."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.execution.executor import TaskNeeds
from pipelines.execution.on_ray import RayExecutor
from pipelines.execution.window import TASKS_PER_SLOT
from pipelines.producing.shared_folders import SeesFileTask
from schemas.errors import InvalidInputError, PartialResultError
from tests.clusters.chaos import BUCKET, Chaos, check_chaos
from tests.clusters.cluster_tasks import WAIT_S, MachineTask, MeetTask, WaitForFileTask
from tests.execution.ray_tasks import SquareTask
from tests.support.commands import lasting_objects_in, objects_in, statecast
from tests.support.fault_proxy import FaultPlan, fault_proxy
from tests.support.nodes import localnet_home
from tests.support.published import published_localnet, signing_key
from tests.support.ray_cluster import MACHINE_MEMORY_BYTES, OBJECT_STORE_BYTES, LocalCluster, hiding_command, local_cluster
from tests.support.servers import aws_environment, make_s3_bucket, moto_server

# After our own, which set what Ray reads from the environment when it is imported.
import ray  # isort: skip
from ray._private.internal_api import memory_summary  # isort: skip
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # isort: skip

NEEDS = TaskNeeds(memory_bytes=1 << 20)
AT_THE_DISK = TaskNeeds(memory_bytes=1 << 20, node_disk=True)
PATIENCE_S = 3.0
"""Of those tests that are about a machine that does not come."""


@pytest.fixture(scope="module")
def node_disk() -> Iterator[Path]:
    """A folder with a node's ``home`` that machines without the disk find empty."""
    if not hiding_command():
        pytest.skip("mount namespaces can't be made here, so nothing can be hidden from a machine")
    folder = Path(tempfile.mkdtemp(prefix="node-disk-"))
    shutil.copytree(localnet_home(), folder / "home")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def plan() -> FaultPlan:
    """The faults of the store; none to begin with."""
    return FaultPlan()


@pytest.fixture(scope="module")
def cluster(node_disk: Path, plan: FaultPlan) -> Iterator[LocalCluster]:
    """Head, ``disk``, ``one`` and ``two``; each of the latter three with a core. All know an S3 server behind a proxy with faults."""
    assert not ray.is_initialized(), "another module left its Ray running"
    with pytest.MonkeyPatch.context() as patch, aws_environment(), moto_server() as server, fault_proxy(server, plan) as url:
        patch.setenv("AWS_ENDPOINT_URL_S3", url)
        make_s3_bucket(url, BUCKET)
        with local_cluster([node_disk]) as cluster:
            cluster.add("disk", node_disk=True)
            cluster.add("one")
            cluster.add("two")
            yield cluster


@pytest.fixture(scope="module")
def on_cluster(cluster: LocalCluster) -> Iterator[RayExecutor]:
    """This process as a driver of the cluster."""
    executor = RayExecutor(cluster.address)
    yield executor
    executor.close()


@pytest.fixture
def impatient(cluster: LocalCluster, on_cluster: RayExecutor) -> RayExecutor:
    """The same driver, which soon gives up waiting for machines."""
    return RayExecutor(cluster.address, patience_s=PATIENCE_S)


def produce_on(cluster: LocalCluster, home: Path, folder: Path, work: Path) -> tuple[int, str]:
    """Produce the localnet; return exit code and what was said."""
    outcome = statecast(
        *("produce", "--node-home", home, "--to", folder / "out", "--signing-key", signing_key()),
        *("--work", f"file://{work}", "--ray-address", cluster.address),
    )
    return outcome.code, outcome.stderr


def test_only_the_machine_with_the_disk_sees_it(on_cluster: RayExecutor, node_disk: Path) -> None:
    """The others have an empty folder there: what the tests below show is shown by this."""
    seen = on_cluster.on_each_machine(SeesFileTask(str(node_disk / "home" / "config.json"), interval_s=0))
    assert sorted(found for _, found in seen) == [False, False, True]


def test_a_job_of_a_cluster_runs_there(cluster: LocalCluster, on_cluster: RayExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray tells a job's processes its cluster; a number of cores still means this machine."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    assert RayExecutor().description == f"on the Ray cluster at {cluster.address}, 3 cores"
    assert "in this process" in RayExecutor(cpus=1).description


def test_tasks_at_the_disk_run_there_alone(on_cluster: RayExecutor, tmp_path: Path) -> None:
    """And the others on any machine."""
    assert {machine for _, machine in on_cluster.run([MachineTask(0.05)] * 8, AT_THE_DISK)} == {"disk"}
    assert {machine for _, machine in on_cluster.run([MeetTask(str(tmp_path), 3)] * 12, NEEDS)} == {"disk", "one", "two"}


def test_a_whole_production_reads_the_disk_only_where_it_is(
    cluster: LocalCluster, on_cluster: RayExecutor, node_disk: Path, tmp_path: Path
) -> None:
    """The same bytes as on one machine; the driver has the disk too."""
    code, said = produce_on(cluster, node_disk / "home", tmp_path, tmp_path / "work")
    assert code == 0, said
    assert f"on the Ray cluster at {cluster.address}, 3 cores" in said
    assert lasting_objects_in(tmp_path / "out") == lasting_objects_in(published_localnet())


def test_nothing_passes_through_the_object_store(cluster: LocalCluster, on_cluster: RayExecutor) -> None:
    """It is as small as Ray takes, and after a whole production nothing was spilled and next to nothing is held."""
    summary = memory_summary(cluster.address, stats_only=True)
    assert "Spilled" not in summary
    held = [line for line in summary.splitlines() if line.startswith("Plasma memory usage")]
    assert held
    assert float(held[0].split()[3]) == 0, summary


@pytest.mark.slow
def test_full_object_stores_hold_up_nothing(cluster: LocalCluster, on_cluster: RayExecutor, node_disk: Path, tmp_path: Path) -> None:
    """Objects of another driver may fill every machine's store, to the point where Ray spills them."""
    fill = ray.remote(num_cpus=0, max_retries=0)(lambda: bytes(OBJECT_STORE_BYTES * 9 // 10))
    machines = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes() if node["Alive"]]
    held = [fill.options(scheduling_strategy=machine).remote() for machine in machines]
    assert len(ray.wait(held, num_returns=len(held), timeout=WAIT_S, fetch_local=False)[0]) == 4
    code, said = produce_on(cluster, node_disk / "home", tmp_path, tmp_path / "work")
    assert code == 0, said
    assert lasting_objects_in(tmp_path / "out") == lasting_objects_in(published_localnet())
    # Still there, on all four.
    assert len(ray.wait(held, num_returns=len(held), timeout=0, fetch_local=False)[0]) == 4


def test_a_work_folder_that_is_not_shared_is_refused(
    cluster: LocalCluster, on_cluster: RayExecutor, node_disk: Path, tmp_path: Path
) -> None:
    """Before anything is read or published; the error names the folder and the option."""
    code, said = produce_on(cluster, node_disk / "home", tmp_path, node_disk / "work")
    assert code == 2
    assert f"the folder {node_disk / 'work' / 'build'} is not shared" in said
    assert "--work" in said
    assert not [name for name in objects_in(tmp_path / "out") if "state_part" in name]


def test_no_more_tasks_are_under_way_than_the_window_holds(
    on_cluster: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long they take, and however often the cluster is looked at meanwhile: the next ones stay with the driver."""
    taken: list[int] = []
    looks: list[float] = []
    go = tmp_path / "go"
    nodes = ray.nodes

    def look() -> object:
        looks.append(time.monotonic())
        return nodes()

    monkeypatch.setattr(ray, "nodes", look)

    def tasks() -> Iterator[WaitForFileTask]:
        for number in range(100):
            taken.append(number)
            yield WaitForFileTask(str(go))

    seen: list[int] = []

    def let_go() -> None:
        deadline = time.monotonic() + WAIT_S
        while len(taken) < 3 * TASKS_PER_SLOT and time.monotonic() < deadline:
            time.sleep(0.02)
        full = len(looks)
        # After the first two of these looks the window was filled again.
        while len(looks) < full + 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        seen.append(len(taken))
        go.touch()

    watching = threading.Thread(target=let_go)
    watching.start()
    assert len(list(on_cluster.run(tasks(), NEEDS))) == 100
    watching.join()
    assert seen == [3 * TASKS_PER_SLOT] and len(looks) > 3


def test_a_task_too_large_for_every_machine_is_an_error(impatient: RayExecutor) -> None:
    """It names what is asked and what the largest machine has; Ray alone would wait without end."""
    with pytest.raises(InvalidInputError, match=f"needs {100 << 30:,} bytes of memory.*{MACHINE_MEMORY_BYTES:,}"):
        list(impatient.run([SquareTask(1)], TaskNeeds(100 << 30)))


def test_a_lost_machine_s_tasks_run_elsewhere(cluster: LocalCluster, on_cluster: RayExecutor, tmp_path: Path) -> None:
    """One is switched off in the middle of its tasks, and another one comes: all results are there, some from the new one."""
    results = on_cluster.run([MachineTask(0.25)] * 60, NEEDS)
    machines = [next(results)[1] for _ in range(6)]
    cluster.switch_off("two")
    adding = threading.Thread(target=cluster.add, args=("three",))
    adding.start()
    machines += [machine for _, machine in results]
    adding.join()
    assert len(machines) == 60
    assert set(machines) <= {"disk", "one", "two", "three"}
    assert {machine for _, machine in on_cluster.run([MeetTask(str(tmp_path), 3)] * 12, NEEDS)} == {"disk", "one", "three"}


@pytest.mark.slow
def test_without_the_disk_s_machine_the_run_ends_in_bounded_time(
    cluster: LocalCluster, on_cluster: RayExecutor, impatient: RayExecutor
) -> None:
    """With an error that names the resource; once the machine is back, the same tasks run."""
    results = impatient.run([MachineTask(0.3)] * 20, AT_THE_DISK)
    next(results)
    cluster.switch_off("disk")
    with pytest.raises(PartialResultError, match="no machine has the resource node_disk") as caught:
        list(results)
    assert caught.value.exit_code == 3
    cluster.add("disk", node_disk=True)
    assert [machine for _, machine in on_cluster.run([MachineTask()] * 3, AT_THE_DISK)] == ["disk"] * 3


@pytest.mark.slow
def test_the_driver_s_memory_is_flat(on_cluster: RayExecutor) -> None:
    """Over ten thousand tasks."""
    driver = psutil.Process()
    ended, memory = 0, []
    for _ in on_cluster.run((SquareTask(number) for number in range(10_000)), NEEDS):
        ended += 1
        if ended % 1_000 == 0:
            memory.append(driver.memory_info().rss)
    assert ended == 10_000
    print("driver's memory in MiB after each 1,000 tasks:", [size >> 20 for size in memory])
    assert memory[-1] - memory[1] < 16 << 20


@pytest.mark.timeout(1800)
@pytest.mark.slow
def test_an_epoch_in_chaos(cluster: LocalCluster, node_disk: Path, plan: FaultPlan, tmp_path: Path) -> None:
    """Three workers, a machine and the driver die."""
    check_chaos(Chaos(cluster, node_disk / "home", plan, tmp_path, seed=1, name="short", num_parts=8, worker_kills=3))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", range(4))
def test_many_epochs_in_chaos(cluster: LocalCluster, node_disk: Path, plan: FaultPlan, tmp_path: Path, number: int) -> None:
    """At random moments; the seed is printed."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    check_chaos(Chaos(cluster, node_disk / "home", plan, tmp_path, seed, name=f"long-{number}", num_parts=12, worker_kills=6))
