"""Starts an epoch's run: a copy of a suspended RayJob, named after chain, epoch and attempt.

Asks the given command (`statecast produce … --plan --json`) which epoch the node has, and Kubernetes which runs there are. Starts one
when the epoch has none that runs or has succeeded, and nothing else runs. Names make it idempotent: two triggers at once make one run.
Forgets the ended runs of older epochs but the newest few. Decides nothing about what is published: the run does.

What to do about a run that failed is told by the run itself: Ray reports all exit codes but 0 alike, and keeps the last lines of what the
command printed. A run that never began, since no machine came for its head or its driver, is no try.

Uses the standard library alone, so that the image needs no Kubernetes client for five requests.
"""

import argparse
import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from itertools import count
from pathlib import Path
from typing import Any

ATTEMPTS_MAX = 5
"""Runs of one epoch that may begin and fail before this trigger gives up on it and fails itself, so that an alert fires."""
NEVER_BEGAN_KEPT_MAX = 2
"""Runs of one epoch that never began and are kept, so that their status can be read."""
ENDED_KEPT_MAX = 6
"""Ended runs of the trigger that are kept, so that their status can be read."""
EPOCH_NOT_READY = 11
"""statecast's exit code for an epoch that is not there yet."""
STOP_CODES = (2, 20, 21)
"""statecast's exit codes (usage or configuration; integrity; manifest, signature or trust) after which the same command ends the same way, and
somebody must look. Every other means that a rerun may go on."""
REQUEST_TIMEOUT_S = 30
PLAN_TIMEOUT_S = 300
NAME_LENGTH_MAX = 47
"""Longest name that KubeRay takes for a RayJob."""
ENDED = ("Complete", "Failed", "ValidationFailed")
NEVER_BEGAN_REASON = "PreRunningDeadlineExceeded"
"""KubeRay's reason where the cluster was not there in time and nothing was submitted."""
NEVER_BEGAN_WORDS = ("Job supervisor actor failed to start within ", "Failed to start supervisor actor ")
"""How Ray's message begins where the pod that the command asks for was gone again before it began (Ray 2.60, job_manager.py)."""
EPOCH_LABEL = "statecast/epoch"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Cluster:
    """The RayJobs of this pod's namespace."""

    def __init__(self, server: str, namespace: str, token: str, certificates: str | None) -> None:
        self._url = f"{server}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self._token = token
        self._tls = ssl.create_default_context(cafile=certificates) if server.startswith("https:") else None

    def get(self, name: str) -> dict[str, Any]:
        """Return one."""
        return self._request("GET", f"/{name}")

    def started_runs(self) -> list[dict[str, Any]]:
        """Return the runs that a trigger has started, of all epochs."""
        runs: list[dict[str, Any]] = self._request("GET", "?" + urllib.parse.urlencode({"labelSelector": EPOCH_LABEL}))["items"]
        return runs

    def create(self, rayjob: dict[str, Any]) -> bool:
        """Return whether it was this call that created it."""
        try:
            self._request("POST", "", rayjob)
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
            return False
        return True

    def delete(self, name: str) -> None:
        """Delete one; its cluster goes with it."""
        self._request("DELETE", f"/{name}")

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json", "Accept": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data=data, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S, context=self._tls) as response:
            answer: dict[str, Any] = json.load(response)
        return answer


def planned_epoch(command: list[str]) -> tuple[str, int] | None:
    """Return chain id and epoch height of what the command would produce; None when there is nothing yet."""
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=PLAN_TIMEOUT_S, check=False)
    if done.returncode == EPOCH_NOT_READY:
        return None
    if done.returncode:
        sys.exit(f"{command[:2]} ended with {done.returncode}")
    # The plan is the last line; what a program reads before it are notes.
    context = json.loads(done.stdout.splitlines()[-1])["context"]
    return context["chain_id"], int(context["epoch_height"])


def run_name(template: str, chain_id: str, epoch_height: int, attempt: int) -> str:
    """Return a DNS label that no other chain, epoch or attempt has."""
    chain = re.sub(r"[^a-z0-9]+", "-", chain_id.lower()).strip("-")
    tail = f"-{epoch_height}-{attempt}"
    name = f"{template}-{chain}"
    if len(name + tail) > NAME_LENGTH_MAX or chain != chain_id:
        digest = hashlib.sha256(chain_id.encode()).hexdigest()[:8]
        name = f"{name[: NAME_LENGTH_MAX - len(tail) - 9].rstrip('-')}-{digest}"
    return name + tail


