"""The benchmark of deltas runs to its end on a small state, and what it times is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.kernel.native import is_available

pytestmark = pytest.mark.skipif(
    not is_available(), reason="the benchmark builds tries with the native kernel, whose wheel is not installed"
)


def test_the_benchmark_prints_each_share_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Spread and together, each rebuilt and compared with the published parts; what was made goes."""
    from benchmarks.deltas import main

    main(["--records", "2000", "--shares", "0.01,0.3", "--num-parts", "3", "--folder", str(tmp_path), "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert [(one["changes"], one["spread"], one["parts"]) for one in figures] == [
        (20, False, 3),
        (20, True, 3),
        (600, False, 3),
        (600, True, 3),
    ]
    assert all(0 < one["delta_bytes"] < one["whole_bytes"] for one in figures)
    assert {path.name.split("-")[0] for path in tmp_path.iterdir()} == {"state"}
