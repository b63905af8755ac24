"""Parts that are published before their shard's root: the same bytes, each validated alone, and no statement before the root is right."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dataset.arrow_dataset import load_shard
from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node.node_columns import STATE
from pipelines.near.node.node_store import NodeSource
from pipelines.near.node.rocksdb_reader import forget_readers
from pipelines.near.trie.trie_walk_source import StateWalkSource
from pipelines.producing.build.boundary_nodes import BOUNDARIES_PER_FILE
from schemas.errors import SourceError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.state_part import decode_partial_state
from tests.support.native_wheel import KERNELS
from tests.support.nodes import NODES, change_rows, context_file, copied, localnet_home, node_a, node_b, open_writable
from tests.support.records import Pairs, record_sets
from tests.support.state_rows import context_at, node_of, walk_source
from tests.support.whole_productions import WholeProduction

S0 = ShardUId(version=3, shard_id=0)
both_kernels = pytest.mark.parametrize("kernel_name", KERNELS)


def node_source(home: Path, context: EpochContext) -> NodeSource:
    """Return the source of a node."""
    return NodeSource(str(home), context)


def both_ways(folder: Path, source: NodeSource | StateWalkSource, context: EpochContext, **options: Any) -> tuple[WholeProduction, ...]:
    """Produce an epoch early and late."""
    made = tuple(
        WholeProduction(folder / name, context, source, publish_early=early, **options)
        for name, early in (("early", True), ("late", False))
    )
    for production in made:
        production.run()
    return made


def assert_early(production: WholeProduction) -> None:
    """All shards' parts were published before their roots came out."""
    for shard in production.context.shards:
        stages = production.told.stage_names(str(shard.shard_uid))
        assert stages[-3:] == ["boundary nodes", "publish", "seal"], stages
        assert "build" not in stages
    assert not list(production.folder.glob("work/**/interior-*"))


def assert_late(production: WholeProduction, shard_uid: ShardUId) -> None:
    """A shard's parts waited for its root."""
    assert production.told.stage_names(str(shard_uid))[-3:] == ["build", "seal", "publish"]


def assert_same(early: WholeProduction, late: WholeProduction) -> None:
    """Both ways left the same parts, statements and boundary nodes, to the byte."""
    assert_early(early)
    for shard in late.context.shards:
        assert_late(late, shard.shard_uid)
    assert early.parts() == late.parts()
    assert early.statements() == late.statements()
    assert early.boundary_files() == late.boundary_files() != {}


# The same bytes


def golden_digests(golden_file: Path, num_parts: int) -> dict[str, tuple[int, str]]:
    """Return nearcore's size and sha256 of every part of a node for one number of parts."""
    return {
        f"shard_id={case['shard_uid'][1:].split('.')[0]}/state_part_{part['part_id']:06d}_of_{num_parts:06d}": (
            part["size"],
            part["sha256"],
        )
        for case in json.loads(golden_file.read_text())
        if case["num_parts"] == num_parts
        for part in case["parts"]
    }


def check_golden(home: Path, golden_file: Path, folder: Path, *, both: bool, kernel_name: str) -> None:
    """Produce a node for every number of parts that nearcore's own parts are there of."""
    context = context_file(home)
    for num_parts in sorted({case["num_parts"] for case in json.loads(golden_file.read_text())}):
        expected = golden_digests(golden_file, num_parts)
        shards = tuple(shard for shard in context.shards if any(name.startswith(f"shard_id={shard.shard_id}/") for name in expected))
        wanted = replace(context, shards=shards)
        options: dict[str, Any] = {"num_parts": num_parts, "kernel_name": kernel_name}
        if both:
            early, late = both_ways(folder / str(num_parts), node_source(home, wanted), wanted, **options)
            assert_same(early, late)
        else:
            early = WholeProduction(folder / str(num_parts), wanted, node_source(home, wanted), **options)
            early.run()
            assert_early(early)
        assert {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in early.parts().items()} == expected


@both_kernels
def test_node_a_both_ways(tmp_path: Path, kernel_name: str) -> None:
    """Pending merges, values by reference, a shard born by resharding; all of nearcore's numbers of parts."""
    assert "s90.v4" in {str(shard.shard_uid) for shard in context_file(node_a()).shards}
    check_golden(node_a(), NODES / "node-a.golden.json", tmp_path, both=True, kernel_name=kernel_name)


def test_node_b_early(tmp_path: Path) -> None:
    """The larger node."""
    check_golden(node_b(), NODES / "node-b.golden.json", tmp_path, both=False, kernel_name="auto")


def test_more_boundaries_than_a_file_holds_both_ways(tmp_path: Path) -> None:
    """Several tasks read them, and a part's two boundaries may lie in two files."""
    context = context_file(node_a()).only((0, 90))
    early, late = both_ways(tmp_path, node_source(node_a(), context), context, num_parts=2 * BOUNDARIES_PER_FILE + 10)
    assert_same(early, late)
    assert len(early.boundary_files()) > len(context.shards)


