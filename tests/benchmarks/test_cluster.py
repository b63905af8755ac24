"""The cluster benchmark: machines keep to their cores or there is no figure, and rounds are compared pair by pair."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.cluster import ClusterFigure, ClusterRun, DriverFigure, main, print_figures
from benchmarks.pinned_cluster import (
    ClusterStartError,
    MisplacedProcessError,
    PinnedCluster,
    allowed_cores,
    held_to,
    parse_cores,
    run_pinned,
)
from pipelines.execution.in_process import InProcessExecutor
from pipelines.kernel.native import is_available

CORES = sorted(os.sched_getaffinity(0))

two_cores = pytest.mark.skipif(len(CORES) < 2, reason="a machine of the benchmark has a core of its own")

# It waits for its end, under the name that Ray gives a worker.
_WAIT = ["ray::a worker", "-c", "import sys; sys.stdin.read()"]


@pytest.fixture
def worker_on_the_second_core() -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like a worker, held to the second core."""
    with held_to(CORES[1]):
        worker = subprocess.Popen(_WAIT, executable=sys.executable, stdin=subprocess.PIPE)
    yield worker
    worker.communicate()


def _cluster(worker: subprocess.Popen[bytes], core: int) -> PinnedCluster:
    node = SimpleNamespace(all_processes={"worker": [SimpleNamespace(process=worker)]})
    return PinnedCluster(InProcessExecutor(), (core,), (node,))


def test_lists_of_cores_are_read() -> None:
    """Linux writes cores one by one and as ranges."""
    assert parse_cores("0,2-4,7") == (0, 2, 3, 4, 7)


@two_cores
def test_children_inherit_the_core_and_threads_are_let_go(worker_on_the_second_core: subprocess.Popen[bytes]) -> None:
    """What is started while a thread is held to a core is there for good if it is a process, and free again if it is a thread."""
    ended = threading.Event()
    with held_to(CORES[0]):
        thread = threading.Thread(target=ended.wait)
        thread.start()
        assert allowed_cores(os.getpid())[thread.native_id or 0] == (CORES[0],)
    try:
        assert allowed_cores(os.getpid())[thread.native_id or 0] == tuple(CORES)
        assert set(allowed_cores(worker_on_the_second_core.pid).values()) == {(CORES[1],)}
    finally:
        ended.set()
        thread.join()


@two_cores
def test_a_process_on_another_machine_s_core_is_found(worker_on_the_second_core: subprocess.Popen[bytes]) -> None:
    """There is no figure of a cluster one of whose processes may run elsewhere."""
    with held_to(CORES[0]), pytest.raises(MisplacedProcessError, match="may run on cores"):
        _cluster(worker_on_the_second_core, CORES[0]).check_places()


def test_a_machine_without_a_worker_is_found() -> None:
    """A machine whose worker was not observed may be none at all."""
    script = "import benchmarks.pinned_cluster as p; p.PinnedCluster(None, (CORE,), ({},)).check_places()"
    script = script.replace("CORE", str(CORES[0])).replace("{}", "type('Node', (), {'all_processes': {}})")
    with held_to(CORES[0]):
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "MisplacedProcessError: of 1 machines only [] have a worker" in ended.stderr


def _start_second_time(folder: str) -> str:
    try:
        os.mkdir(folder)
    except FileExistsError:
        return "started"
    raise ClusterStartError("the first start")


def test_a_cluster_that_does_not_start_is_started_again(tmp_path: Path) -> None:
    """Ray gives up on a machine that is slow to start; another start in a new process may do."""
    assert run_pinned(CORES[0], _start_second_time, str(tmp_path / "started")) == "started"


def _figure(machines: int, seconds: list[float], busy_s: float, hashed: float) -> ClusterFigure:
    processor_s = [{"driver": 0.0, "workers": busy_s}] * machines
    return ClusterFigure(machines, [ClusterRun(one, {"export": one}, processor_s) for one in seconds], [hashed] * len(seconds))


def test_the_gain_compares_runs_of_one_round() -> None:
    """A round in which all took three times as long changes nothing."""
    one, two = _figure(1, [10.0, 30.0, 11.0], 9.0, 500.0), _figure(2, [6.0, 18.0, 5.0], 5.0, 900.0)
    assert two.gain(one) == pytest.approx(10 / 6)
    assert two.processor_gain(one) == pytest.approx(9 / 5)
    assert two.hash_gain(one) == pytest.approx(1.8)
    assert two.median_run.seconds == 6.0


@pytest.mark.parametrize(("seconds", "verdict"), [(6.0, "wanted 1.6: met"), (6.5, "wanted 1.6: missed")])
def test_the_verdict_is_printed(seconds: float, verdict: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Two machines are held to the gain that is wanted."""
    figures = [_figure(1, [10.0], 9.0, 500.0), _figure(2, [seconds], 5.0, 900.0)]
    print_figures(figures, DriverFigure(10, 100.0, (1 << 20, 2 << 20, 3 << 20)))
    printed = capsys.readouterr().out
    assert verdict in printed
    assert printed.rstrip().endswith("flat")


def test_more_machines_than_cores_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Each machine has a core of its own."""
    with pytest.raises(SystemExit) as raised:
        main(["--machines", f"1,{len(CORES) + 1}"])
    assert raised.value.code == 2
    assert "--machines" in capsys.readouterr().err


@pytest.mark.slow
@two_cores
@pytest.mark.skipif(not is_available(), reason="the benchmark runs the native kernel, whose wheel is not installed")
def test_the_whole_benchmark_runs_on_a_small_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One and two machines make whole runs, each process on its machine's core."""
    main(["--records", "3000", "--rounds", "1", "--tasks", "10", "--folder", str(tmp_path), "--json"])
    results = json.loads(capsys.readouterr().out)
    assert [figure["machines"] for figure in results["runs"]] == [1, 2]
    assert [len(figure["runs"][0]["processor_s"]) for figure in results["runs"]] == [1, 2]
    assert all(figure["runs"][0]["seconds"] > 0 and figure["hash_mb_per_s"][0] > 0 for figure in results["runs"])
    assert results["driver"]["tasks"] == 10
    assert {entry.split("-")[0] for entry in os.listdir(tmp_path)} == {"state"}
