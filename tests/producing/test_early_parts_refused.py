"""Records that contradict the trusted root: the part is named and not put, what was put stays right, no statement is written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.part_check import verify_part
from pipelines.near.node.node_columns import FLAT_STATE
from pipelines.near.node.node_store import NodeSource
from pipelines.near.node.rocksdb_reader import forget_readers
from schemas.errors import StateRootMismatchError
from schemas.ids import PartId
from schemas.nearcore.state_part import Encoding
from schemas.published.torrent import LEAF_BYTES
from tests.support.changed_flat_state import S0, change_value, flat_row
from tests.support.nodes import change_rows, context_file, copied, node_a, snapshot_folder
from tests.support.whole_productions import WholeProduction


def test_a_part_with_a_changed_value_is_not_put(tmp_path: Path) -> None:
    """The part and its keys are named, and the key in it; the parts before it are there, and each is right."""
    home = copied(node_a(), tmp_path)
    key, _ = flat_row(home, -1)
    change_value(home)
    context = context_file(home).only((0,))
    production = WholeProduction(tmp_path / "made", context, NodeSource(str(home), context), num_parts=5)
    with pytest.raises(StateRootMismatchError) as raised:
        production.run()
    error = raised.value
    assert error.part_id is not None
    assert f"part {error.part_id}/5" in error.problem
    assert "keys" in error.where
    assert key.removeprefix(S0.to_bytes()).hex() in error.where
    parts = production.parts()
    assert sorted(parts) == [f"shard_id=0/state_part_{idx:06d}_of_000005" for idx in range(error.part_id)]
    state_root = context.shards[0].state_root
    assert state_root is not None
    for idx, data in enumerate(parts[name] for name in sorted(parts)):
        verify_part(choose_kernel("auto"), data, Encoding.V0, state_root, PartId(idx, 5), piece_length=LEAF_BYTES)
    assert production.statements() == {}


def test_a_mended_node_is_exported_anew_after_a_refused_part(tmp_path: Path) -> None:
    """The same folders, after the node has come right: what was put stays."""
    home = copied(node_a(), tmp_path)
    number = -1
    key, row = flat_row(home, number)
    change_value(home, number)
    context = context_file(home).only((0,))
    refused = WholeProduction(tmp_path / "made", context, NodeSource(str(home), context), num_parts=5)
    with pytest.raises(StateRootMismatchError):
        refused.run()
    put = refused.parts()
    assert not list(tmp_path.glob("made/dataset/**/shard.json"))
    forget_readers()
    for folder in (snapshot_folder(home), home / "data"):
        change_rows(folder, FLAT_STATE, {key: row})
    mended = WholeProduction(tmp_path / "made", context, NodeSource(str(home), context), num_parts=5)
    result = mended.run()
    assert sum(part.reused for part in result.shards[0].parts) == len(put) > 0
    assert mended.parts().items() >= put.items()
    assert len(mended.parts()) == 5


def test_a_part_of_an_honest_producer_does_not_hide_a_changed_value(tmp_path: Path) -> None:
    """The wrong record's part is there already and right; the root that the records hash to is not, so no statement is written."""
    honest = WholeProduction(
        tmp_path / "made", context := context_file(node_a()).only((0,)), NodeSource(str(node_a()), context), num_parts=5
    )
    honest.run()
    parts = honest.parts()
    for pattern in ("**/manifest.json", "**/manifests/*", "**/statements/*", "**/latest.json"):
        for path in list(honest.published.glob(pattern)):
            path.unlink()
    shutil.rmtree(tmp_path / "made" / "work")
    shutil.rmtree(tmp_path / "made" / "dataset")
    home = change_value(copied(node_a(), tmp_path))
    wrong = WholeProduction(tmp_path / "made", context, NodeSource(str(home), context), num_parts=5)
    with pytest.raises(StateRootMismatchError, match="No statement"):
        wrong.run()
    assert wrong.parts() == parts
    assert wrong.statements() == {}


def test_records_of_another_memory_usage_put_nothing(tmp_path: Path) -> None:
    """A record too few shows before anything is built, and is named when all is."""
    home = copied(node_a(), tmp_path)
    key, _ = flat_row(home, 3)
    for folder in (snapshot_folder(home), home / "data"):
        change_rows(folder, FLAT_STATE, {key: None})
    context = context_file(home).only((0,))
    production = WholeProduction(tmp_path / "made", context, NodeSource(str(home), context), num_parts=5)
    with pytest.raises(StateRootMismatchError):
        production.run()
    assert production.parts() == {}
    assert any("memory usage" in note for note in production.told.notes)


def test_records_of_another_root_put_nothing(tmp_path: Path) -> None:
    """A trusted root of another shard, whose trie does not have the records' boundaries."""
    context = context_file(node_a())
    other = replace(context.only((0,)), shards=(replace(context.shard(0), state_root=context.shard(90).state_root),))
    production = WholeProduction(tmp_path, other, NodeSource(str(node_a()), other), num_parts=5)
    with pytest.raises(StateRootMismatchError):
        production.run()
    assert production.parts() == {}


def test_early_parts_are_validated_always(tmp_path: Path) -> None:
    """Validation can be left out only where the shard's root has come out."""
    home = change_value(copied(node_a(), tmp_path))
    context = context_file(home).only((0,))
    with pytest.raises(StateRootMismatchError):
        WholeProduction(tmp_path / "made", context, NodeSource(str(home), context), num_parts=5, validate=False).run()
