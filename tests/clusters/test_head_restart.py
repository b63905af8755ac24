"""The head of a cluster dies and comes back: the run ends with an error, and the same command finishes it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.commands import PROCESS_TIMEOUT_S, lasting_objects_in, start_process, statecast_process
from tests.support.nodes import localnet_home
from tests.support.published import produce_localnet, signing_key
from tests.support.ray_cluster import LocalCluster, local_cluster

NUM_PARTS = 24


def switch_on(cluster: LocalCluster) -> None:
    """Add two machines."""
    cluster.add("disk", node_disk=True)
    cluster.add("one")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_head_is_restarted_in_the_middle_of_a_run(tmp_path: Path) -> None:
    """The driver ends before Ray would end it; a rerun on the restarted cluster leaves the same bytes."""
    arguments = (
        *("produce", "--node-home", localnet_home(), "--to", tmp_path / "out", "--signing-key", signing_key()),
        *("--num-parts", NUM_PARTS, "--work", f"file://{tmp_path / 'work'}", "--ray-address"),
    )
    with local_cluster() as cluster:
        switch_on(cluster)
        driver = start_process(*arguments, cluster.address)
        deadline = time.monotonic() + PROCESS_TIMEOUT_S
        while not list(tmp_path.glob("out/**/state_part_*")):
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        began = time.monotonic()
        cluster.switch_off("head")
        _, said = driver.communicate(timeout=PROCESS_TIMEOUT_S)
        print(f"the driver ended with {driver.returncode} after {time.monotonic() - began:.1f} s: {said[-600:]}")
        assert driver.returncode == 3
        assert "the head of the Ray cluster does not answer" in said.splitlines()[-1]
        assert not list(tmp_path.glob("out/**/manifest.json"))
        # Machines that lose their head end, too; their supervisor starts them again.
        cluster.switch_off("disk", "one")
        cluster.start_head()
        switch_on(cluster)
        outcome = statecast_process(*arguments, cluster.address)
    assert outcome.code == 0, outcome.stderr
    assert produce_localnet(tmp_path / "quiet", "--num-parts", NUM_PARTS).code == 0
    assert lasting_objects_in(tmp_path / "out") == lasting_objects_in(tmp_path / "quiet")