@pytest.mark.parametrize("num_parts", [None, 4])
@both_kernels
def test_the_localnet_both_ways(tmp_path: Path, kernel_name: str, num_parts: int | None) -> None:
    """A real node, whose own dumper made one part a shard."""
    context = epoch_context_from_node(localnet_home(), "6")
    early, late = both_ways(tmp_path, node_source(localnet_home(), context), context, num_parts=num_parts, kernel_name=kernel_name)
    assert_same(early, late)


def test_an_older_epoch_by_a_walk_both_ways(tmp_path: Path) -> None:
    """Where flat state has gone on, records and boundary nodes both come from the State column."""
    context = epoch_context_from_node(localnet_home(), "4")
    early, late = both_ways(tmp_path, walk_source(localnet_home(), context), context, num_parts=3)
    assert_same(early, late)


@given(pairs=record_sets(), num_parts=st.integers(1, 9), file_bytes=st.sampled_from([1, 300, 1 << 20]))
@both_kernels
def test_any_trie_both_ways(
    tmp_path_factory: pytest.TempPathFactory, kernel_name: str, pairs: Pairs, num_parts: int, file_bytes: int
) -> None:
    """Keys that are prefixes of others, parts without records, boundaries at the first record."""
    folder = tmp_path_factory.mktemp("trie")
    home, (root,) = node_of(folder / "home", pairs)
    context = context_at(root)
    try:
        early, late = both_ways(
            folder, walk_source(home, context), context, num_parts=num_parts, kernel_name=kernel_name, file_bytes_target=file_bytes
        )
        assert_same(early, late)
    finally:
        forget_readers()
        shutil.rmtree(folder)


# One part after the other


def test_parts_come_out_one_by_one_before_the_root(tmp_path: Path) -> None:
    """Each step of the progress tells one part more, and the object is there; the statement comes after the root."""
    context = context_file(node_a()).only((0,))
    production = WholeProduction(tmp_path, context, node_source(node_a(), context), num_parts=5)
    seen: list[tuple[str, int, int, int]] = []
    remember = production.told.stages.append

    class Watched(list[Any]):
        def append(self, step: Any) -> None:
            remember(step)
            seen.append((step.stage, step.parts, len(production.parts()), len(production.statements())))

    production.told.stages = Watched()
    production.run()
    assert [step for step in seen if step[0] == "publish"] == [("publish", count, count, 0) for count in range(6)]
    assert seen[-1] == ("seal", 0, 5, 0)
    assert len(production.statements()) == 1


def test_the_largest_shards_parts_are_out_before_the_other_exports(tmp_path: Path) -> None:
    """The first part waits for one shard's export alone; late parts wait for all."""
    context = context_file(node_a())
    early, late = both_ways(tmp_path, node_source(node_a(), context), context, num_parts=2)
    steps = [(step.stage, step.shard) for step in early.told.stages if step.stage in ("export", "publish")]
    assert list(dict.fromkeys(steps)) == [
        *(("export", "s5.v3"), ("publish", "s5.v3"), ("export", "s0.v3"), ("export", "s90.v4")),
        *(("publish", "s0.v3"), ("publish", "s90.v4")),
    ]
    stages = [step.stage for step in late.told.stages]
    assert max(index for index, stage in enumerate(stages) if stage == "export") < stages.index("publish")


def test_a_shard_that_cannot_be_read_shows_before_any_part(tmp_path: Path) -> None:
    """The largest shard is right, and nothing of it is published."""
    context = context_file(node_a())
    unreachable = replace(context.shard(90), flat_head_target=CryptoHash(b"\x07" * 32))
    wrong = replace(context, shards=(*context.shards[:-1], unreachable))
    assert [shard.shard_id for shard in wrong.shards] == [0, 5, 90]
    production = WholeProduction(tmp_path, wrong, node_source(node_a(), wrong), num_parts=2)
    with pytest.raises(SourceError):
        production.run()
    assert production.parts() == {}
    assert production.told.stages == []


# Ways that are not open


def test_without_a_trusted_root_parts_wait(tmp_path: Path) -> None:
    """A root that the records themselves give vouches for no single part."""
    context = context_file(node_a()).only((0,))
    unknown = replace(context, shards=(replace(context.shards[0], state_root=None),))
    production = WholeProduction(tmp_path, unknown, node_source(node_a(), unknown), num_parts=5)
    production.run()
    assert_late(production, S0)
    assert not any("wait for its state root" in note for note in production.told.notes)


def test_a_dataset_that_was_there_before_waits(tmp_path: Path) -> None:
    """It has no trie nodes."""
    context = context_file(node_a()).only((0,))
    first = WholeProduction(tmp_path / "first", context, node_source(node_a(), context), num_parts=5)
    first.run()
    dataset = load_shard(str(tmp_path / "first" / "dataset"), context, S0)
    assert dataset is not None
    second = WholeProduction(tmp_path / "second", context, None, (dataset,), num_parts=5)
    second.run()
    assert_late(second, S0)
    assert second.parts() == first.parts()


