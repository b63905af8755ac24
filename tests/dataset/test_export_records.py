"""The exported dataset: readable by others, resumable, and refused where it is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import polars
import pyarrow as pa
import pyarrow.dataset
import pytest

from pipelines.dataset.arrow_dataset import ShardDataset, list_shards, load_shard, select_epoch
from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_records import ExportSettings
from pipelines.dataset.record_files import FileFormat
from pipelines.dataset.verify_dataset import verify_dataset
from pipelines.execution.stage_runner import StageRunner, silent_runner
from pipelines.kernel.choice import choose_kernel
from pipelines.near.node.flat_state_source import KeyRange
from schemas.errors import DatasetError, EpochNotReadyError, RecordOrderError, StateRootMismatchError, ValueMismatchError
from schemas.ids import ZERO_HASH
from schemas.nearcore.epoch_context import ShardContext
from tests.support.list_source import ListSource, context_of, list_source

PAIRS = [(b"\x00account%03d" % number, b"v" * (number * 47)) for number in range(200)]


def runner() -> StageRunner:
    """Return a runner in this process."""
    return silent_runner()


def export(folder: Path, source: ListSource | None = None, file_format: FileFormat = FileFormat.IPC) -> ShardDataset:
    """Export a small shard in several ranges and files."""
    settings = ExportSettings(str(folder), file_format, file_bytes_target=40_000)
    (dataset,) = export_epoch(runner(), source or list_source(PAIRS, [50, 120], 16), context_of(None), settings)
    return dataset


def files_below(folder: Path, suffix: str) -> list[Path]:
    """Return files of a suffix, by name."""
    return sorted(path for path in folder.rglob(f"*{suffix}") if "ranges" not in path.parts)


def test_plain_pyarrow_reads_the_records(tmp_path: Path) -> None:
    """Every record comes out in key order, with the documented metadata in each file's schema."""
    dataset = export(tmp_path)

    table = pa.dataset.dataset(tmp_path / dataset.folder / "flat_state", format="ipc").to_table()

    assert [key for key, _ in PAIRS] == table.column("key").to_pylist()
    assert [len(value) for _, value in PAIRS] == table.column("value_length").to_pylist()
    with pa.OSFile(str(files_below(tmp_path, ".arrow")[0])) as file:
        assert pa.ipc.open_file(file).schema.metadata[b"statecast.shard_uid"] == b"s0.v0"


def test_polars_reads_the_records(tmp_path: Path) -> None:
    """Polars scans the IPC files as they are."""
    dataset = export(tmp_path)

    frame = polars.scan_ipc(tmp_path / dataset.folder / "flat_state" / "*.arrow").collect()

    assert [key for key, _ in PAIRS] == frame["key"].to_list()


def test_duckdb_reads_the_parquet_files(tmp_path: Path) -> None:
    """DuckDB reads records and values of a Parquet export."""
    dataset = export(tmp_path, file_format=FileFormat.PARQUET)
    folder = tmp_path / dataset.folder

    counted = duckdb.sql(f"select count(*), sum(value_length) from read_parquet('{folder}/flat_state/*.parquet')").fetchall()
    values = duckdb.sql(f"select count(*) from read_parquet('{folder}/values/*.parquet')").fetchall()

    assert [(200, sum(len(value) for _, value in PAIRS))] == counted
    assert [(len([value for _, value in PAIRS if len(value) > 4000]),)] == values


@pytest.mark.parametrize("file_format", list(FileFormat))
def test_an_exported_dataset_hashes_to_the_same_root_in_either_format(tmp_path: Path, file_format: FileFormat) -> None:
    """IPC and Parquet hold the same state."""
    kernel = choose_kernel("reference")
    one = verify_dataset(runner(), kernel, export(tmp_path / "one"), list_source(PAIRS))

    dataset = verify_dataset(runner(), kernel, export(tmp_path / "other", file_format=file_format), list_source(PAIRS))

    assert one is not None and dataset is not None
    assert one.summary.verified_state_root == dataset.summary.verified_state_root
    loaded = load_shard(str(tmp_path / "other"), dataset.summary.context, dataset.summary.shard.shard_uid)
    assert loaded is not None
    assert dataset.summary == loaded.summary


def test_a_rerun_exports_only_the_ranges_that_are_not_whole(tmp_path: Path) -> None:
    """With one range's file gone, its task alone runs again; the others' files are not touched."""
    dataset = export(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in files_below(tmp_path, ".arrow")}
    lost = tmp_path / dataset.folder / dataset.summary.files[-1].name
    lost.unlink()

    export(tmp_path)

    last_range = lost.name[: len("range-000000")]
    after = {path: path.stat().st_mtime_ns for path in before}
    assert lost.exists()
    assert all(after[path] == before[path] for path in before if "flat_state" in path.parts and not path.name.startswith(last_range))


