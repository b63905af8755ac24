"""Runs tasks on Ray: embedded in this process by default, or on a cluster.

The driver holds metadata only: a task is a small value that names what to read, its result a small summary. Nothing but those two
passes through Ray's object store. Ray restarts a task whose worker or machine died; an error of the task itself is never retried,
except the one that says it is transient. Machines may come and go while a run lasts; when none is left that could run a task,
the run ends with an error after `PATIENCE_S`, where Ray by itself would wait without end.
"""

from __future__ import annotations

import atexit
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from operator import length_hint
from typing import Any, TypeVar

from pipelines.execution.executor import TASK_RETRIES_MAX, Task, TaskNeeds
from pipelines.execution.placement import NODE_DISK_RESOURCE, Machine, fitting, misfit
from pipelines.execution.process_exit import end_at_once
from pipelines.execution.ray_authentication import cluster_settings, embedded_settings, lets_anybody_in
from pipelines.execution.ray_entrypoint import arguments_untold
from pipelines.execution.ray_folder import RayFolder, make_ray_folder
from pipelines.execution.ray_head import ADDRESS_VARIABLE, RayHead
from pipelines.execution.ray_processes import ended_on_failure
from pipelines.execution.released_memory import TaskOfStage
from pipelines.execution.scaling_hints import Bundles, ScalingHints
from pipelines.execution.window import window_size
from pipelines.execution.without_pandas import without_pandas
from schemas.errors import InvalidInputError, PartialResultError, StatecastError, TransientStoreError

# Set before ray is imported: `uv run` drivers would else make every worker resolve its environment again, and usage reports would be
# sent.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray's new default, set so that the announcement of the change isn't printed to the user.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray prints what it says of dead workers on standard output, which belongs to the result. Its log files have it, and so has our error.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

R = TypeVar("R")

NODE_DISK_SHARE = 0.001
"""How much of ``node_disk`` a task takes: it marks a place and limits nothing."""

OBJECT_STORE_BYTES = 128 << 20
"""Object store of the embedded Ray: only summaries pass through it."""


PATIENCE_S = 600.0
"""How long a machine that can run the tasks is waited for: longer than an autoscaler takes to bring one."""

LOOK_INTERVAL_S = 1.0
"""How often the cluster is looked at while tasks run: it grows and shrinks."""

PROBE_TIMEOUT_S = 60.0
"""How long machines are waited for that are asked one by one; a machine that is starting or dying does not answer."""

STARTS_MAX = 3
"""Ray gives up a start after half a minute, which a machine that is busy with other things may well take."""

_STAGES = count()
"""Numbers stages for the workers, which belong to this process alone."""

TLS_VARIABLE = "RAY_USE_TLS"
"""Environment variable by which a cluster asks for certificates, which also keep strangers out."""


EMBEDDED = "local"
"""Ray's own word for a Ray that is started here, which we start in our way."""