def boundary_node_hash(production: WholeProduction) -> bytes:
    """Return the hash of a node that only boundaries need: of no part's first records, below the root."""
    (file,) = production.folder.rglob("boundary_nodes-000000.arrow")
    nodes = pa.ipc.open_file(file).get_batch(2).column(0).to_pylist()
    root = bytes(production.context.shards[0].state_root or b"")
    return next(found for node in nodes if (found := hashlib.sha256(node).digest()) != root)


def lose(row: bytes) -> None:
    """Take a row away."""


def spoil(row: bytes) -> bytes:
    """Change a row's first byte."""
    return bytes([row[0] ^ 1]) + row[1:]


@pytest.mark.parametrize("damage", [lose, spoil])
def test_a_node_that_lacks_a_boundary_node_falls_back(tmp_path: Path, damage: Any) -> None:
    """A row that is missing or does not hash: one line says so, and the parts are the same."""
    home = copied(node_a(), tmp_path)
    context = context_file(home).only((5,))
    whole = WholeProduction(tmp_path / "whole", context, node_source(home, context), num_parts=5)
    whole.run()
    forget_readers()
    key = context.shards[0].shard_uid.to_bytes() + boundary_node_hash(whole)
    database = open_writable(home / "data")
    family = database.get_column_family(STATE)
    row = bytes(family[key])
    family.close()
    database.close()
    change_rows(home / "data", STATE, {key: damage(row)})
    lacking = WholeProduction(tmp_path / "lacking", context, node_source(home, context), num_parts=5)
    lacking.run()
    assert_late(lacking, context.shards[0].shard_uid)
    assert lacking.parts() == whole.parts()
    assert lacking.statements() == whole.statements()
    (note,) = [note for note in lacking.told.notes if "wait for its state root" in note]
    assert "State column" in note


# Reruns


def test_a_rerun_without_its_work_folder_keeps_all_parts(tmp_path: Path) -> None:
    """Parts that are there and right are not made again; only their edges are, for the root."""
    context = context_file(node_a()).only((0,))
    first = WholeProduction(tmp_path, context, node_source(node_a(), context), num_parts=5)
    first.run()
    statements = first.statements()
    shutil.rmtree(tmp_path / "work")
    again = WholeProduction(tmp_path, context, node_source(node_a(), context), num_parts=5)
    result = again.run()
    assert all(part.reused for part in result.shards[0].parts)
    assert again.statements() == statements
    assert len(list(tmp_path.glob("work/**/edge-*"))) == 5
    assert not list(tmp_path.glob("work/**/interior-*"))


def test_a_rerun_makes_what_is_missing_or_damaged(tmp_path: Path) -> None:
    """A part that is gone and one that is damaged; an edge that is damaged; all comes out as before."""
    context = context_file(node_a()).only((0,))
    first = WholeProduction(tmp_path, context, node_source(node_a(), context), num_parts=5)
    first.run()
    parts, statements = first.parts(), first.statements()
    (gone,) = first.published.rglob("state_part_000001_of_*")
    gone.unlink()
    for pattern in ("published/**/state_part_000002_of_*", "work/**/edge-000003"):
        (damaged,) = tmp_path.glob(pattern)
        damaged.write_bytes(bytes(damaged.stat().st_size))
    again = WholeProduction(tmp_path, context, node_source(node_a(), context), num_parts=5)
    result = again.run()
    assert [part.interval.part_id.idx for part in result.shards[0].parts if not part.reused] == [1, 2]
    assert (again.parts(), again.statements()) == (parts, statements)


def test_each_way_takes_up_what_the_other_left(tmp_path: Path) -> None:
    """A run that found no State column goes on in the folder of one that did, and the other way round."""
    context = context_file(node_a()).only((5,))
    for early in (True, False, True):
        production = WholeProduction(tmp_path, context, node_source(node_a(), context), num_parts=5, publish_early=early)
        production.run()
        for path in [*production.published.rglob("state_part_00000[13]_of_*")]:
            path.unlink()
    final = WholeProduction(tmp_path, context, node_source(node_a(), context), num_parts=5, publish_early=False)
    final.run()
    other = WholeProduction(tmp_path / "other", context, node_source(node_a(), context), num_parts=5)
    other.run()
    assert final.parts() == other.parts()
    assert final.statements() == other.statements()


def test_a_part_holds_its_boundary_nodes(tmp_path: Path) -> None:
    """What the State column gave went into the parts."""
    context = context_file(node_a()).only((0,))
    production = WholeProduction(tmp_path, context, node_source(node_a(), context), num_parts=3)
    production.run()
    (file,) = tmp_path.rglob("boundary_nodes-000000.arrow")
    reader = pa.ipc.open_file(file)
    parts = production.parts()
    for row, names in ((1, (0, 1)), (2, (1, 2))):
        nodes = set(reader.get_batch(row).column(0).to_pylist())
        for idx in names:
            entries = {bytes(entry) for entry in decode_partial_state(pa.py_buffer(parts[f"shard_id=0/state_part_{idx:06d}_of_000003"]))}
            assert nodes <= entries
