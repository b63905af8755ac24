"""The benchmark of sizes: its figures are of real productions, and the forecast's counts are theirs."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from benchmarks.counting_store import READS, WRITES, RangeReadStore, counted_calls, requests, transferred
from pipelines.kernel.native import is_available
from pipelines.stores.object_names import TEMPORARY_FOLDER
from pipelines.stores.ranges import READ_AHEAD_BYTES

pytestmark = pytest.mark.skipif(not is_available(), reason="the benchmark measures the native kernel, whose wheel is not installed")

RECORDS, SHARDS = 9_000, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that keeps the states."""
    return tmp_path_factory.mktemp("scale")


@pytest.fixture(scope="module")
def figure(folder: Path) -> object:
    """Return the figures of a production without Ray, its files read by ranges."""
    from benchmarks.scale_run import run_in_driver
    from benchmarks.synthetic_state import synthetic_state

    state = synthetic_state(folder, RECORDS, shards=SHARDS)
    # A process of its own, whose memory before the first task is no other test's.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(run_in_driver, state, folder / "run", 0, by_ranges=True).result()


def test_the_forecast_counts_objects_and_writes_of_a_real_production_exactly(figure) -> None:  # type: ignore[no-untyped-def]
    """Objects, parts and write requests are counted out; reads depend on where rows lie, and are within a fifth."""
    from benchmarks.scale_model import compare_amounts

    compared = {one.what: one for one in compare_amounts(figure)}
    for what in ("parts", "objects", "write requests"):
        assert compared[what].forecast == compared[what].measured, what
    for what in ("read requests", "bytes read", "bytes stored", "bytes of dataset and work folder"):
        assert 0.8 < compared[what].ratio < 1.25, (what, compared[what])


def test_a_run_leaves_its_published_epoch_and_nothing_else(figure, folder: Path) -> None:  # type: ignore[no-untyped-def]
    """Dataset and work folder are removed by the production; the objects counted are those in the epoch's folder."""
    epoch = [path for path in (folder / "run" / "published" / "chain_id=synthetic").rglob("epoch_id=*/**/*") if path.is_file()]
    files = [path for path in (folder / "run").rglob("*") if path.is_file() and TEMPORARY_FOLDER not in path.parts]
    assert figure.objects == len(epoch) > 0 and figure.stored_bytes == sum(path.stat().st_size for path in epoch)
    assert all(path.is_relative_to(folder / "run" / "published") for path in files)


def test_memory_and_tasks_of_every_stage_are_noted(figure) -> None:  # type: ignore[no-untyped-def]
    """A stage with tasks has a peak, and what its tasks say that they need."""
    assert set(figure.stages) == set(figure.stage_peaks) == set(figure.stage_cpu_s) == set(figure.stage_needs)
    assert figure.stage_peaks["publish"] > 0 and figure.stage_needs["publish"] > 100 << 20
    assert 0 < figure.cpu_s <= figure.driver_cpu_s
    assert figure.tasks == 8 * SHARDS and figure.driver_growth[-1][0] <= figure.tasks
    assert len(figure.memory_usages) == SHARDS and list(figure.memory_usages) == sorted(figure.memory_usages, reverse=True)


def test_all_tables_are_printed(figure, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    """Two sizes, runs and counted requests, up to mainnet's table."""
    from benchmarks.scale import print_all
    from benchmarks.scale_run import figure_from_json

    small = replace(figure, cores=1, by_ranges=False)
    large = replace(small, records=2 * RECORDS, seconds=2 * small.seconds, driver_bytes_above_idle=small.driver_bytes_above_idle)
    figures = [figure_from_json(json.loads(json.dumps(asdict(one)))) for one in (small, figure, large)]
    assert figures == [small, figure, large]
    print_all(figures)
    shown = capsys.readouterr().out
    for text in ("Runs, files memory-mapped", "Driver", "read requests", "100,000,000 records", "| 1,024 |"):
        assert text in shown
    assert f"| {2 * RECORDS:,} | 1 | {large.seconds:.1f} | 1.00 | {small.ns_per_record:.0f} | 1.00 |" in shown


def test_a_state_that_would_fill_the_disk_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is neither made nor produced, and said so."""
    from benchmarks.scale import main

    main(["--records", "100000000", "--shards", "8", "--keep-free-gib", "1e9", "--folder", str(tmp_path / "states")])
    assert "100,000,000 records are left out" in capsys.readouterr().err
    assert not list((tmp_path / "states").iterdir())


@pytest.mark.slow
def test_stages_alone_are_printed_and_read_again(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A production with a process a stage gives the worst shard of each stage; its lines of JSON give the same table."""
    from benchmarks.scale import main

    main(["--records", str(RECORDS), "--shards", "1", "--keep-free-gib", "0", "--folder", str(folder), "--memory-alone", "--json"])
    (tmp_path / "figures").write_text(capsys.readouterr().out)
    main(["--figures", str(tmp_path / "figures")])
    shown = capsys.readouterr().out
    assert f"| stage | {RECORDS:,} records | ratio |" in shown
    assert all(f"| {stage} | " in shown for stage in ("export", "values", "structure", "build", "seal", "publish"))


@pytest.mark.parametrize("arguments", [["--shards", "0"], ["--records", "10000", "--shards", "8"], ["--cores", "0"]])
def test_a_number_out_of_range_is_a_usage_error(arguments: list[str]) -> None:
    """Too few records a shard, no shard, no core."""
    from benchmarks.scale import main

    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2


def test_a_call_counts_once_whatever_it_takes_the_store_inside(tmp_path: Path) -> None:
    """A swap looks at the object first; that is the store's own affair. Bytes are those that went over."""
    store, before = RangeReadStore(str(tmp_path / "counted")), counted_calls()
    store.put("a", b"12345")
    store.swap("a", b"123456", store.info("a"))
    assert store.get("a", 1, 4) == b"234"
    calls = counted_calls() - before
    assert (requests(calls, WRITES, "counted"), requests(calls, READS, "counted")) == (2, 2)
    assert (transferred(calls, WRITES), transferred(calls, READS)) == (11, 3)


def test_an_opened_file_counts_by_its_ranges(tmp_path: Path) -> None:
    """Its size is one request, each range another."""
    store = RangeReadStore(str(tmp_path / "opened"))
    store.put("a", bytes(3 << 20))
    before = counted_calls()
    with store.open("a") as file:
        assert len(file.read(10)) == 10
    calls = counted_calls() - before
    assert calls["opened", "info", "calls"] == 1 and calls["opened", "get", "calls"] == 1
    assert calls["opened", "get", "bytes"] == READ_AHEAD_BYTES
