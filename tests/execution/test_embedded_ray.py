"""No foreign code runs on an embedded Ray: it asks for a token that only its user can read, and listens on loopback alone."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import psutil
import pytest
import ray
import urllib3

from pipelines.execution.on_ray import RayExecutor
from pipelines.execution.ray_entrypoint import ENTRYPOINT
from tests.support.commands import PROJECT
from tests.support.ray_cluster import ray_of_two_cores

__all__ = ["ray_of_two_cores"]

CLIENT_TIMEOUT_S = 180

CLIENT = """
import sys
import ray
import urllib3
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR", _temp_dir=sys.argv[2])
@ray.remote(num_cpus=0)
def run_code():
    return "code was run"
print(ray.get(run_code.remote(), timeout=60))
"""


def start_client(address: str, folder: Path, variables: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a process that has nothing to do with ours and wants to run its code there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # It takes this machine for 127.0.0.1 too: else it would not even reach the Ray.
    environment |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", **variables}
    command = [sys.executable, "-c", CLIENT, address, str(folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def folder(ray_of_two_cores: RayExecutor) -> Path:
    """The folder of the Ray of this process."""
    assert ray_of_two_cores._folder is not None
    return ray_of_two_cores._folder.path


def test_only_who_has_the_token_runs_code(folder: Path) -> None:
    """Neither a client without a token nor one with another; with the right one, the same client runs."""
    address = ray.get_runtime_context().gcs_address
    token = (folder / "token").read_text()
    refused = [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}]
    clients = [start_client(address, folder / "r", variables) for variables in refused]
    right = start_client(address, folder / "r", {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token})
    assert right.communicate(timeout=CLIENT_TIMEOUT_S)[0] == "code was run\n"
    for client in clients:
        stdout, stderr = client.communicate(timeout=CLIENT_TIMEOUT_S)
        assert client.returncode != 0 and stdout == ""
        assert "InvalidAuthToken" in stderr, stderr[-2000:]


def test_it_listens_on_loopback_alone(folder: Path) -> None:
    """This process and all that Ray started, workers too."""
    ray.get(ray.remote(lambda: None).remote())
    listening: set[str] = set()
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            listening |= {found.laddr.ip for found in process.net_connections() if found.status == psutil.CONN_LISTEN}
        except psutil.NoSuchProcess:
            continue
    assert listening
    assert all((address := ipaddress.ip_address(ip)).is_loopback or is_mapped_loopback(address) for ip in listening), listening


def is_mapped_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it is ::ffff:127.0.0.1, which Python 3.11 does not take for loopback."""
    return isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None and address.ipv4_mapped.is_loopback


def test_the_token_stands_in_its_file_alone(folder: Path) -> None:
    """In no process list, no log, no environment, and in no file that others may read."""
    token = (folder / "token").read_text()
    ray.get(ray.remote(lambda: None).remote())
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    assert not any(token in argument for process in processes for argument in process.cmdline())
    assert not any(token in value for process in processes[1:] for value in process.environ().values())
    holders = [path for path in folder.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert holders == [folder / "token"]
    assert folder.stat().st_mode & 0o077 == 0, "Ray opens its own folder to everybody, so ours around it is closed"
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ, "what is started later has nothing to do with Ray"


def test_it_is_not_told_the_command_line(folder: Path) -> None:
    """Which may hold URLs with keys; it would be kept in the table of jobs."""
    state = import_module("ray._private.state").state
    # Clients that other tests start are drivers of their own.
    assert {job["Entrypoint"] for job in state.job_table() if job["DriverPid"] == os.getpid()} == {ENTRYPOINT}


def test_the_agent_that_prepares_workers_asks_for_the_token(folder: Path) -> None:
    """It speaks HTTP and runs commands."""
    (agent,) = [found for found in psutil.Process().children(recursive=True) if found.cmdline()[:1] == ["ray::RuntimeEnvAgent"]]
    (port,) = {found.laddr.port for found in agent.net_connections() if found.status == psutil.CONN_LISTEN}
    url = f"http://127.0.0.1:{port}/get_or_create_runtime_env"
    assert urllib3.request("POST", url, retries=False, timeout=60).status == 401
    token = (folder / "token").read_text()
    allowed = urllib3.request("POST", url, retries=False, timeout=60, headers={"authorization": f"Bearer {token}"})
    assert allowed.status not in (401, 403)


@pytest.mark.slow
def test_a_program_that_does_not_close_its_ray_leaves_nothing() -> None:
    """As one that scans a dataset with Ray Data: what was held ends with it."""
    script = "from pipelines.execution.on_ray import RayExecutor\nprint(RayExecutor(cpus=1)._folder.path)"
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, timeout=CLIENT_TIMEOUT_S, check=True)
    assert done.stdout.startswith("/") and not Path(done.stdout.strip()).exists()
    assert done.stderr == ""
