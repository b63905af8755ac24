"""Ray, started as the manifests start it, listens where the network policy lets its own pods through, and nowhere else but where it says."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

KUBERNETES = Path(__file__).parents[2] / "infra" / "kubernetes"
DEADLINE_S = 120
NOT_FOR_PODS = {
    8265: "dashboard: to the operator alone",
    10001: "Ray Client: closed",
    44217: "metrics of the head",
    44227: "metrics of the head",
}
"""Ports of a head that other pods of the cluster need not reach."""


def _rayjob() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((KUBERNETES / "rayjob/rayjob.yaml").read_text())["spec"]["rayClusterSpec"]
    return found


def _allowed() -> set[int]:
    policies = yaml.safe_load_all((KUBERNETES / "produce/network-policies.yaml").read_text())
    policy = next(found for found in policies if found["metadata"]["name"] == "ray-among-itself")
    return {
        number for port in policy["spec"]["ingress"][0]["ports"] for number in range(port["port"], port.get("endPort", port["port"]) + 1)
    }


def _listening(pid: int) -> set[int]:
    """Return the TCP ports that something in the process's network listens on."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]]
    return {int(fields[1].rpartition(":")[2], 16) for fields in lines if fields[3] == "0A"}


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[int]]:
    """Return where a head listens; in a network of its own, so that no port is taken and nothing is reached."""
    ray = Path(sys.executable).parent / "ray"
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("a network of its own needs root, unshare and ip")
    if importlib.util.find_spec("opencensus") is None:
        pytest.skip("Ray's agents, as they run on a cluster, need the extra `cluster`")
    cluster = _rayjob()
    given = cluster["headGroupSpec"]["rayStartParams"]
    options = " ".join(f"--{name}={value}" for name, value in given.items())
    folder = tmp_path_factory.mktemp("r")
    script = f"ip link set lo up && exec {ray} start --head --port=6379 --node-ip-address=127.0.0.1 --temp-dir={folder} --block {options}"
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", script],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wanted = {6379, *(int(value) for name, value in given.items() if name.endswith("-port") and "worker" not in name)}
        deadline = time.monotonic() + DEADLINE_S
        found: set[int] = set()
        while not wanted <= found:
            assert process.poll() is None and time.monotonic() < deadline, f"of {sorted(wanted)}, Ray listens on {sorted(found)}"
            time.sleep(0.5)
            found = _listening(process.pid)
        yield found
    finally:
        # The session is this process's own: Ray's daemons are in it, or end with their raylet.
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_every_port_that_ray_opens_is_accounted_for(ports: set[int]) -> None:
    """Let through between pods, for the collector of metrics, or known to be for neither."""
    metrics = int(_rayjob()["headGroupSpec"]["rayStartParams"]["metrics-export-port"])
    assert ports - _allowed() - {metrics} <= set(NOT_FOR_PODS)
    assert not _allowed() & set(NOT_FOR_PODS)