def test_an_export_of_other_records_is_not_reused(tmp_path: Path) -> None:
    """The source's fingerprint is part of what a rerun compares."""
    export(tmp_path)

    again = export(tmp_path, list_source([*PAIRS, (b"\xff", b"new")], [50, 120], 16))

    assert again.summary.records == 201


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _cut_to_same_size(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


@pytest.mark.parametrize("damage", [_truncate, _cut_to_same_size, Path.unlink])
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """A truncated, blanked or missing Arrow file is a dataset error that names it."""
    dataset = export(tmp_path)
    victim = tmp_path / dataset.folder / dataset.summary.files[1].name
    damage(victim)

    with pytest.raises(DatasetError) as caught:
        verify_dataset(runner(), choose_kernel("reference"), dataset, None)

    assert victim.name in str(caught.value)


def test_another_root_than_the_chains_is_refused_and_the_export_forgotten(tmp_path: Path) -> None:
    """An export that does not hash to the trusted root names both roots and is not reused by the next run."""
    dataset = export(tmp_path)
    shard = replace(dataset.summary.shard, state_root=ZERO_HASH)
    claimed = replace(dataset, summary=replace(dataset.summary, context=replace(dataset.summary.context, shards=(shard,))))

    with pytest.raises(StateRootMismatchError) as caught:
        verify_dataset(runner(), choose_kernel("reference"), claimed, list_source(PAIRS))

    assert str(ZERO_HASH) == caught.value.expected
    assert load_shard(str(tmp_path), dataset.summary.context, shard.shard_uid) is None


def test_keys_out_of_order_are_refused(tmp_path: Path) -> None:
    """A source whose batches overlap can't be exported."""
    with pytest.raises(RecordOrderError):
        export(tmp_path, list_source([PAIRS[3], PAIRS[1], PAIRS[2]], [], 1))


class _SourceOutsideItsRange(ListSource):
    def key_ranges(self, shard: object, range_bytes_target: int) -> tuple[KeyRange, ...]:
        return (KeyRange(b"", b"\x01"), KeyRange(b"\x00account100", None))


def test_overlapping_ranges_are_refused(tmp_path: Path) -> None:
    """Two ranges that both hold a key are a fault of the source."""
    with pytest.raises(RecordOrderError):
        export(tmp_path, _SourceOutsideItsRange(tuple(PAIRS)))


class _SourceWithoutAValue(ListSource):
    def values(self, shard: ShardContext, value_hashes: Sequence[bytes], record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        return iter(list(ListSource.values(self, shard, value_hashes, record_batch_bytes_max))[1:])


def test_a_missing_value_is_refused(tmp_path: Path) -> None:
    """A referenced value that the source does not give stops the export."""
    with pytest.raises(ValueMismatchError):
        export(tmp_path, _SourceWithoutAValue(tuple(PAIRS)))


def test_epochs_are_selected_by_height_id_or_as_the_latest(tmp_path: Path) -> None:
    """A dataset that holds several epochs gives the one that is asked for."""
    for height in (3, 9, 5):
        context = replace(context_of(None), epoch_height=height, epoch_id=type(ZERO_HASH)(bytes([height]) * 32))
        export_epoch(runner(), list_source(PAIRS), context, ExportSettings(str(tmp_path)))
    shards = list_shards(str(tmp_path))

    assert select_epoch(shards, "latest")[0].epoch_height == 9
    assert select_epoch(shards, "3")[0].epoch_height == 3
    assert select_epoch(shards, str(type(ZERO_HASH)(bytes([5]) * 32)))[0].epoch_height == 5
    with pytest.raises(EpochNotReadyError, match="holds"):
        select_epoch(shards, "4")


def test_a_summary_that_was_cut_off_is_a_dataset_error(tmp_path: Path) -> None:
    """Half a shard.json is named, not half-read."""
    dataset = export(tmp_path)
    summary = tmp_path / dataset.folder / "shard.json"
    text = summary.read_text()
    for damaged in (
        text[:50],
        json.dumps({"format": "other"}),
        text.replace('"files"', '"flies"'),
        text.replace('"size": ', '"size": 1e400'),
    ):
        summary.write_text(damaged)

        with pytest.raises(DatasetError, match=r"shard\.json"):
            list_shards(str(tmp_path))
