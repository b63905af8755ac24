"""The schedulers' examples load in the real schedulers and publish an epoch."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import objects_in
from tests.support.nodes import localnet_home

EXAMPLES = Path(__file__).parents[2] / "examples"
HERE = Path(__file__).parent
PYTHON = Path(sys.prefix) / "schedulers" / "bin" / "python"

needs_schedulers = pytest.mark.skipif(not PYTHON.exists(), reason="no environment with Airflow and Dagster; `make test` makes it")


def _run(script: str, tmp_path: Path, *arguments: str) -> dict[str, Any]:
    environment = {
        **os.environ,
        "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "DAGSTER_HOME": "",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "STATECAST_PRODUCE_ALLOW_UNSIGNED": "1",
        "STATECAST_PRODUCE_IN_PROCESS": "1",
        "STATECAST_BACKFILL_ALLOW_UNSIGNED": "1",
        "STATECAST_BACKFILL_IN_PROCESS": "1",
    }
    done = subprocess.run(
        [str(PYTHON), str(HERE / script), *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


@needs_schedulers
def test_the_airflow_example_publishes_and_then_has_nothing_to_do(tmp_path: Path) -> None:
    """Loaded by Airflow's DagBag; its tasks are run by Airflow's operator, that which collects also before the first epoch."""
    place = json.dumps({"node_home": str(localnet_home()), "to": str(tmp_path / "out")})
    tasks = ("gc,produce", "produce,gc")
    first, second = (_run("run_airflow_task.py", tmp_path, str(EXAMPLES / "airflow"), "statecast", ids, place) for ids in tasks)
    assert first["errors"] == {} and first["tasks"] == ["produce", "gc"]
    assert first["max_active_runs"] == 1 and first["catchup"] is False
    assert first["outputs"][0] == "skipped" and json.loads(first["outputs"][1])["manifest_revision"] == 1
    assert (
        json.loads(second["outputs"][0])["nothing_to_do"] == "published" and json.loads(second["outputs"][1])["message_type"] == "summary"
    )


@needs_schedulers
def test_the_dagster_example_publishes_the_newest_epoch_and_one_of_the_past(tmp_path: Path) -> None:
    """Loaded by Dagster; the job and one partition of the asset are run in its process."""
    place = json.dumps({"node_home": str(localnet_home()), "to": str(tmp_path / "out")})
    result = _run("run_dagster_job.py", tmp_path, str(EXAMPLES / "dagster" / "statecast_definitions.py"), place, "5")
    # The newest epoch's height is a partition when it is published, those of the past are when they are asked for.
    assert result["partitions"] == ["4", "5", "6"]
    assert (result["job"], result["asset"]) == (True, True)
    # On as soon as it is loaded, and never beside a run that is under way.
    assert result["schedule"] == {"cron": "*/5 * * * *", "status": "RUNNING", "idle": "RunRequest", "busy": "SkipReason"}
    assert {name.split("/")[1] for name in objects_in(tmp_path / "out") if name.endswith("/manifest.json")} == {
        "epoch_height=5",
        "epoch_height=6",
    }


def test_no_unit_with_a_deadline_waits_for_an_idle_disk() -> None:
    """Beside a node that reads all the time the idle class gets nothing, and the epoch ends."""
    texts = {unit.name: unit.read_text() for unit in (EXAMPLES / "systemd").glob("*.service")}
    assert not [name for name, text in texts.items() if re.search(r"^IOSchedulingClass=idle|^CPUSchedulingPolicy=idle", text, re.MULTILINE)]
    nodes = [text for text in texts.values() if "--read-limit" in text]
    assert len(nodes) == 2 and all("IOSchedulingPriority=7\n" in text for text in nodes)


@pytest.mark.parametrize("unit", sorted((EXAMPLES / "systemd").iterdir()), ids=lambda path: path.name)
def test_the_systemd_units_are_right(unit: Path, tmp_path: Path) -> None:
    """As systemd's own tool judges them, with the command where this environment has it."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    for path in (EXAMPLES / "systemd").iterdir():
        text = path.read_text().replace("/opt/statecast/bin", sysconfig.get_path("scripts"))
        (tmp_path / path.name).write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", str(tmp_path / unit.name)], capture_output=True, text=True, timeout=60, check=False)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if unit.name in line]
    assert not complaints and done.returncode == 0, complaints