class RayExecutor:
    """Tasks as Ray tasks, a window of them at a time."""

    def __init__(self, address: str | None = None, cpus: int | None = None, *, patience_s: float = PATIENCE_S) -> None:
        """Start Ray in this process, or connect to a cluster.

        Args:
            address: of a cluster, as ``ray start`` prints it, or ``auto``; ``local`` starts Ray here; None is the cluster that this
                process is a job of, or, where it is none, starts Ray here.
            cpus: cores for the embedded Ray, which is started then even within a job; all by default.
            patience_s: how long a run waits for a machine that can run its tasks before it ends with an error.
        Raises:
            InvalidInputError: the cluster can't be reached.
            PartialResultError: Ray's processes did not come up in time.
        """
        if address is None and cpus is None:
            address = os.environ.get(ADDRESS_VARIABLE) or None
        if address == EMBEDDED:
            address = None
        self._owned = not ray.is_initialized()
        self._folder: RayFolder | None = None
        if self._owned and address:
            _initialise(address, None, None)
        elif self._owned:
            self._folder = make_ray_folder()
            # Held for as long as Ray is there, whatever becomes of this object.
            self._at_exit = partial(_shut_down, self._folder)
            atexit.register(self._at_exit)
            try:
                _initialise(None, cpus, self._folder)
            except BaseException:
                self._shut_down()
                raise
        self._address = address
        self._head = RayHead(ray.get_runtime_context().gcs_address if address else "")
        self._patience_s = patience_s
        self._run_task = ray.remote(_run_task)
        self._hints = ScalingHints(_request_resources)
        resources = ray.cluster_resources()
        place = f"on the Ray cluster at {address}" if address else "on Ray in this process"
        self._description = f"{place}, {resources.get('CPU', 0):.0f} cores"

    @property
    def description(self) -> str:
        """Where tasks run."""
        return self._description

    @property
    def warning(self) -> str:
        """A warning about the cluster for the operator; empty if there is none."""
        if not self._head.address:
            return ""
        open_to_all = lets_anybody_in(self._head.address)
        if open_to_all is None and os.environ.get(TLS_VARIABLE, "0") != "1":
            return f"it could not be found out whether the Ray cluster at {self._head.address} asks for a token"
        if not open_to_all:
            return ""
        return (
            f"everyone who reaches the Ray cluster at {self._head.address} runs code on its machines, with all that they may read: "
            "it asks for no token. Start it with RAY_AUTH_MODE=token (docs/operations/ray-cluster.md)."
        )

    def run(self, tasks: Iterable[Task[R]], needs: TaskNeeds) -> Iterator[tuple[int, R]]:
        """Run the tasks in a sliding window; see `Executor.run`.

        Raises:
            PartialResultError, InvalidInputError: no machine can run the tasks, as `misfit` says.
        """
        # The embedded Ray is one machine that all tasks are meant for: there the window alone bounds their memory.
        asked = needs if self._address else TaskNeeds(0)
        remote = partial(
            self._run_task.options,
            num_cpus=1,
            memory=asked.memory_bytes,
            resources={NODE_DISK_RESOURCE: NODE_DISK_SHARE} if asked.node_disk else {},
            max_retries=TASK_RETRIES_MAX,
            retry_exceptions=[TransientStoreError],
        )
        room = _Room(asked, needs.memory_bytes, self._patience_s)
        source = enumerate(_of_stage(tasks, next(_STAGES), room))
        left = length_hint(tasks)
        running: dict[Any, tuple[int, str]] = {}
        there = False
        try:
            while True:
                if room.due():
                    # Asked just before the cluster is: what is asked of a head that is gone never returns.
                    there = self._head.answers()
                    if there:
                        room.look()
                        if self._address:
                            self._hints.ask(room, needs, left)
                if there:
                    _fill(remote, source, running, room)
                    if not running:
                        return
                elif not running:
                    time.sleep(LOOK_INTERVAL_S)
                    continue
                done, _ = ray.wait(list(running), num_returns=1, timeout=LOOK_INTERVAL_S, fetch_local=False)
                for reference in done:
                    index, node_id = running.pop(reference)
                    room.under_way[node_id] -= 1
                    result = self._result(reference)
                    left -= 1
                    yield index, result
        finally:
            if self._head.is_there():
                self._hints.withdraw(room)
                for reference in running:
                    ray.cancel(reference, force=True)

    def on_each_machine(self, task: Task[R]) -> list[tuple[str, R]]:
        """Run a task once on each machine but the driver's that runs tasks now; one that does not answer is left out.

        Raises:
            StatecastError: a task's own error.
        """
        here = ray.get_runtime_context().get_node_id()
        asked: dict[Any, str] = {}
        for node in _alive_nodes():
            if node["NodeID"] != here and node["Resources"].get("CPU", 0) >= 1:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                # No core is asked for: machines that are busy with another run answer too.
                asked[self._run_task.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(task)] = _machine(node).name
        answers: list[tuple[str, R]] = []
        if asked:
            done, late = ray.wait(list(asked), num_returns=len(asked), timeout=PROBE_TIMEOUT_S)
            for reference in done:
                with suppress(PartialResultError):
                    answers.append((asked[reference], self._result(reference)))
            for reference in late:
                ray.cancel(reference, force=True)
        return answers

    def close(self) -> None:
        """Stop the embedded Ray, or leave the cluster; a Ray that was already running before stays."""
        if self._owned and self._head.lost:
            # Leaving takes the head: Ray would end this process in the midst of saying why the run ended.
            end_at_once("the head of the Ray cluster is gone")
        elif self._owned:
            self._shut_down()

    def _result(self, reference: Any) -> Any:
        try:
            return ray.get(reference)
        except RayTaskError as error:
            # The task's own exception, as if it had run here; Ray's wrapper carries a traceback of many lines in its text.
            if error.cause is not None:
                raise error.cause from None
            raise
        except RayError as error:
            if self._folder is not None:
                self._folder.keep_logs()
            raise PartialResultError(
                problem=f"workers died {TASK_RETRIES_MAX + 1} times on one task: {str(error).splitlines()[0]}",
                where="Ray"
                if self._folder is None
                else f"Ray, whose logs stay in {self._folder.session_folder}/session_latest/logs for a day",
                remedy="Nothing is lost: run the same command again. If it happens again, give the workers more memory.",
            ) from error

    def _shut_down(self) -> None:
        _shut_down(self._folder)
        if self._folder is not None:
            atexit.unregister(self._at_exit)


