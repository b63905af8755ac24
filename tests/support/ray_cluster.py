"""Real Rays: one of two cores for a module's tests, and clusters of several on this machine.

A process can belong to one Ray at a time, so none outlives its module. A machine of a cluster is one process and all that it starts; it is switched off by
killing just those. Nothing of a cluster lies outside its own folder: other Rays on this machine neither find it nor are found.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import psutil
import pytest

from pipelines.execution.on_ray import RayExecutor
from pipelines.execution.placement import NODE_DISK_RESOURCE

RAY_CPUS = 2

PROJECT = Path(__file__).resolve().parents[2]

OBJECT_STORE_BYTES = 80 << 20
"""Near the least that Ray takes."""

MACHINE_MEMORY_BYTES = 4 << 30
"""What each machine says that it has for tasks."""

END_TIMEOUT_S = 120.0

MACHINE_VARIABLE = "STATECAST_TEST_MACHINE"
"""In the environment of a machine's workers: its name."""

_DEATH_SETTINGS = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
"""A machine that is gone is noticed within seconds."""


@pytest.fixture(scope="module")
def ray_of_two_cores() -> Iterator[RayExecutor]:
    """An executor on a Ray inside this process."""
    executor = RayExecutor(cpus=RAY_CPUS)
    yield executor
    executor.close()


@lru_cache
def hiding_command() -> tuple[str, ...]:
    """Return the command before one that shall not see some folders (which follow, then ``--``); empty where that can't be done."""
    unshare = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--mount")
    script = 'while [ "$1" != -- ]; do mount -t tmpfs none "$1" || exit 1; shift; done; shift; exec "$@"'
    command = (*unshare, "sh", "-c", script, "sh")
    with tempfile.TemporaryDirectory() as folder:
        try:
            tried = subprocess.run([*command, folder, "--", "true"], capture_output=True, timeout=30, check=False)
        except OSError:
            return ()
    return command if tried.returncode == 0 else ()


@dataclass(slots=True)
class LocalCluster:
    """A Ray cluster of several machines that are all this one. The head runs no tasks; each added machine gets a name."""

    folder: Path
    hidden: Sequence[Path] = ()
    """Folders that only machines with the node's disk see; must exist."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment of all workers."""
    token: str = ""
    """What it asks clients for; empty where it asks for nothing."""
    address: str = ""
    """Where drivers connect."""
    machines: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def client_variables(self) -> dict[str, str]:
        """Environment of those that connect."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token} if self.token else {"RAY_AUTH_MODE": "disabled"}

    def start_head(self) -> None:
        """Start the head, under the same address again after it was switched off."""
        port = int(self.address.rpartition(":")[2]) if self.address else None
        parameters = {"num_cpus": 0, "temp_dir": str(self.folder), "_system_config": _DEATH_SETTINGS, "gcs_server_port": port}
        self.address = self._start("head", parameters)

    def add(
        self,
        name: str,
        *,
        cpus: int = 1,
        node_disk: bool = False,
        memory_bytes: int = MACHINE_MEMORY_BYTES,
        object_store_bytes: int = OBJECT_STORE_BYTES,
    ) -> None:
        """Switch a machine on and wait until it has joined."""
        parameters: dict[str, object] = {
            **{"num_cpus": cpus, "memory": memory_bytes, "object_store_memory": object_store_bytes},
            **{"resources": {NODE_DISK_RESOURCE: 1000} if node_disk else {}},
            **{"gcs_address": self.address, "redis_address": self.address, "dashboard_agent_listen_port": None},
        }
        self._start(name, parameters, hidden=() if node_disk else self.hidden)

    def _start(self, name: str, parameters: dict[str, object], hidden: Sequence[Path] = ()) -> str:
        assert name not in self.machines
        parameters = {"object_store_memory": OBJECT_STORE_BYTES, "node_manager_port": 0, **parameters}
        given = json.dumps({key: value for key, value in parameters.items() if value is not None})
        command = [sys.executable, "-m", "tests.support.ray_machine", given, "head" if name == "head" else "worker"]
        if hidden:
            command = [*hiding_command(), *map(str, hidden), "--", *command]
        environment = {
            **os.environ,
            **self.client_variables,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_TMPDIR": str(self.folder),
            "PYTHONPATH": str(PROJECT),
            MACHINE_VARIABLE: name,
            **self.variables,
        }
        environment.pop("RAY_ADDRESS", None)
        log = self.folder / f"{name}.log"
        with open(log, "ab") as stderr:
            machine = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
        self.machines[name] = machine
        assert machine.stdout is not None
        address = machine.stdout.readline().strip()
        assert address, log.read_text()[-3000:]
        return address

    def processes(self, name: str) -> list[psutil.Process]:
        """Return all processes of a machine."""
        try:
            root = psutil.Process(self.machines[name].pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def busy_workers(self) -> list[psutil.Process]:
        """Return the workers that run a task of ours now."""
        found = []
        for name in list(self.machines):
            for process in self.processes(name):
                with contextlib.suppress(psutil.Error):
                    if process.cmdline()[:1] == ["ray::_run_task"]:
                        found.append(process)
        return found

    def switch_off(self, *names: str) -> None:
        """Kill all processes of machines at once, as a power cut or the end of a spot instance does."""
        processes = [process for name in names for process in self.processes(name)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for name in names:
            self.machines.pop(name).communicate()
        psutil.wait_procs(processes, END_TIMEOUT_S)

    def close(self) -> None:
        """Switch all machines off."""
        self.switch_off(*self.machines)


@contextlib.contextmanager
def local_cluster(
    hidden: Sequence[Path] = (), variables: Mapping[str, str] | None = None, *, with_token: bool = True
) -> Iterator[LocalCluster]:
    """Run a cluster that has a head and nothing else yet; all its workers have some environment variables.

    What it asks clients for is in this process' environment meanwhile.
    """
    # Sockets lie below it, and their paths can't be long: the folder for temporary files may be too deep.
    folder = Path(tempfile.mkdtemp(prefix="rays-", dir="/tmp" if os.access("/tmp", os.W_OK) else None))
    cluster = LocalCluster(folder, hidden, variables or {}, secrets.token_hex(16) if with_token else "")
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in cluster.client_variables.items():
                patch.setenv(name, value)
            cluster.start_head()
            yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)
