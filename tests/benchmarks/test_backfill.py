"""The backfill's benchmark runs to its end on small states, and its figures are of what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.kernel.native import is_available

pytestmark = pytest.mark.skipif(
    not is_available(), reason="the benchmark builds tries with the native kernel, whose wheel is not installed"
)


def test_the_benchmark_prints_every_way_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both exports of each size, and a roll forward for each number and place of changes; what was made goes."""
    from benchmarks.backfill import main

    main(["--records", "2000,4000", "--changes", "10,100", "--repeats", "1", "--folder", str(tmp_path), "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert [(read["way"], read["records"]) for read in figures["reads"]] == [
        (way, records) for records in (2000, 4000) for way in ("flat state", "state walk")
    ]
    assert [(roll["records"], roll["spread"], roll["changes"]) for roll in figures["rolls"]] == [
        (records, spread, changes) for records in (2000, 4000) for spread in (False, True) for changes in (10, 100)
    ]
    assert all(1 <= roll["files_touched"] <= roll["files"] for roll in figures["rolls"])
    assert {path.name.split("-")[0] for path in tmp_path.iterdir()} == {"state"}


def test_what_is_rolled_forward_is_the_changed_state(tmp_path: Path) -> None:
    """The timed result hashes to the changed state's own root, and the walked one to the first."""
    from benchmarks.backfill import _export, _runner, _settings
    from benchmarks.synthetic_state import synthetic_state
    from benchmarks.synthetic_trie import trie_state
    from pipelines.dataset.roll_forward.roll_forward_shard import roll_forward_shard
    from pipelines.dataset.verify_dataset import verify_dataset
    from pipelines.kernel.choice import choose_kernel
    from pipelines.near.node.node_store import NodeSource
    from pipelines.near.trie.trie_walk_source import StateWalkSource

    tries = trie_state(synthetic_state(tmp_path, 2000), tmp_path / "home", [(50, True)])
    walk = StateWalkSource.of(NodeSource(str(tries.home), tries.context), (tries.context.shards[0].shard_uid,))
    older = verify_dataset(_runner(), choose_kernel("native"), _export(walk, tries.context, tmp_path / "data"), None)
    context = tries.changed[0].context
    rolled = roll_forward_shard(
        _runner(), str(tries.home), older, context, context.shards[0], layout=None, settings=_settings(tmp_path / "data")
    )
    verify_dataset(_runner(), choose_kernel("native"), rolled, None)
    assert rolled.summary.shard.state_root != older.summary.shard.state_root
