"""An older epoch's dataset rolled forward: the same state as a fresh export, by rewriting what changed and nothing else."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings

from pipelines.dataset.arrow_dataset import ShardDataset, load_shard
from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_records import ExportSettings, discard_export
from pipelines.dataset.roll_forward.roll_forward_shard import roll_forward_shard
from pipelines.dataset.verify_dataset import verify_dataset
from pipelines.execution.stage_runner import silent_runner
from pipelines.kernel.choice import choose_kernel
from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node.node_columns import STATE_CHANGES
from pipelines.near.node.node_home import read_node_home
from pipelines.near.node.rocksdb_reader import RocksDbReader
from pipelines.near.trie.changed_records import find_known_layout
from schemas.errors import SnapshotMismatchError
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.shard_layout import ShardLayout
from tests.support.nodes import change_rows, copied, localnet_home
from tests.support.records import Pairs, pairs_of, record_sets
from tests.support.state_rows import context_at, node_of, walk_source

RUNNER = silent_runner()


def small_files(folder: Path) -> ExportSettings:
    """Return settings that make many files of the real node's small shards."""
    return ExportSettings(str(folder / "dataset"), range_bytes_target=30_000, record_batch_bytes_max=4_000, file_bytes_target=20_000)


def epoch(height: int) -> EpochContext:
    """Return an epoch of the real node."""
    return epoch_context_from_node(localnet_home(), str(height))


def exported(context: EpochContext, export: ExportSettings, home: Path | None = None) -> list[ShardDataset]:
    """Export an epoch by a walk."""
    return export_epoch(RUNNER, walk_source(home or localnet_home(), context), context, export)


def layout_of(context: EpochContext) -> ShardLayout:
    """Return the real chain's shard layout."""
    layout = find_known_layout(read_node_home(localnet_home()), frozenset(shard.shard_uid for shard in context.shards))
    assert layout is not None
    return layout


def rolled(
    older: ShardDataset, context: EpochContext, export: ExportSettings, *, layout: ShardLayout | None, home: Path | None = None
) -> ShardDataset:
    """Roll one shard forward."""
    shard = context.shard(older.summary.shard.shard_id)
    return roll_forward_shard(RUNNER, str(home or localnet_home()), older, context, shard, layout=layout, settings=export)


def pairs_in(dataset: ShardDataset) -> list[tuple[bytes, bytes]]:
    """Read a dataset's records with their values."""
    batches = [batch for index in range(len(dataset.summary.files)) for batch in dataset.read_file(index)]
    return pairs_of(batches, dataset.read_values(batches))


@pytest.mark.parametrize("by_tries", [False, True], ids=["by StateChanges", "by the tries"])
def test_an_older_epoch_becomes_the_newest(tmp_path: Path, by_tries: bool) -> None:
    """All shards of the real node over two epochs, one after the other; proved, and equal to a fresh export."""
    export = small_files(tmp_path)
    datasets = exported(epoch(4), export)
    for height in (5, 6):
        context = epoch(height)
        layout = None if by_tries else layout_of(context)
        datasets = [
            verify_dataset(RUNNER, choose_kernel("auto"), rolled(older, context, export, layout=layout), None) for older in datasets
        ]
    fresh = exported(epoch(6), small_files(tmp_path / "fresh"))
    assert [pairs_in(dataset) for dataset in datasets] == [pairs_in(dataset) for dataset in fresh]
    assert load_shard(export.dataset_url, epoch(6), datasets[0].summary.shard.shard_uid) == datasets[0]


def test_files_without_changes_are_the_same_files(tmp_path: Path) -> None:
    """Not a byte of them is copied; the few others are new, and nothing else is left behind."""
    export = small_files(tmp_path)
    older = exported(epoch(4), export)[3]
    newer = rolled(older, epoch(5), export, layout=layout_of(epoch(5)))
    root = tmp_path / "dataset"

    def files(dataset: ShardDataset) -> set[int]:
        return {(root / dataset.folder / file.name).stat().st_ino for file in dataset.summary.all_files}

    assert len(files(newer) - files(older)) <= 2
    assert len(files(older)) > 20
    listed = {f"{newer.folder}/{file.name}" for file in newer.summary.all_files}
    there = {str(path.relative_to(root)) for path in (root / newer.folder).rglob("*") if path.is_file()}
    header = {f"{newer.folder}/state_header"} if newer.summary.has_state_header else set()
    assert there == {*listed, f"{newer.folder}/shard.json", *header}


def test_the_older_dataset_can_go(tmp_path: Path) -> None:
    """The newer one stands alone; discarding it leaves the older one whole, too."""
    export = small_files(tmp_path)
    older = exported(epoch(4), export)[3]
    before = pairs_in(older)
    newer = rolled(older, epoch(5), export, layout=layout_of(epoch(5)))
    discard_export(newer)
    assert pairs_in(older) == before
    newer = rolled(older, epoch(5), export, layout=layout_of(epoch(5)))
    discard_export(older)
    verify_dataset(RUNNER, choose_kernel("auto"), newer, None)


def test_a_store_without_links_copies(tmp_path: Path) -> None:
    """From a folder into an object store."""
    older = exported(epoch(4), small_files(tmp_path))[3]
    newer = rolled(older, epoch(5), ExportSettings(f"memory://{tmp_path.name}"), layout=layout_of(epoch(5)))
    verify_dataset(RUNNER, choose_kernel("auto"), newer, None)
    assert len(newer.summary.files) == len(older.summary.files)


