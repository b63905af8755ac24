"""Judges the figures against the targets and prints them for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from benchmarks.stage_results import Results, StageFigure, Target
from schemas.nearcore.state_part import STATE_PART_MEMORY_USAGE

BUILD_RATIO_MAX = 2.0
BUILD_NS_MAX = 1_000
VALIDATE_RATIO_MAX = 3.0
STRUCTURE_NS_MAX = 100
MEMORY_PARTS_MAX = 8
"""A worker may hold this many times a part's memory usage, and the largest part."""
SCALING_MIN_PER_2_CORES = 1.6

TABLE_WIDTH = 140
"""Characters a line where the output is not a terminal."""

NEARCORE_FIGURES = "create parts 16.4 us, compress them 2.5 us, validate them 7.3 us a record"
"""nearcore's own code over 607,001 records of this mix, one core of another machine: for orientation only."""


def judge(results: Results) -> list[Target]:
    """Compare the figures with the targets."""
    stages = {figure.stage: figure for figure in results.stages}
    build, structure, validate = stages["build, kernel"], stages["structure, kernel"], stages["validate"]
    targets = [
        _ratio_target("build, to SHA-256", build, BUILD_RATIO_MAX),
        _time_target("build, a record", build, BUILD_NS_MAX),
        _ratio_target("validate, to SHA-256", validate, VALIDATE_RATIO_MAX),
        _time_target("structure, a record", structure, STRUCTURE_NS_MAX),
    ]
    return [*targets, *_memory_target(results), *_scaling_target(results)]


def _ratio_target(name: str, figure: StageFigure, ratio_max: float) -> Target:
    assert figure.ratio is not None, "the stage has a floor"
    return Target(name, f"at most {ratio_max:g} times", f"{figure.ratio:.2f} times", figure.ratio <= ratio_max)


def _time_target(name: str, figure: StageFigure, ns_max: int) -> Target:
    return Target(name, f"below {ns_max} ns", f"{figure.ns_per_record:.0f} ns", figure.ns_per_record < ns_max)


def _memory_target(results: Results) -> Iterator[Target]:
    if results.memory:
        worst = max(results.memory, key=lambda figure: figure.bytes_above_idle)
        limit = MEMORY_PARTS_MAX * STATE_PART_MEMORY_USAGE + results.largest_part_bytes
        measured = f"{_mib(worst.bytes_above_idle)} MiB ({worst.stage}, {worst.records} records)"
        yield Target("a worker's memory above idle", f"below {_mib(limit)} MiB", measured, worst.bytes_above_idle < limit)


def _scaling_target(results: Results) -> Iterator[Target]:
    runs = {run.cores: run for run in results.scaling}
    if 1 in runs and 2 in runs:
        ratio = runs[1].seconds / runs[2].seconds
        yield Target(
            "produce on 2 cores to 1", f"at least {SCALING_MIN_PER_2_CORES} times", f"{ratio:.2f} times", ratio >= SCALING_MIN_PER_2_CORES
        )


def print_results(results: Results) -> None:
    """Print all tables."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    console.print(
        f"{results.records} records, memory usage {_mib(results.memory_usage)} MiB, {results.parts} parts, the largest {_mib(results.largest_part_bytes)} MiB"
    )
    console.print(_stage_table(results))
    if results.ledger:
        console.print(_ledger_table(results))
    if results.memory:
        console.print(_memory_table(results))
    if results.scaling:
        console.print(_scaling_table(results))
    console.print(_target_table(results))
    console.print(f"For orientation, nearcore's own code, one core: {NEARCORE_FIGURES}.")


def _stage_table(results: Results) -> Table:
    table = Table("stage", title="Stages, one core", title_justify="left")
    for heading in ("ns a record", "MB/s", "floor, ns a record", "times its floor"):
        table.add_column(heading, justify="right")
    table.add_column("MB of")
    table.add_column("floor")
    for figure in results.stages:
        floor = "" if figure.floor_seconds is None else f"{figure.floor_seconds / figure.records * 1e9:.0f}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        speed = f"{figure.mb_per_s:.0f}" if figure.size else ""
        table.add_row(figure.stage, f"{figure.ns_per_record:.0f}", speed, floor, ratio, figure.size_of, figure.floor)
    return table


def _ledger_table(results: Results) -> Table:
    table = Table("stage", "pass", "over", title="Passes over a record's bytes", title_justify="left")
    table.add_column("bytes a record", justify="right")
    table.add_column("times what the database gives", justify="right")
    table.add_column("why")
    for row in results.ledger:
        table.add_row(row.stage, row.kind, row.what, f"{row.bytes_per_record:.0f}", f"{row.times:.2f}", row.reason)
    return table


def _memory_table(results: Results) -> Table:
    sizes = sorted({figure.records for figure in results.memory})
    table = Table("stage", title="A worker's peak memory above idle, MiB", title_justify="left")
    for records in sizes:
        table.add_column(f"{records} records", justify="right")
    peaks = {(figure.stage, figure.records): _mib(figure.bytes_above_idle) for figure in results.memory}
    for stage in dict.fromkeys(figure.stage for figure in results.memory):
        table.add_row(stage, *(str(peaks.get((stage, records), "")) for records in sizes))
    return table


def _scaling_table(results: Results) -> Table:
    table = Table("cores", title="Whole runs on Ray, seconds", title_justify="left")
    first = results.scaling[0]
    for heading in ("whole", "times the first", "hashing alone, times the first", *first.stages):
        table.add_column(heading, justify="right")
    for run in results.scaling:
        gains = (f"{first.seconds / run.seconds:.2f}", f"{run.hash_mb_per_s / first.hash_mb_per_s:.2f}")
        table.add_row(str(run.cores), f"{run.seconds:.2f}", *gains, *(f"{seconds:.2f}" for seconds in run.stages.values()))
    return table


def _target_table(results: Results) -> Table:
    table = Table("target", "wanted", "measured", "", title="Targets", title_justify="left")
    for target in results.targets:
        table.add_row(target.name, target.wanted, target.measured, "met" if target.met else "MISSED")
    return table


def _mib(size: int) -> int:
    return round(size / (1 << 20))
