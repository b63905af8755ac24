"""A Ray cluster of single-core machines that are all this one: every process of a machine is held to that machine's core.

The first machine is the whole of a cluster of one: head, raylet, Ray's agents, the driver and the worker share its core. Each further one adds
its raylet, agents and worker on a core of its own. Processes inherit the core of their parent; that all do is looked up for each
thread, since a cluster that is wrongly placed gives a figure that looks right.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil

from benchmarks.scaling import HASHED_BYTES, hash_speed
from pipelines.execution.executor import Executor

R = TypeVar("R")

OBJECT_STORE_BYTES: Final = 80 << 20
MACHINE_MEMORY_BYTES: Final = 8 << 30
PROJECT: Final = Path(__file__).resolve().parents[1]

STARTS_MAX: Final = 3
"""Ray gives up on a machine that takes longer than 30 s to start, as one core under load may."""

DRIVER, WORKERS, RAY = "driver", "workers", "Ray's own"
"""What a machine's processes are."""


class MisplacedProcessError(Exception):
    """A process may run on another core than its machine's, or a machine has no worker."""


class ClusterStartError(Exception):
    """A machine of the cluster did not start."""


@dataclass(frozen=True, slots=True)
class PinnedCluster:
    """Single-core machines, the first of which this process belongs to."""

    executor: Executor
    cores: tuple[int, ...]
    """A machine a core."""
    nodes: tuple[Any, ...]
    """Ray's nodes, in the same order."""

    def processes(self) -> list[tuple[int, str, psutil.Process]]:
        """Return (machine, what it is, process) of all processes of all machines."""
        here = psutil.Process()
        found: dict[psutil.Process, tuple[int, str]] = {child: (0, RAY) for child in here.children(recursive=True)}
        for machine, node in enumerate(self.nodes):
            for process in _processes_of(node):
                found[process] = (machine, WORKERS if _is_worker(process) else RAY)
        return [(0, DRIVER, here), *((*place, process) for process, place in found.items())]

    def check_places(self) -> None:
        """Look where all threads of all processes may run.

        Raises:
            MisplacedProcessError: one is not held to its machine's core, or a machine has no worker yet.
        """
        processes = self.processes()
        for machine, role, process in processes:
            for thread, allowed in allowed_cores(process.pid).items():
                if allowed != (self.cores[machine],):
                    raise MisplacedProcessError(
                        f"thread {thread} of process {process.pid} ({role} of machine {machine}) may run on cores {allowed}, "
                        f"and its machine is core {self.cores[machine]}"
                    )
        with_workers = {machine for machine, role, _ in processes if role == WORKERS}
        if len(with_workers) < len(self.cores):
            raise MisplacedProcessError(f"of {len(self.cores)} machines only {sorted(with_workers)} have a worker")

    def processor_s(self) -> list[dict[str, float]]:
        """Return the processor seconds so far, a machine a dict by what its processes are; those of processes that ended are not in it."""
        seconds = [dict.fromkeys((DRIVER, RAY, WORKERS), 0.0) for _ in self.cores]
        for machine, role, process in self.processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds[machine][role] += times.user + times.system
        return seconds


def _processes_of(node: Any) -> Iterator[psutil.Process]:
    """Yield a node's processes and all that they started."""
    for started in (one.process.pid for several in node.all_processes.values() for one in several):
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(started)
            yield from (process, *process.children(recursive=True))


def _is_worker(process: psutil.Process) -> bool:
    try:
        return bool(process.cmdline()) and process.cmdline()[0].startswith("ray::")
    except psutil.Error:
        return False


def allowed_cores(pid: int) -> dict[int, tuple[int, ...]]:
    """Return the cores that each thread of a process may run on, by thread id; empty where the process ended."""
    allowed: dict[int, tuple[int, ...]] = {}
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(FileNotFoundError, ProcessLookupError):
                for line in Path(f"/proc/{pid}/task/{thread}/status").read_text().splitlines():
                    name, _, value = line.partition(":")
                    if name == "Cpus_allowed_list":
                        allowed[int(thread)] = parse_cores(value.strip())
    return allowed


def parse_cores(text: str) -> tuple[int, ...]:
    """Return the cores of a list as Linux writes it (``0,2-3``)."""
    ranges = [part.partition("-") for part in text.split(",") if part]
    return tuple(core for first, _, last in ranges for core in range(int(first), int(last or first) + 1))


def run_pinned(core: int, work: Callable[..., R], *arguments: object) -> R:
    """Call a function in a new process, all of whose threads and children are held to a core, and return its result.

    Raises:
        ClusterStartError: the function's cluster did not start, `STARTS_MAX` times.
    """
    for attempt in range(1, STARTS_MAX + 1):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            with held_to(core):
                result = process.submit(work, *arguments)
            try:
                return result.result()
            except ClusterStartError:
                if attempt == STARTS_MAX:
                    raise
    raise AssertionError("the last attempt ended the loop")


def hash_on(cores: Sequence[int]) -> float:
    """Return the MB/s that a process a core, held to it, reach together while all of them hash."""
    with ExitStack() as stack:
        pools = [stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn"))) for _ in cores]
        # A first round starts all of them, so that the second one's overlap.
        for _ in range(2):
            hashing = []
            for core, pool in zip(cores, pools, strict=True):
                with held_to(core):
                    hashing.append(pool.submit(hash_speed, HASHED_BYTES))
            speeds = [one.result() for one in hashing]
    return sum(speeds)


@contextmanager
def held_to(core: int) -> Iterator[None]:
    """Hold this thread, and the processes that it starts meanwhile, to a core; the threads that it starts are let go like itself."""
    before, threads = os.sched_getaffinity(0), set(os.listdir("/proc/self/task"))
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        for thread in set(os.listdir("/proc/self/task")) - threads:
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), before)


@contextmanager
def pinned_cluster(cores: Sequence[int]) -> Iterator[PinnedCluster]:
    """Run a machine a core.

    For a process of its own that `run_pinned` started on the first core: it sets the environment that Ray reads when it is imported.
    """
    folder = tempfile.mkdtemp(prefix="rays-")
    os.environ.update(
        {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"},
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(32),
        PYTHONPATH=str(PROJECT),
    )
    from pipelines.execution.on_ray import RayExecutor
    from pipelines.execution.placement import NODE_DISK_RESOURCE

    # Ours first: it sets more of what Ray reads.
    from ray.cluster_utils import Cluster  # isort: skip

    machine: dict[str, Any] = {
        "num_cpus": 1,
        "memory": MACHINE_MEMORY_BYTES,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "resources": {NODE_DISK_RESOURCE: 1000},
    }
    cluster = Cluster()
    executor: Executor | None = None
    try:
        nodes = [_started(cluster, core, machine) for core in cores]
        executor = RayExecutor(cluster.address)
        yield PinnedCluster(executor, tuple(cores), tuple(nodes))
    finally:
        if executor is not None:
            executor.close()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _started(cluster: Any, core: int, machine: dict[str, Any]) -> Any:
    try:
        with held_to(core):
            return cluster.add_node(**machine)
    # Whatever Ray raises: it has no class of its own for this.
    except Exception as error:
        raise ClusterStartError(f"the machine of core {core} did not start: {error}") from error