def new_run(template: dict[str, Any], name: str, epoch_height: int) -> dict[str, Any]:
    """Return the template as a run of its own."""
    labels = {**template["metadata"].get("labels", {}), EPOCH_LABEL: str(epoch_height)}
    return {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": {"name": name, "labels": labels},
        "spec": {**template["spec"], "suspend": False},
    }


def status(rayjob: dict[str, Any]) -> str:
    """Return a run's status; empty until KubeRay has set it."""
    return str(rayjob.get("status", {}).get("jobDeploymentStatus", ""))


def never_began(rayjob: dict[str, Any]) -> bool:
    """Return whether a run ended before its command was submitted."""
    told = rayjob.get("status", {})
    why_not = told.get("reason") == NEVER_BEGAN_REASON or str(told.get("message", "")).startswith(NEVER_BEGAN_WORDS)
    return status(rayjob) == "Failed" and why_not


def last_word(rayjob: dict[str, Any]) -> tuple[int | None, str]:
    """Return the exit code of a failed run's command, None where it is not told, and what the run says of its end.

    KubeRay hands on Ray's message: a line with the exit code, then the last lines that the command printed. With ``--json`` one of them is an
    object with the error, which counts where the two differ: Ray may have ended the process after it.
    """
    message = str(rayjob.get("status", {}).get("message", ""))
    code = re.search(r"failed with exit code (-?[0-9]+)", message)
    for line in reversed(message.splitlines()):
        try:
            error = json.loads(line)["error"]
            return int(error["exit_code"]), str(error["message"])
        except (ValueError, TypeError, LookupError):
            continue
    lines = [line for line in message.splitlines() if line.strip()]
    return int(code[1]) if code else None, lines[-1] if lines else ""


def start(cluster: Cluster, template_name: str, chain_id: str, epoch_height: int) -> str:
    """Start the epoch's run if it needs one; return what was done, for the log."""
    runs = cluster.started_runs()
    running = next((run for run in runs if status(run) not in ENDED), None)
    if running is not None:
        return f"{running['metadata']['name']} is running"
    of_epoch = [run for run in runs if run["metadata"]["labels"][EPOCH_LABEL] == str(epoch_height)]
    # KubeRay also calls a stopped run complete.
    if any(status(run) == "Complete" and run["status"].get("jobStatus") != "STOPPED" for run in of_epoch):
        return f"epoch {epoch_height} has been run"
    idle = [run for run in of_epoch if never_began(run)]
    begun = [run for run in of_epoch if run not in idle]
    for run in begun:
        code, words = last_word(run)
        if code in STOP_CODES or status(run) == "ValidationFailed":
            sys.exit(f"{run['metadata']['name']} can't end well by a rerun ({words}); mend that, then delete it to try again")
    if len(begun) >= ATTEMPTS_MAX:
        sys.exit(f"all {ATTEMPTS_MAX} runs of epoch {epoch_height} of {chain_id} have failed; delete them to try again")
    # The first number that is free: some of the failed runs may have been deleted.
    taken = {run["metadata"]["name"] for run in of_epoch}
    names = (run_name(template_name, chain_id, epoch_height, attempt) for attempt in count(1))
    name = next(name for name in names if name not in taken)
    created = cluster.create(new_run(cluster.get(template_name), name, epoch_height))
    _forget_old(cluster, idle, NEVER_BEGAN_KEPT_MAX)
    _forget_old(cluster, [run for run in runs if run not in of_epoch], ENDED_KEPT_MAX)
    return f"started {name}" if created else f"{name} was started by another trigger"


def _forget_old(cluster: Cluster, ended: list[dict[str, Any]], kept: int) -> None:
    newest_first = sorted(ended, key=lambda run: run["metadata"]["creationTimestamp"], reverse=True)
    for run in newest_first[kept:]:
        cluster.delete(run["metadata"]["name"])


def main() -> None:
    """Look once, start what is missing, say what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--template", required=True, help="name of the suspended RayJob")
    parser.add_argument(
        "--server", default=f"https://{os.environ.get('KUBERNETES_SERVICE_HOST')}:{os.environ.get('KUBERNETES_SERVICE_PORT')}"
    )
    parser.add_argument("--service-account", type=Path, default=SERVICE_ACCOUNT, help="folder with namespace, token and ca.crt")
    parser.add_argument("command", nargs="+", help="the command that prints the plan")
    options = parser.parse_args()
    epoch = planned_epoch(options.command)
    if epoch is None:
        sys.stdout.write("no epoch is ready\n")
        return
    namespace = (options.service_account / "namespace").read_text().strip()
    token = (options.service_account / "token").read_text().strip()
    cluster = Cluster(options.server, namespace, token, str(options.service_account / "ca.crt"))
    sys.stdout.write(start(cluster, options.template, *epoch) + "\n")


if __name__ == "__main__":
    main()
