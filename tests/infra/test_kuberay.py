"""KubeRay begins a run when every pod that it was told to make is ready: no pod of ours that may not come is among them, and the trigger
understands what KubeRay says of the runs that end. After recorded sequences (`tests/fixtures/kuberay`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.kubernetes import OVERLAYS, built_overlay
from tests.support.rayjobs import RayJobs, trigger

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "fixtures" / "kuberay" / "rayjobs.json").read_text())
SCHEMA: dict[str, Any] = json.loads((Path(__file__).parent / "rayjob.schema.json").read_text())
CRD = RECORDED["crd"]

each_sequence = pytest.mark.parametrize("sequence", RECORDED["sequences"], ids=lambda sequence: sequence["name"])
each_overlay_with_runs = pytest.mark.parametrize(
    "overlay", [overlay for overlay in OVERLAYS if any(found["kind"] == "RayJob" for found in built_overlay(overlay))]
)


def _wanted(groups: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many pods of each group KubeRay makes at first."""
    return {
        group["groupName"]: min(max(group["replicas"], group["minReplicas"]), group["maxReplicas"]) * group.get("numOfHosts", 1)
        for group in groups
    }


def _is_ready(pods: list[dict[str, Any]], wanted: int) -> bool:
    """Return whether KubeRay calls a cluster ready that has these pods, its head's and the wanted ones of workers."""
    return len(pods) == wanted + 1 and all(pod["phase"] == "Running" and pod["ready"] for pod in pods)


@each_sequence
def test_a_run_begins_when_all_pods_that_are_wanted_are_ready(sequence: dict[str, Any]) -> None:
    """The rule explains each step of each recorded sequence."""
    wanted, ready = sum(_wanted(sequence["groups"]).values()), False
    for step in sequence["steps"]:
        # Once ready, a cluster stays so for KubeRay, whatever becomes of its pods.
        ready = ready or _is_ready(step["pods"], wanted)
        assert step["ready"] == ready, step
        if step["status"].get("jobDeploymentStatus") in ("Running", "Complete"):
            assert ready, step


@each_sequence
def test_a_sequence_has_the_fields_and_values_of_the_type(sequence: dict[str, Any]) -> None:
    """Else the tests would be about something that KubeRay never says."""
    for step in sequence["steps"]:
        status = step["status"]
        assert set(status) <= set(CRD["status"])
        assert status.get("jobDeploymentStatus", "") in CRD["job_deployment_statuses"]
        assert status.get("jobStatus", "") in CRD["job_statuses"]
        assert status.get("reason", "AppFailed") in CRD["reasons"]


def test_the_fields_that_are_used_are_of_the_type() -> None:
    """The schema that all manifests are held to names no other."""
    properties, parts = SCHEMA["properties"]["spec"]["properties"], SCHEMA["$defs"]
    assert set(properties) <= set(CRD["spec"])
    assert set(parts["cluster"]["properties"]) <= set(CRD["ray_cluster_spec"])
    assert set(parts["cluster"]["properties"]["autoscalerOptions"]["properties"]) <= set(CRD["autoscaler_options"])
    assert set(parts["workers"]["properties"]) <= set(CRD["worker_group"])


@each_overlay_with_runs
def test_no_spot_machine_holds_a_run_up(overlay: str) -> None:
    """Only the head and the pod beside the node are waited for; the others come as the run asks for them, from any zone, up to a bound."""
    for rayjob in (found["spec"] for found in built_overlay(overlay) if found["kind"] == "RayJob"):
        cluster = rayjob["rayClusterSpec"]
        groups = {group["groupName"]: {**CRD["worker_group_defaults"], **group} for group in cluster["workerGroupSpecs"]}
        assert _wanted(list(groups.values())) == {"build": 0, "node-disk": 1}
        assert _is_ready([{"phase": "Running", "ready": True}] * 2, 1)
        assert cluster["enableInTreeAutoscaling"] and 0 < groups["build"]["maxReplicas"] < 100
        pod = groups["build"]["template"]["spec"]
        (spread,) = pod["topologySpreadConstraints"]
        assert spread["topologyKey"] == "topology.kubernetes.io/zone" and spread["whenUnsatisfiable"] == "ScheduleAnyway"
        # The autoscaler beside the head makes pods by Kubernetes' API.
        assert cluster["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"]


@each_sequence
def test_the_trigger_does_what_the_end_of_a_run_asks_for(sequence: dict[str, Any], rayjobs: RayJobs, account: Path) -> None:
    """It leaves a finished epoch alone, goes on after what passes, and stops where a rerun would end the same way."""
    first = "statecast-produce-mainnet-3180-1"
    rayjobs.add_run(first, 3180, sequence["steps"][-1]["status"])
    done = trigger(rayjobs, account)
    if sequence["trigger"].startswith("again"):
        assert (done.returncode, done.stdout) == (0, "started statecast-produce-mainnet-3180-2\n"), done.stderr
    elif sequence["trigger"] == "done":
        assert (done.returncode, done.stdout) == (0, "epoch 3180 has been run\n")
    else:
        words = sequence["steps"][-1]["status"]["message"].splitlines()[-1].removeprefix("error: ")
        if "(driver)" in words:
            words = "another form"
        assert done.returncode == 1 and first in done.stderr and words in done.stderr
    assert len(rayjobs.runs) == (2 if sequence["trigger"].startswith("again") else 1)


def test_a_run_that_never_began_is_no_try(rayjobs: RayJobs, account: Path) -> None:
    """However many there were; but five that began are enough."""
    statuses = {sequence["name"]: sequence["steps"][-1]["status"] for sequence in RECORDED["sequences"]}
    absent = [sequence for sequence in RECORDED["sequences"] if sequence["trigger"] == "again, and it is no try"]
    for number in range(1, 10):
        rayjobs.add_run(f"statecast-produce-mainnet-3180-{number}", 3180, absent[number % len(absent)]["steps"][-1]["status"])
    for number in range(10, 14):
        rayjobs.add_run(f"statecast-produce-mainnet-3180-{number}", 3180, statuses["the store was away"])
    assert trigger(rayjobs, account).stdout == "started statecast-produce-mainnet-3180-14\n"
    # Of those that never began a few are kept, to be looked at.
    assert len(rayjobs.runs) == 2 + 4 + 1
    rayjobs.objects["statecast-produce-mainnet-3180-14"]["status"] = statuses["the store was away"]
    done = trigger(rayjobs, account)
    assert done.returncode == 1 and "all 5 runs of epoch 3180" in done.stderr


def test_a_run_under_way_is_left_alone_at_each_step(rayjobs: RayJobs, account: Path) -> None:
    """Until the last."""
    (sequence,) = (one for one in RECORDED["sequences"] if one["trigger"] == "done")
    rayjobs.add_run("statecast-produce-mainnet-3180-1", 3180, {})
    for status in {json.dumps(step["status"]) for step in sequence["steps"][:-1]}:
        rayjobs.objects["statecast-produce-mainnet-3180-1"]["status"] = json.loads(status)
        assert trigger(rayjobs, account).stdout == "statecast-produce-mainnet-3180-1 is running\n"
