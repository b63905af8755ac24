"""The benchmark of whole productions runs to its end on a small state; it compares all ways' parts itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipelines.kernel.native import is_available

pytestmark = pytest.mark.skipif(not is_available(), reason="the benchmark times the native kernel, whose wheel is not installed")

RECORDS = 1_000


def test_all_ways_and_floors_come_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stages and driver make up a production, no way but that with a dataset leaves much, and only the state is left in the folder."""
    from benchmarks.whole import DRIVER, WholeFigure, WholeFigures, main, print_figures

    main(["--records", str(RECORDS), "--repeats", "1", "--folder", str(tmp_path), "--json"])
    document = json.loads(capsys.readouterr().out)
    ways = {(way["tries"], way["direct"]): way for way in document["ways"]}
    assert set(ways) == {(True, False), (True, True), (False, False), (False, True)}
    for (tries, direct), way in ways.items():
        assert way["seconds"] == pytest.approx(sum(way["stages"].values()))
        assert ("export" in way["stages"]) != direct and ("build" in way["stages"]) != tries and DRIVER in way["stages"]
        assert (way["work_bytes"] < 20 * RECORDS) == direct
        assert way["written_bytes"] > 100 * RECORDS
    assert ways[True, False]["work_bytes"] < ways[False, False]["work_bytes"]
    assert len(document["floors"]) == 6 and all(seconds > 0 for seconds in document["floors"].values())
    assert {entry.split("-")[0] for entry in os.listdir(tmp_path)} == {"state"}
    print_figures(WholeFigures(RECORDS, document["parts"], tuple(WholeFigure(**way) for way in document["ways"]), document["floors"]))
    assert "no tries, direct" in capsys.readouterr().out


@pytest.mark.slow
def test_tries_of_several_shards_are_added_once_and_part_by_part(tmp_path: Path) -> None:
    """A production of such a node publishes early, and its roots are those that the records alone give."""
    from benchmarks.scale_run import RunForm, run_in_driver
    from benchmarks.synthetic_state import synthetic_state
    from benchmarks.synthetic_trie import has_tries, state_with_tries

    bare = synthetic_state(tmp_path, 4 * RECORDS, shards=2)
    assert not has_tries(bare)
    whole = state_with_tries(bare)
    before = {path: path.stat().st_mtime_ns for path in whole.home.rglob("*")}
    assert state_with_tries(bare) == whole and before == {path: path.stat().st_mtime_ns for path in whole.home.rglob("*")}
    figure = run_in_driver(whole, tmp_path / "run", 0, by_ranges=False, form=RunForm(direct=True, num_parts=3, check=True))
    assert figure.early and figure.direct and figure.parts == 6 and figure.check_s > 0
    assert set(figure.stages) == {"structure", "boundaries", "boundary nodes", "publish", "seal"}
    assert 0 < figure.work_bytes < 40 * whole.records