@dataclass(slots=True, eq=False)
class _Room:
    """How many of a stage's tasks may be under way, by the machines that can run them; looked at again from time to time."""

    needs: TaskNeeds
    memory_bytes: int
    """Most of one task's process, which bounds the window."""
    patience_s: float
    tasks_max: int = 1
    able: Sequence[Machine] = ()
    """Machines that can run the tasks."""
    under_way: Counter[str] = field(default_factory=Counter)
    """Node id of a machine to the tasks that were meant for it."""
    _looked_at_s: float = field(default=float("-inf"))
    _fitted_at_s: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Return whether it is time to look at the cluster."""
        return time.monotonic() - self._looked_at_s >= LOOK_INTERVAL_S

    def look(self) -> None:
        """Look at the cluster.

        Raises:
            PartialResultError, InvalidInputError: no machine can run the tasks, and none came for as long as the patience lasts.
        """
        self._looked_at_s = now = time.monotonic()
        machines = [_machine(node) for node in _alive_nodes()]
        able = fitting(machines, self.needs)
        if able:
            self._fitted_at_s = now
        elif now - self._fitted_at_s >= self.patience_s:
            raise misfit(machines, self.needs, now - self._fitted_at_s)
        cpus, memory = sum(one.cpus for one in able), sum(one.memory_bytes for one in able)
        self.tasks_max = window_size(cpus, memory, self.memory_bytes)
        self.able = able

    def freest(self) -> str:
        """Return the node id of the machine with the fewest tasks for its cores; empty where no machine can run them."""
        return min(self.able, key=lambda machine: self.under_way[machine.node_id] / machine.cpus).node_id if self.able else ""


def _alive_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _machine(node: dict[str, Any]) -> Machine:
    resources = node["Resources"]
    return Machine(
        name=f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
        cpus=resources.get("CPU", 0),
        memory_bytes=resources.get("memory", 0),
        node_disk=resources.get(NODE_DISK_RESOURCE, 0),
        node_id=node["NodeID"],
    )


def _request_resources(bundles: Bundles) -> None:
    # A hint: without it the cluster grows later, by the tasks that queue up.
    with suppress(RayError, RuntimeError, ConnectionError):
        request_resources(bundles=bundles)


def _fill(remote: Callable[..., Any], source: Iterator[tuple[int, Task[R]]], running: dict[Any, tuple[int, str]], room: _Room) -> None:
    while len(running) < room.tasks_max:
        entry = next(source, None)
        if entry is None:
            return
        index, task = entry
        node_id = room.freest()
        room.under_way[node_id] += 1
        running[remote(scheduling_strategy=_at(node_id)).remote(task)] = index, node_id


def _at(node_id: str) -> NodeAffinitySchedulingStrategy | None:
    """Ask the machine itself for room, and let it pass the task on where it has none or is gone.

    Left to itself, Ray asks the driver's machine where there is room. When a task that it sent elsewhere is not wanted there any more, as at
    the end of every stage, it takes that machine for full until it hears of it again, which takes 3 to 6 seconds.
    """
    return NodeAffinitySchedulingStrategy(node_id, soft=True, _spill_on_unavailable=True) if node_id else None


def _of_stage(tasks: Iterable[Task[R]], stage: int, room: _Room) -> Iterator[Task[R]]:
    """Tell the workers which tasks are of one stage, and after which of them they may be idle for long."""
    count_of_tasks = length_hint(tasks)
    for index, task in enumerate(tasks):
        # Among as many as are under way at the end is each worker's last.
        yield TaskOfStage(task, stage, releases=count_of_tasks - index <= room.tasks_max)


def _run_task(task: Task[R]) -> R:
    without_pandas()
    return task.run()


def _shut_down(folder: RayFolder | None) -> None:
    ray.shutdown()
    if folder is not None:
        folder.close()


def _initialise(address: str | None, cpus: int | None, folder: RayFolder | None) -> None:
    for attempt in range(1, STARTS_MAX + 1):
        try:
            with ended_on_failure():
                _initialise_once(address, cpus, folder)
        except StatecastError:
            raise
        except Exception as error:
            # Of no class of its own: what Ray raises when its processes were not up within its own half a minute.
            if attempt == STARTS_MAX:
                raise PartialResultError(
                    problem=f"Ray gave up its start {STARTS_MAX} times: {_first_line(error)}",
                    where=f"--ray-address {address}" if address else "embedded Ray",
                    remedy="Run the same command again when the machine has less to do, or with --in-process.",
                ) from error
        else:
            return


def _initialise_once(address: str | None, cpus: int | None, folder: RayFolder | None) -> None:
    """Connect to the cluster at an address, or start Ray in a folder."""
    environment = {"PYTHONPATH": os.pathsep.join(_import_roots())}
    try:
        with ExitStack() as settings:
            settings.enter_context(arguments_untold())
            if folder is None:
                assert address is not None, "a cluster or a folder"
                head = settings.enter_context(cluster_settings(address))
                ray.init(address=head, log_to_driver=False, logging_level="ERROR")
            else:
                settings.enter_context(embedded_settings(folder.token_file))
                ray.init(
                    # Named, since Ray would else connect to whatever cluster it finds on this machine.
                    address="local",
                    num_cpus=cpus,
                    resources={NODE_DISK_RESOURCE: 1000},
                    object_store_memory=OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    runtime_env={"env_vars": environment},
                    _temp_dir=str(folder.session_folder),
                )
    except StatecastError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidInputError(
            problem=f"Ray did not start: {_first_line(error)}",
            where=f"--ray-address {address}" if address else "embedded Ray",
            remedy="Check the address with `ray status --address …`; versions of Ray and Python must agree.",
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _import_roots() -> list[str]:
    """Return the folder that our packages are imported from, so that workers find them in a source checkout too."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
