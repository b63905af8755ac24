"""``statecast deltas`` and ``--deltas`` of those who publish: the real node's epochs, whichever way the changes are found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.bucket.published_epoch import read_manifest
from pipelines.execution.stage_runner import silent_runner
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.deltas.ladder import published_layouts
from pipelines.producing.rebuild.rebuild_published import PublishedRebuild
from pipelines.stores.open_store import open_store
from schemas.errors import EpochNotReadyError
from schemas.published.manifest import Manifest
from tests.support.commands import Outcome, statecast
from tests.support.nodes import localnet
from tests.support.published import produce_localnet, signing_key
from tests.support.published_ladder import LADDER_SHARDS, published_ladder


def manifests(folder: Path) -> dict[int, Manifest]:
    """Return the newest manifest of each epoch."""
    store = open_store(str(folder))
    chain_id = next(folder.glob("chain_id=*")).name.removeprefix("chain_id=")
    found = (read_manifest(store, layout) for layout in published_layouts(store, chain_id))
    return {one.manifest.epoch_height: one.manifest for one in found if one is not None}


def deltas_in(folder: Path) -> dict[str, bytes]:
    """Return all objects of deltas by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("delta_*.arrow")}


def without_deltas(folder: Path, *heights: int) -> Path:
    """Copy the published epochs without the deltas of some, as a run leaves them that was killed after the manifest."""
    shutil.copytree(published_ladder(), folder)
    for height in heights:
        (epoch,) = folder.glob(f"chain_id=*/epoch_height={height}/*")
        shutil.rmtree(epoch / "deltas")
        shutil.copy(epoch / "manifests" / "000001.json", epoch / "manifest.json")
        for revision in sorted((epoch / "manifests").iterdir())[1:]:
            revision.unlink()
    return folder


def deltas(folder: Path, *options: object) -> Outcome:
    """Run the command in this process."""
    return statecast(
        "deltas", folder, "--signing-key", signing_key(), "--work", f"file://{folder}-work", "--in-process", "--json", *options
    )


def test_a_backfill_makes_a_ladder() -> None:
    """Each epoch has a delta a shard from the one before and from the last rung."""
    assert {height: [one.base_epoch_height for one in found.deltas] for height, found in manifests(published_ladder()).items()} == {
        4: [],
        5: [4] * LADDER_SHARDS,
        6: [4, 5] * LADDER_SHARDS,
    }


@pytest.mark.parametrize("kernel_name", ["native", "reference"])
def test_parts_of_later_epochs_come_back_as_neard_dumped_them(kernel_name: str, tmp_path: Path) -> None:
    """Of epoch 4 and the deltas alone: 5 by one, 6 by one and by two."""
    known = manifests(published_ladder())
    for number, heights in enumerate(((4, 5), (4, 6), (4, 5, 6))):
        target, into = known[heights[-1]], tmp_path / str(number)
        (dumped,) = (localnet() / "dump").glob(f"*/epoch_height={target.epoch_height}/*")
        runner = silent_runner()
        rebuild = PublishedRebuild(runner, choose_kernel(kernel_name), str(published_ladder()), str(tmp_path / "work"), str(into))
        for shard in target.shards:
            (part,) = rebuild.run([known[height] for height in heights], shard.shard_id)
            (made,) = into.glob(f"*/*/*/shard_id={shard.shard_id}/*")
            assert made.read_bytes() == (dumped / f"shard_id={shard.shard_id}" / made.name).read_bytes()
            assert not part.is_reencoded


def test_a_missing_rung_is_named(tmp_path: Path) -> None:
    """A ladder without one of its steps."""
    known = manifests(published_ladder())
    runner = silent_runner()
    rebuild = PublishedRebuild(runner, choose_kernel(), str(published_ladder()), str(tmp_path / "work"), str(tmp_path / "into"))
    with pytest.raises(EpochNotReadyError, match="epoch 5 lists no delta of shard 1 from epoch 6"):
        rebuild.run([known[6], known[5]], 1)


