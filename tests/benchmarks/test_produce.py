"""The benchmark runs to its end on a small state, and its figures add up."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipelines.kernel.native import is_available

pytestmark = pytest.mark.skipif(not is_available(), reason="the benchmark times the native kernel, whose wheel is not installed")

RECORDS = 3_000


@pytest.mark.slow
def test_the_benchmark_prints_every_stage_and_target_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One small run gives all stages, floors, memory figures and targets; only the states are left in the folder."""
    from benchmarks.produce import main

    main(["--records", str(RECORDS), "--repeats", "1", "--cores", "none", "--folder", str(tmp_path), "--json"])
    results = json.loads(capsys.readouterr().out)
    assert results["records"] == RECORDS
    stages = {figure["stage"]: figure for figure in results["stages"]}
    floors = {stage for stage, figure in stages.items() if figure["floor"]}
    assert floors == {
        "export",
        "build, kernel",
        "encode v1, level 1",
        "validate",
        "publish, tasks",
        "apply, tasks",
        "apply, to validation alone",
    }
    assert {row["kind"] for row in results["ledger"]} >= {"read", "copied", "hashed", "compressed", "decompressed", "compared", "written"}
    assert {"structure, kernel", "structure, tasks", "build, tasks", "seal, tasks", "assemble"} <= set(stages)
    assert all(figure["seconds"] > 0 and figure["records"] == RECORDS for stage, figure in stages.items())
    assert all(stages[stage]["ratio"] == stages[stage]["seconds"] / stages[stage]["floor_seconds"] for stage in floors)
    assert {figure["stage"] for figure in results["memory"]} == {"export", "values", "structure", "build", "seal", "publish"}
    assert len(results["targets"]) == 5
    assert {entry.split("-")[0] for entry in os.listdir(tmp_path)} == {"state"}


def test_the_tables_name_a_missed_target(capsys: pytest.CaptureFixture[str]) -> None:
    """A target that is missed is printed as missed."""
    from benchmarks.stage_results import Results, StageFigure
    from benchmarks.tables import judge, print_results

    stages = [
        StageFigure("build, kernel", 3.0, 10**6, 10**8, "hashed", 1.0, "SHA-256"),
        StageFigure("structure, kernel", 0.01, 10**6, 10**8, "keys"),
        StageFigure("validate", 2.0, 10**6, 10**8, "decoded part", 1.0, "SHA-256"),
    ]
    results = Results(10**6, 16, 1 << 29, 30 << 20, stages)
    results.targets.extend(judge(results))
    print_results(results)
    assert [target.met for target in results.targets] == [False, False, True, True]
    assert capsys.readouterr().out.count("MISSED") == 2


def test_a_number_of_records_out_of_range_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Too many records end as a usage error."""
    from benchmarks.produce import main

    with pytest.raises(SystemExit) as raised:
        main(["--records", "1000000000"])
    assert raised.value.code == 2
    assert "--records" in capsys.readouterr().err
