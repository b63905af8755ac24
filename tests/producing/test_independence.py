"""The parts do not depend on how the work is cut: key ranges, record batches, files, kernels, reruns."""

from __future__ import annotations

import uuid
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_records import ExportSettings
from pipelines.dataset.record_files import FileFormat
from pipelines.execution.stage_runner import silent_runner
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.build.assemble import assemble_part
from pipelines.producing.build.build_part import BuildPartTask
from pipelines.producing.build.work_folder import work_folder_for
from pipelines.producing.build_shard import BuiltShard, build_planned, plan_shard
from tests.support.list_source import context_of, list_source
from tests.support.records import Pairs, parts_of, record_sets


def build(pairs: Pairs, num_parts: int, *, cuts: list[int], rows_max: int, file_bytes: int, file_format: FileFormat) -> BuiltShard:
    """Export and build a shard in memory."""
    runner = silent_runner()
    url = f"memory://{uuid.uuid4().hex}"
    settings = ExportSettings(url, file_format, file_bytes_target=file_bytes)
    (dataset,) = export_epoch(runner, list_source(pairs, cuts, rows_max), context_of(None), settings)
    kernel = choose_kernel("auto")
    planned = plan_shard(runner, kernel, dataset, work_folder_for(url, dataset), num_parts)
    return build_planned(runner, kernel, planned, list_source(pairs))


def part_digests(built: BuiltShard) -> list[str]:
    """Assemble all parts."""
    kernel = choose_kernel("auto")
    return [sha256(assemble_part(kernel, built.planned.work, plan)).hexdigest() for plan in built.planned.plans]


@given(
    pairs=record_sets(),
    num_parts=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    rows_max=st.integers(1, 20),
    file_bytes=st.sampled_from([1, 300, 1 << 20]),
    file_format=st.sampled_from(list(FileFormat)),
)
def test_parts_are_the_same_however_the_work_is_cut(
    pairs: Pairs, num_parts: int, cuts: list[int], rows_max: int, file_bytes: int, file_format: FileFormat
) -> None:
    """Key ranges, record batch sizes, file sizes and formats leave no trace in root or parts."""
    expected = parts_of(choose_kernel("reference"), pairs, num_parts)

    built = build(pairs, num_parts, cuts=cuts, rows_max=rows_max, file_bytes=file_bytes, file_format=file_format)

    assert expected.state_root == built.state_root
    assert expected.memory_usage == built.planned.memory_usage
    assert [sha256(part).hexdigest() for part in expected.parts] == part_digests(built)


@pytest.mark.parametrize("num_parts", [0, 1, 3])
def test_a_shard_without_records_has_the_empty_part_as_often_as_asked(num_parts: int) -> None:
    """nearcore makes no part of an empty trie of its own accord; asked for some, each is the five bytes of an empty PartialState."""
    runner = silent_runner()
    url = f"memory://{uuid.uuid4().hex}"
    (dataset,) = export_epoch(runner, list_source([]), context_of(None), ExportSettings(url))

    kernel = choose_kernel("auto")
    planned = plan_shard(runner, kernel, dataset, work_folder_for(url, dataset), num_parts or None)
    built = build_planned(runner, kernel, planned, list_source([]))

    assert [sha256(bytes(5)).hexdigest()] * num_parts == part_digests(built)


def test_what_was_damaged_in_the_work_folder_is_built_again(tmp_path: Path) -> None:
    """A rerun takes an interior or an edge for done only if it still has the bytes that were left there."""
    pairs = [(b"%03d" % number, b"value %d" % number) for number in range(300)]
    runner = silent_runner()
    source = list_source(pairs)
    (dataset,) = export_epoch(runner, source, context_of(None), ExportSettings(str(tmp_path)))
    work = work_folder_for(str(tmp_path / "work"), dataset)
    kernel = choose_kernel("auto")
    expected = part_digests(build_planned(runner, kernel, plan_shard(runner, kernel, dataset, work, 4), source))
    for pattern in ("interior-000001", "edge-000002"):
        (damaged,) = (tmp_path / "work").rglob(pattern)
        damaged.write_bytes(bytes(damaged.stat().st_size))

    again = build_planned(runner, kernel, plan_shard(runner, kernel, dataset, work, 4), source)

    assert expected == part_digests(again)


def test_what_an_earlier_run_has_left_whole_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No part is hashed a second time."""
    pairs = [(b"%03d" % number, b"value %d" % number) for number in range(300)]
    runner = silent_runner()
    (dataset,) = export_epoch(runner, list_source(pairs), context_of(None), ExportSettings(str(tmp_path)))
    work, kernel = work_folder_for(str(tmp_path / "work"), dataset), choose_kernel("auto")
    first = build_planned(runner, kernel, plan_shard(runner, kernel, dataset, work, 4), None)
    monkeypatch.delattr(BuildPartTask, "_build")

    assert build_planned(runner, kernel, plan_shard(runner, kernel, dataset, work, 4), None) == first
