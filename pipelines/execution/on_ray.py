"""Runs tasks on Ray: embedded in this process by default, or on a cluster.

The driver holds metadata only: a task is a small value that names what to read, its result a small summary. Nothing but those two
passes through Ray's object store. Ray restarts a task whose worker died; an error of the task itself is never retried, except
the one that says it is of the moment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pipelines.execution.executor import Task, TaskNeeds
from pipelines.execution.window import window_size
from schemas.errors import InvalidInputError, PartialResultError, TransientStoreError

# Set before ray is imported: `uv run` drivers would else make every worker resolve its environment anew, token authentication
# would depend on whether an earlier run left a token file, and usage reports would be sent.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray's new default, set so that the announcement of the change isn't printed to the user.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray prints what it says of dead workers on standard output, which belongs to the result. Its log files have it, and so has our error.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")

import ray
from ray.exceptions import RayError, RayTaskError

R = TypeVar("R")

NODE_DISK_RESOURCE = "node_disk"
"""Custom Ray resource of the machines that see the NEAR node's disk; `ray start --resources '{"node_disk": 1000}'`."""

NODE_DISK_SHARE = 0.001
"""How much of ``node_disk`` a task takes: it marks a place and limits nothing."""

TASK_RETRIES_MAX = 5
"""How often Ray runs a task again after its worker died, or after a fault of the store that is of the moment."""

OBJECT_STORE_BYTES = 128 << 20
"""Object store of the embedded Ray: only summaries pass through it."""


class RayExecutor:
    """Tasks as Ray tasks, a window of them at a time."""

    def __init__(self, address: str | None = None, cpus: int | None = None) -> None:
        """Start Ray in this process, or connect to a cluster.

        Args:
            address: of a cluster, as ``ray start`` prints it, or ``auto``; None starts Ray here.
            cpus: cores for the embedded Ray; all by default.
        Raises:
            InvalidInputError: the cluster can't be reached.
        """
        self._owned = not ray.is_initialized()
        if self._owned:
            _initialise(address, cpus)
        self._address = address
        self._run_task = ray.remote(_run_task)
        resources = ray.cluster_resources()
        place = f"on the Ray cluster at {address}" if address else "on Ray in this process"
        self._description = f"{place}, {resources.get('CPU', 0):.0f} cores"

    @property
    def description(self) -> str:
        """Where tasks run."""
        return self._description

    def run(self, tasks: Iterable[Task[R]], needs: TaskNeeds) -> Iterator[tuple[int, R]]:
        """Run the tasks in a sliding window; see `Executor.run`."""
        remote = self._run_task.options(
            num_cpus=1,
            memory=needs.memory_bytes if self._address else 0,
            resources={NODE_DISK_RESOURCE: NODE_DISK_SHARE} if needs.node_disk and self._address else {},
            max_retries=TASK_RETRIES_MAX,
            retry_exceptions=[TransientStoreError],
        )
        source = enumerate(tasks)
        running: dict[Any, int] = {}
        try:
            while True:
                self._fill(remote, source, running, needs)
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1, fetch_local=False)
                for reference in done:
                    index = running.pop(reference)
                    yield index, _result(reference)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _fill(self, remote: Any, source: Iterator[tuple[int, Task[R]]], running: dict[Any, int], needs: TaskNeeds) -> None:
        # Asked anew each time: a cluster grows and shrinks while it runs.
        resources = ray.cluster_resources()
        size = window_size(resources.get("CPU", 1), resources.get("memory", 0), needs.memory_bytes)
        while len(running) < size:
            entry = next(source, None)
            if entry is None:
                return
            running[remote.remote(entry[1])] = entry[0]

    def close(self) -> None:
        """Stop the embedded Ray, or leave the cluster; a Ray that was already running before stays."""
        if self._owned:
            ray.shutdown()


def _run_task(task: Task[R]) -> R:
    return task.run()


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        # The task's own exception, as if it had run here; Ray's wrapper carries a traceback of many lines in its text.
        if error.cause is not None:
            raise error.cause from None
        raise
    except RayError as error:
        raise PartialResultError(
            problem=f"workers died {TASK_RETRIES_MAX + 1} times on one task: {str(error).splitlines()[0]}",
            where="Ray",
            remedy="Nothing is lost: run the same command again. If it happens again, give the workers more memory (see the Ray logs).",
        ) from error


def _initialise(address: str | None, cpus: int | None) -> None:
    environment = {"PYTHONPATH": os.pathsep.join(_import_roots())}
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        else:
            ray.init(
                num_cpus=cpus,
                resources={NODE_DISK_RESOURCE: 1000},
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": environment},
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InvalidInputError(
            problem=f"Ray did not start: {str(error).splitlines()[0]}",
            where=f"--ray-address {address}" if address else "embedded Ray",
            remedy="Check the address with `ray status --address …`; versions of Ray and Python must agree.",
        ) from error


def _import_roots() -> list[str]:
    """Return the folder that our packages are imported from, so that workers find them in a source checkout too."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
