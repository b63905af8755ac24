"""A stand-in for the RayJobs of Kubernetes' API, and the trigger that asks it."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

SCRIPT = Path(__file__).parents[2] / "infra" / "kubernetes" / "produce" / "start_rayjob.py"
BASE = "/apis/ray.io/v1/namespaces/statecast/rayjobs"
TEMPLATE: dict[str, Any] = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": "statecast-produce", "labels": {"app.kubernetes.io/name": "statecast"}, "resourceVersion": "7", "uid": "u"},
    "spec": {"suspend": True, "entrypoint": "statecast produce", "rayClusterSpec": {"rayVersion": "2.60.0"}},
    "status": {"jobDeploymentStatus": "Suspended"},
}


class RayJobs(ThreadingHTTPServer):
    """The RayJobs of one namespace behind the five requests that the trigger makes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, dict[str, Any]] = {"statecast-produce": copy.deepcopy(TEMPLATE)}
        self.requests: list[str] = []
        self.refuse_creation = False

    def add_run(self, name: str, epoch: int, status: dict[str, Any], created: str = "2026-01-01T00:00:00Z") -> None:
        """Put a run there that some trigger has started."""
        metadata = {"name": name, "labels": {"statecast/epoch": str(epoch)}, "creationTimestamp": created}
        self.objects[name] = {"metadata": metadata, "spec": {}, "status": status}

    @property
    def runs(self) -> list[str]:
        """Names of all but the template."""
        return [name for name in self.objects if name != "statecast-produce"]


class _Handler(BaseHTTPRequestHandler):
    server: RayJobs

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def _answer(self, code: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _name(self) -> str:
        self.server.requests.append(f"{self.command} {self.path}")
        assert self.headers["Authorization"] == "Bearer the-token"
        path = urlparse(self.path).path
        assert path.startswith(BASE)
        return path.removeprefix(BASE).removeprefix("/")

    def do_GET(self) -> None:
        """One by name, or those with a label."""
        name = self._name()
        if name:
            self._answer(200, self.server.objects[name])
            return
        label = parse_qs(urlparse(self.path).query)["labelSelector"][0]
        self._answer(200, {"items": [found for found in self.server.objects.values() if label in found["metadata"].get("labels", {})]})

    def do_POST(self) -> None:
        """Create, unless the name is taken."""
        assert self._name() == ""
        made = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = made["metadata"]["name"]
        if name in self.server.objects or self.server.refuse_creation:
            self._answer(409, {"reason": "AlreadyExists"})
            return
        made["metadata"]["creationTimestamp"] = "2026-11-23T00:00:00Z"
        self.server.objects[name] = made
        self._answer(201, made)

    def do_DELETE(self) -> None:
        """Remove one."""
        self._answer(200, self.server.objects.pop(self._name()))


def trigger(
    cluster: RayJobs, account: Path, epoch: int = 3180, chain_id: str = "mainnet", code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run the trigger as the CronJob does; what prints the plan is a stand-in."""
    plan = json.dumps({"message_type": "plan", "context": {"chain_id": chain_id, "epoch_height": epoch}})
    return trigger_of(cluster, account, [sys.executable, "-c", f"import sys; print('a note'); print({plan!r}); sys.exit({code})"])


def trigger_of(cluster: RayJobs, account: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the trigger with the command that prints the plan."""
    arguments = ["--template=statecast-produce", f"--server=http://127.0.0.1:{cluster.server_port}", f"--service-account={account}"]
    return subprocess.run([sys.executable, SCRIPT, *arguments, "--", *command], capture_output=True, text=True, timeout=60, check=False)
