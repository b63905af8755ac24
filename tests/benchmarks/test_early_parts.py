"""The benchmark of early parts runs to its end on a small state; it compares both ways' parts itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipelines.kernel.native import is_available

pytestmark = pytest.mark.skipif(not is_available(), reason="the benchmark builds its tries with the native kernel, which is not installed")


def test_both_ways_come_out_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways' seconds are in order, interiors are written one way only, and boundaries that share a task read less."""
    from benchmarks.early_parts import EARLY, LATE, main

    main(["--records", "3000", "--num-parts", "6", "--repeats", "1", "--folder", str(tmp_path), "--json"])
    figures = json.loads(capsys.readouterr().out)
    ways = {way["way"]: way for way in figures["ways"]}
    assert figures["parts"] == 6
    for way in ways.values():
        assert 0 < way["exported_s"] <= way["first_part_s"] <= way["last_part_s"] <= way["whole_s"]
    assert ways[EARLY]["work_bytes"] < ways[LATE]["work_bytes"]
    boundaries = figures["boundaries"]
    assert boundaries["boundaries"] == 5
    assert boundaries["rows_together"] < boundaries["rows_alone"]
    assert {entry.split("-")[0] for entry in os.listdir(tmp_path)} == {"state"}


def test_a_shard_in_one_part_has_no_boundary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many parts as nearcore makes of a small state."""
    from benchmarks.early_parts import main

    main(["--records", "1000", "--repeats", "1", "--folder", str(tmp_path)])
    assert "0 boundaries" in capsys.readouterr().out