def test_gone_state_changes_are_named(tmp_path: Path) -> None:
    """Nothing is made of half the changes."""
    home = copied(localnet_home(), tmp_path)
    with RocksDbReader(home / "data", (STATE_CHANGES,)) as reader:
        every = [key for rows in reader.scan(STATE_CHANGES, b"", None) for key, _ in rows]
    change_rows(home / "data", STATE_CHANGES, dict.fromkeys(every))
    export = small_files(tmp_path)
    older = exported(epoch(4), export)[0]
    with pytest.raises(SnapshotMismatchError, match=r"state changes of block .* are gone"):
        rolled(older, epoch(5), export, layout=layout_of(epoch(5)), home=home)
    assert load_shard(export.dataset_url, epoch(5), older.summary.shard.shard_uid) is None


@settings(max_examples=12)
@given(older=record_sets(), newer=record_sets())
def test_any_state_becomes_any_other(tmp_path_factory: pytest.TempPathFactory, older: Pairs, newer: Pairs) -> None:
    """Large values, all kinds of keys, everything or nothing in common."""
    folder = tmp_path_factory.mktemp("node")
    home, (old_root, new_root) = node_of(folder, older, newer)
    export = ExportSettings(str(folder / "dataset"), range_bytes_target=2_000, record_batch_bytes_max=300, file_bytes_target=1_000)
    (dataset,) = exported(context_at(old_root), export, home)
    result = rolled(dataset, context_at(new_root), ExportSettings(str(folder / "other")), layout=None, home=home)
    assert pairs_in(verify_dataset(RUNNER, choose_kernel("auto"), result, None)) == list(newer)


def test_changed_batches_keep_the_datasets_schema(tmp_path: Path) -> None:
    """A file that was written again says of which epoch it is; a reused one still says for which it was written."""
    export = small_files(tmp_path)
    older = exported(epoch(4), export)[0]
    newer = rolled(older, epoch(5), export, layout=layout_of(epoch(5)))
    heights = set()
    for file in newer.summary.files:
        with pa.memory_map(str(tmp_path / "dataset" / newer.folder / file.name)) as source:
            heights.add(pa.ipc.open_file(source).schema.metadata[b"statecast.epoch_height"])
    assert heights == {b"4", b"5"}


def test_values_become_shared_and_are_shared_no_more(tmp_path: Path) -> None:
    """Each record finds its value over two epochs, whichever other records refer to it; what was shared is never stored a second time."""
    one, two, three, four, five = (bytes([letter]) * 5000 for letter in b"12345")
    states: list[Pairs] = [
        [(b"a", one), (b"b", two), (b"c", three), (b"d", three), (b"e", b"short"), (b"x", four)],
        # One becomes shared, three has one record left, two of the new records share five, one is like what was shared before.
        [(b"a", one), (b"b", one), (b"c", three), (b"e", five), (b"f", five), (b"g", three), (b"x", four)],
        # Of one, five and three a single record is left; two comes back.
        [(b"b", one), (b"c", b"short"), (b"e", two), (b"f", five), (b"g", three), (b"x", four)],
    ]
    home, roots = node_of(tmp_path / "node", *states)
    export = ExportSettings(str(tmp_path / "0"), range_bytes_target=2_000, file_bytes_target=1_000)
    (dataset,) = exported(context_at(roots[0]), export, home)
    stored: list[tuple[list[bytes], list[bytes]]] = []
    for number, (root, state) in enumerate(zip(roots[1:], states[1:], strict=True), 1):
        there = replace(export, dataset_url=str(tmp_path / str(number)))
        dataset = verify_dataset(RUNNER, choose_kernel("auto"), rolled(dataset, context_at(root), there, layout=None, home=home), None)
        assert pairs_in(dataset) == state
        own = [row for index in range(len(dataset.summary.values_files)) for row in dataset.read_own_values_file(index)]
        shared = [row for index in range(len(dataset.summary.shared_values_files)) for row in dataset.read_shared_values_file(index)]
        stored.append(tuple([value[:1] for batch in kind for value in batch["value"].to_pylist()] for kind in (own, shared)))  # type: ignore[arg-type]
    assert stored[0] == ([b"1", b"1", b"4"], sorted([b"3", b"5"], key=lambda value: sha256(value * 5000).digest()))
    assert stored[1][0].count(b"2") == 1 and stored[1][1] == stored[0][1]


def test_own_values_without_changes_are_the_same_files(tmp_path: Path) -> None:
    """A changed value rewrites the file that its key belongs to, and no other."""
    # Two do not fit into a record batch, which is the least that goes into a file.
    older = [(b"key%03d" % number, b"%03d" % number * 200_000) for number in range(12)]
    newer = [(key, b"new" * 200_000 if key == b"key007" else value) for key, value in older]
    home, roots = node_of(tmp_path / "node", older, newer)
    export = ExportSettings(str(tmp_path / "0"), file_bytes_target=20_000)
    (dataset,) = exported(context_at(roots[0]), export, home)
    result = rolled(dataset, context_at(roots[1]), replace(export, dataset_url=str(tmp_path / "1")), layout=None, home=home)

    def files(one: ShardDataset) -> set[int]:
        return {Path(one.url.removeprefix("file://"), one.folder, file.name).stat().st_ino for file in one.summary.values_files}

    assert len(files(dataset)) == 12
    assert len(files(dataset) - files(result)) == 1
    assert pairs_in(result) == newer
