"""The benchmark of a ladder runs to its end on a small state, and its figures are those of the bucket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.kernel.native import is_available

pytestmark = pytest.mark.skipif(not is_available(), reason="the benchmark needs the native kernel, whose wheel is not installed")


def test_the_benchmark_measures_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A figure an epoch; the ladder keeps and moves less from the third on."""
    pytest.importorskip("matplotlib")
    from benchmarks.ladder import main

    main(
        ["--records", "1000", "--epochs", "4", "--every", "2", "--folder", str(tmp_path), "--json", "--plot", str(tmp_path / "ladder.svg")]
    )
    figures = json.loads(capsys.readouterr().out)
    assert [one["epochs"] for one in figures] == [1, 2, 3, 4]
    assert figures[0]["kept_whole"] == figures[0]["kept_by_ladder"] == figures[0]["moved_by_deltas"]
    assert figures[2]["kept_by_ladder"] < figures[2]["kept_whole"]
    assert figures[3]["moved_by_deltas"] < figures[3]["moved_whole"] / 2
    assert (tmp_path / "ladder.svg").read_text().startswith("<?xml")