def test_a_delta_is_tried_on_request(tmp_path: Path) -> None:
    """All parts of the later epoch are rebuilt; a damaged object of a listed delta ends the command."""
    folder = shutil.copytree(published_ladder(), tmp_path / "bucket")
    assert deltas(folder, "--ladder", 2, "--check").code == 0
    lost = next(folder.glob("chain_id=*/epoch_height=6/*/deltas/*/shard_id=1/*"))
    lost.write_bytes(lost.read_bytes()[:-1] + b"x")
    outcome = deltas(folder, "--ladder", 2, "--check")
    assert outcome.code == 20
    assert str(lost.name) in outcome.stderr


def test_published_parts_give_the_deltas_of_the_tries(tmp_path: Path) -> None:
    """Byte for byte; and where all are there the command makes nothing."""
    folder = without_deltas(tmp_path / "bucket", 6)
    outcome = deltas(folder, "--ladder", 2)
    assert outcome.code == 0, outcome.stderr
    assert len(outcome.document["made"]) == 2 * LADDER_SHARDS
    assert deltas_in(folder) == deltas_in(published_ladder())
    again = deltas(folder, "--epoch", 6, "--base", 4)
    assert again.document["made"] == []
    assert len(again.document["deltas"]) == LADDER_SHARDS


def test_a_producer_makes_the_deltas_that_a_killed_run_has_not(tmp_path: Path) -> None:
    """The epoch is published: the same command makes the rest, out of the node's two tries."""
    folder = without_deltas(tmp_path / "bucket", 6)
    outcome = produce_localnet(folder, "--deltas", 2)
    assert outcome.code == 0, outcome.stderr
    assert deltas_in(folder) == deltas_in(published_ladder())
    assert manifests(folder)[6].deltas == manifests(published_ladder())[6].deltas


def test_a_production_makes_deltas_when_its_epoch_is_published(tmp_path: Path) -> None:
    """From an earlier epoch in the bucket; the report draws what that saves."""
    folder = shutil.copytree(published_ladder(), tmp_path / "bucket")
    shutil.rmtree(next(folder.glob("chain_id=*/epoch_height=6")))
    (folder / next(folder.glob("chain_id=*")).name / "catalogue.json").unlink()
    report = tmp_path / "report.html"
    outcome = produce_localnet(folder, "--deltas", 2, "--report", report)
    assert outcome.code == 0, outcome.stderr
    assert deltas_in(folder) == deltas_in(published_ladder())
    html = report.read_text()
    assert "What deltas save" in html and "The 3 newest epochs" in html and html.count("<svg") == 5


def test_an_object_is_what_readers_of_arrow_files_take() -> None:
    """Keys in order, and values or nothing."""
    name, content = next(iter(deltas_in(published_ladder()).items()))
    table = pa.ipc.open_file(content).read_all()
    assert table.column_names == ["key", "value"]
    assert table.num_rows
    assert "/deltas/base_epoch_id=" in name


def test_what_can_not_be_is_told(tmp_path: Path) -> None:
    """No lower epoch, no such epoch, two ways to say which, an epoch's URL, a base where a shard's parts are gone."""
    folder = published_ladder()
    assert deltas(folder, "--epoch", 4).code == 11
    assert deltas(folder, "--epoch", 9).code == 11
    assert deltas(folder, "--epoch", 5, "--base", 6).code == 11
    assert deltas(folder, "--base", 4, "--ladder", 2).code == 2
    assert deltas(next(folder.glob("chain_id=*/epoch_height=6/*"))).code == 2
    copy = without_deltas(tmp_path / "bucket", 6)
    shutil.rmtree(next(copy.glob("chain_id=*/epoch_height=4/*/shard_id=2")))
    outcome = deltas(copy, "--base", 4)
    assert outcome.code == 3
    assert outcome.document["missing"] == 1
    assert len(outcome.document["made"]) == LADDER_SHARDS - 1
