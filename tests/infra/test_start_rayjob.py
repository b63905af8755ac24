"""The trigger starts each epoch's run once, against a stand-in for Kubernetes' API that speaks HTTP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.nodes import LOCALNET_EPOCH_HEIGHT, localnet_home
from tests.support.rayjobs import SCRIPT, TEMPLATE, RayJobs, trigger, trigger_of

FAILED: dict[str, Any] = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}
COMPLETE: dict[str, Any] = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


def test_a_new_epoch_gets_a_run_of_its_own(rayjobs: RayJobs, account: Path) -> None:
    """The template's copy, no longer suspended, named after chain, epoch and attempt."""
    done = trigger(rayjobs, account)
    assert (done.returncode, done.stdout) == (0, "started statecast-produce-mainnet-3180-1\n")
    made = rayjobs.objects["statecast-produce-mainnet-3180-1"]
    assert made["spec"] == {**TEMPLATE["spec"], "suspend": False}
    assert made["metadata"]["labels"] == {"app.kubernetes.io/name": "statecast", "statecast/epoch": "3180"}
    assert "uid" not in made["metadata"] and "status" not in made


@pytest.mark.parametrize("state", [{}, {"jobDeploymentStatus": "Initializing"}, {"jobDeploymentStatus": "Running"}])
def test_a_run_under_way_is_left_alone(rayjobs: RayJobs, account: Path, state: dict[str, str]) -> None:
    """Also one of an older epoch: both would read one disk."""
    rayjobs.add_run("statecast-produce-mainnet-3179-1", 3179, state)
    done = trigger(rayjobs, account)
    assert done.returncode == 0 and "is running" in done.stdout
    assert rayjobs.runs == ["statecast-produce-mainnet-3179-1"]


def test_an_epoch_that_was_run_is_not_run_again(rayjobs: RayJobs, account: Path) -> None:
    """However often the clock strikes."""
    rayjobs.add_run("statecast-produce-mainnet-3180-1", 3180, COMPLETE)
    assert trigger(rayjobs, account).returncode == 0
    assert rayjobs.runs == ["statecast-produce-mainnet-3180-1"]


def test_a_failed_run_is_followed_by_another(rayjobs: RayJobs, account: Path) -> None:
    """Under the next number: it goes on from the bucket."""
    rayjobs.add_run("statecast-produce-mainnet-3180-1", 3180, FAILED)
    assert trigger(rayjobs, account).stdout == "started statecast-produce-mainnet-3180-2\n"


def test_a_run_that_was_stopped_is_followed_by_another(rayjobs: RayJobs, account: Path) -> None:
    """KubeRay calls it complete, which it is not."""
    rayjobs.add_run("statecast-produce-mainnet-3180-1", 3180, {**COMPLETE, "jobStatus": "STOPPED"})
    assert trigger(rayjobs, account).stdout == "started statecast-produce-mainnet-3180-2\n"


def test_five_failures_fail_thetrigger(rayjobs: RayJobs, account: Path) -> None:
    """The trigger fails instead of paying for a sixth rayjobs."""
    for attempt in range(1, 6):
        rayjobs.add_run(f"statecast-produce-mainnet-3180-{attempt}", 3180, FAILED)
    done = trigger(rayjobs, account)
    assert done.returncode == 1 and "have failed" in done.stderr and len(rayjobs.runs) == 5


def test_a_failed_run_that_was_deleted_makes_room_for_another(rayjobs: RayJobs, account: Path) -> None:
    """Whichever of them it was."""
    for attempt in (2, 3, 4, 5):
        rayjobs.add_run(f"statecast-produce-mainnet-3180-{attempt}", 3180, FAILED)
    assert trigger(rayjobs, account).stdout == "started statecast-produce-mainnet-3180-1\n"


def test_no_epoch_yet_is_no_failure(rayjobs: RayJobs, account: Path) -> None:
    """statecast's exit code 11; Kubernetes is not even asked."""
    done = trigger(rayjobs, account, code=11)
    assert (done.returncode, rayjobs.requests) == (0, [])


def test_a_plan_that_fails_is_a_failure(rayjobs: RayJobs, account: Path) -> None:
    """Nothing is started on a guess."""
    assert trigger(rayjobs, account, code=10).returncode == 1
    assert rayjobs.runs == []


def test_two_triggers_at_once_start_one_run(rayjobs: RayJobs, account: Path) -> None:
    """The name is taken; that is no failure."""
    rayjobs.refuse_creation = True
    done = trigger(rayjobs, account)
    assert done.returncode == 0 and "another trigger" in done.stdout


def test_the_plan_is_statecasts_own(rayjobs: RayJobs, account: Path, tmp_path: Path) -> None:
    """The manifest's command, on a node's database, says what the trigger reads."""
    manifest = next(yaml.safe_load_all((SCRIPT.parent / "trigger.yaml").read_text()))
    (container,) = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    words = container["args"][container["args"].index("--") + 1 :]
    places = {"statecast": str(Path(sys.executable).parent / "statecast"), "--node-home=/node": f"--node-home={localnet_home()}"}
    command = [places.get(word, word.replace("$(STATE_URL)", str(tmp_path / "state"))) for word in words]
    done = trigger_of(rayjobs, account, command)
    assert done.stdout == f"started statecast-produce-test-chain-klplt-{LOCALNET_EPOCH_HEIGHT}-1\n", done.stderr
    assert not (tmp_path / "state").exists()


def test_old_ended_runs_are_forgotten(rayjobs: RayJobs, account: Path) -> None:
    """All but the newest six, and none of the epoch at hand."""
    for epoch in range(3170, 3180):
        rayjobs.add_run(f"statecast-produce-mainnet-{epoch}-1", epoch, COMPLETE, f"2026-01-{epoch - 3169:02}T00:00:00Z")
    trigger(rayjobs, account)
    assert rayjobs.runs == [f"statecast-produce-mainnet-{epoch}-1" for epoch in range(3174, 3181)]


@pytest.mark.parametrize("chain_id", ["My_Chain.1", "a-chain-id-of-more-than-thirty-characters-in-all"])
def test_names_are_labels_that_kuberay_takes(rayjobs: RayJobs, account: Path, chain_id: str) -> None:
    """At most 47 characters of the DNS's, whatever the chain is called."""
    assert trigger(rayjobs, account, chain_id=chain_id).returncode == 0
    (name,) = rayjobs.runs
    assert len(name) <= 47 and name.replace("-", "").isalnum() and name == name.lower() and name.endswith("-3180-1")
