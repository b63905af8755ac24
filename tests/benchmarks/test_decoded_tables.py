"""The benchmark of decoded tables runs to its end on a small state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_figures_come_out_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All rows are written either way, raw columns take room, and a look-up reads no more than there is."""
    from benchmarks.decoded_tables import main

    main(["--records", "3000", "--folder", str(tmp_path), "--json"])
    figures = json.loads(capsys.readouterr().out)
    raw, bare = figures["writes"]
    assert raw["rows"] == bare["rows"] == 3000
    assert raw["bytes_per_row"] > bare["bytes_per_row"] > 0
    for found in figures["look_ups"]:
        assert 0 < found["row_group_bytes_max"] <= 1 << 20
        assert found["read_bytes"] > 0
