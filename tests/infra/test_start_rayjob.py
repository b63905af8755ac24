"""The trigger starts each epoch's run once, against a stand-in for Kubernetes' API that speaks HTTP."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
import yaml

from tests.support.nodes import LOCALNET_EPOCH_HEIGHT, localnet_home

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

    def add_run(self, name: str, epoch: int, state: str, created: str = "2026-01-01T00:00:00Z") -> None:
        """Put a run there that some trigger has started."""
        metadata = {"name": name, "labels": {"statecast/epoch": str(epoch)}, "creationTimestamp": created}
        self.objects[name] = {"metadata": metadata, "spec": {}, "status": {"jobDeploymentStatus": state} if state else {}}

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


@pytest.fixture
def cluster() -> Iterator[RayJobs]:
    """Return a namespace with the template alone."""
    server = RayJobs()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """Return a service account's folder."""
    (tmp_path / "namespace").write_text("statecast\n")
    (tmp_path / "token").write_text("the-token\n")
    (tmp_path / "ca.crt").write_text("")
    return tmp_path


def _trigger(
    cluster: RayJobs, account: Path, epoch: int = 3180, chain_id: str = "mainnet", code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run the trigger as the CronJob does; what prints the plan is a stand-in."""
    plan = json.dumps({"message_type": "plan", "context": {"chain_id": chain_id, "epoch_height": epoch}})
    return _trigger_of(cluster, account, [sys.executable, "-c", f"import sys; print('a note'); print({plan!r}); sys.exit({code})"])


def _trigger_of(cluster: RayJobs, account: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    arguments = ["--template=statecast-produce", f"--server=http://127.0.0.1:{cluster.server_port}", f"--service-account={account}"]
    return subprocess.run([sys.executable, SCRIPT, *arguments, "--", *command], capture_output=True, text=True, timeout=60, check=False)


def test_a_new_epoch_gets_a_run_of_its_own(cluster: RayJobs, account: Path) -> None:
    """The template's copy, no longer suspended, named after chain, epoch and attempt."""
    done = _trigger(cluster, account)
    assert (done.returncode, done.stdout) == (0, "started statecast-produce-mainnet-3180-1\n")
    made = cluster.objects["statecast-produce-mainnet-3180-1"]
    assert made["spec"] == {**TEMPLATE["spec"], "suspend": False}
    assert made["metadata"]["labels"] == {"app.kubernetes.io/name": "statecast", "statecast/epoch": "3180"}
    assert "uid" not in made["metadata"] and "status" not in made


@pytest.mark.parametrize("state", ["", "Initializing", "Running"])
def test_a_run_under_way_is_left_alone(cluster: RayJobs, account: Path, state: str) -> None:
    """Also one of an older epoch: both would read one disk."""
    cluster.add_run("statecast-produce-mainnet-3179-1", 3179, state)
    done = _trigger(cluster, account)
    assert done.returncode == 0 and "is running" in done.stdout
    assert cluster.runs == ["statecast-produce-mainnet-3179-1"]


def test_an_epoch_that_was_run_is_not_run_again(cluster: RayJobs, account: Path) -> None:
    """However often the clock strikes."""
    cluster.add_run("statecast-produce-mainnet-3180-1", 3180, "Complete")
    assert _trigger(cluster, account).returncode == 0
    assert cluster.runs == ["statecast-produce-mainnet-3180-1"]


def test_a_failed_run_is_followed_by_another(cluster: RayJobs, account: Path) -> None:
    """Under the next number: it goes on from the bucket."""
    cluster.add_run("statecast-produce-mainnet-3180-1", 3180, "Failed")
    assert _trigger(cluster, account).stdout == "started statecast-produce-mainnet-3180-2\n"


def test_a_run_that_was_stopped_is_followed_by_another(cluster: RayJobs, account: Path) -> None:
    """KubeRay calls it complete, which it is not."""
    cluster.add_run("statecast-produce-mainnet-3180-1", 3180, "Complete")
    cluster.objects["statecast-produce-mainnet-3180-1"]["status"]["jobStatus"] = "STOPPED"
    assert _trigger(cluster, account).stdout == "started statecast-produce-mainnet-3180-2\n"


def test_five_failures_fail_the_trigger(cluster: RayJobs, account: Path) -> None:
    """The trigger fails instead of paying for a sixth cluster."""
    for attempt in range(1, 6):
        cluster.add_run(f"statecast-produce-mainnet-3180-{attempt}", 3180, "Failed")
    done = _trigger(cluster, account)
    assert done.returncode == 1 and "have failed" in done.stderr and len(cluster.runs) == 5


def test_a_failed_run_that_was_deleted_makes_room_for_another(cluster: RayJobs, account: Path) -> None:
    """Whichever of them it was."""
    for attempt in (2, 3, 4, 5):
        cluster.add_run(f"statecast-produce-mainnet-3180-{attempt}", 3180, "Failed")
    assert _trigger(cluster, account).stdout == "started statecast-produce-mainnet-3180-1\n"


def test_no_epoch_yet_is_no_failure(cluster: RayJobs, account: Path) -> None:
    """statecast's exit code 11; Kubernetes is not even asked."""
    done = _trigger(cluster, account, code=11)
    assert (done.returncode, cluster.requests) == (0, [])


def test_a_plan_that_fails_is_a_failure(cluster: RayJobs, account: Path) -> None:
    """Nothing is started on a guess."""
    assert _trigger(cluster, account, code=10).returncode == 1
    assert cluster.runs == []


def test_two_triggers_at_once_start_one_run(cluster: RayJobs, account: Path) -> None:
    """The name is taken; that is no failure."""
    cluster.refuse_creation = True
    done = _trigger(cluster, account)
    assert done.returncode == 0 and "another trigger" in done.stdout


def test_the_plan_is_statecasts_own(cluster: RayJobs, account: Path, tmp_path: Path) -> None:
    """The manifest's command, on a node's database, says what the trigger reads."""
    manifest = next(yaml.safe_load_all((SCRIPT.parent / "trigger.yaml").read_text()))
    (container,) = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    words = container["args"][container["args"].index("--") + 1 :]
    places = {"statecast": str(Path(sys.executable).parent / "statecast"), "--node-home=/node": f"--node-home={localnet_home()}"}
    command = [places.get(word, word.replace("$(STATE_URL)", str(tmp_path / "state"))) for word in words]
    done = _trigger_of(cluster, account, command)
    assert done.stdout == f"started statecast-produce-test-chain-klplt-{LOCALNET_EPOCH_HEIGHT}-1\n", done.stderr
    assert not (tmp_path / "state").exists()


def test_old_ended_runs_are_forgotten(cluster: RayJobs, account: Path) -> None:
    """All but the newest six, and none of the epoch at hand."""
    for epoch in range(3170, 3180):
        cluster.add_run(f"statecast-produce-mainnet-{epoch}-1", epoch, "Complete", f"2026-01-{epoch - 3169:02}T00:00:00Z")
    _trigger(cluster, account)
    assert cluster.runs == [f"statecast-produce-mainnet-{epoch}-1" for epoch in range(3174, 3181)]


@pytest.mark.parametrize("chain_id", ["My_Chain.1", "a-chain-id-of-more-than-thirty-characters-in-all"])
def test_names_are_labels_that_kuberay_takes(cluster: RayJobs, account: Path, chain_id: str) -> None:
    """At most 47 characters of the DNS's, whatever the chain is called."""
    assert _trigger(cluster, account, chain_id=chain_id).returncode == 0
    (name,) = cluster.runs
    assert len(name) <= 47 and name.replace("-", "").isalnum() and name == name.lower() and name.endswith("-3180-1")
