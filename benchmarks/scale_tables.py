"""Prints the figures of productions of several sizes, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.scale_model import Comparison, forecast_s, shape_of, slope
from benchmarks.scale_run import ScaleFigure
from benchmarks.stage_results import MemoryFigure
from pipelines.producing.forecast.bill import epoch_amounts
from pipelines.producing.forecast.stage_costs import GIB, StageCosts

MIB = 1 << 20

FORECAST_RECORDS = 100_000_000
"""The state that is forecast where it does not fit."""


def print_runs(figures: Sequence[ScaleFigure]) -> None:
    """Print each run's time, memory and size; and how each cores' time a record grows from the smallest state."""
    first = {figure.cores: figure for figure in reversed(figures)}
    print("\nRuns, files memory-mapped")
    _table(
        (
            "records",
            "cores",
            "seconds",
            "to the fewest cores",
            "ns a record",
            "to the smallest",
            "processor ns a record",
            "to the smallest",
            "worker's peak, MiB",
            "driver's peak, MiB",
            "tasks",
        ),
        (
            (
                f"{figure.records:,}",
                figure.cores,
                f"{figure.seconds:.1f}",
                f"{_fewest_cores(figures, figure).seconds / figure.seconds:.2f}",
                f"{figure.ns_per_record:.0f}",
                f"{figure.ns_per_record / first[figure.cores].ns_per_record:.2f}",
                f"{figure.cpu_s / figure.records * 1e9:.0f}",
                f"{figure.cpu_s / figure.records / first[figure.cores].cpu_s * first[figure.cores].records:.2f}",
                " ".join(_mib(peak) for peak in figure.worker_peaks),
                _mib(figure.driver_bytes_above_idle),
                f"{figure.tasks:,}",
            )
            for figure in figures
        ),
    )


def _fewest_cores(figures: Sequence[ScaleFigure], like: ScaleFigure) -> ScaleFigure:
    return min((figure for figure in figures if figure.records == like.records), key=lambda figure: figure.cores)


def print_stages(figures: Sequence[ScaleFigure]) -> None:
    """Print processor nanoseconds a record and peak memory by the stage, of the runs on the fewest cores."""
    runs = _one_a_size(figures)
    small, large = runs[0], runs[-1]
    print(f"\nBy the stage, on {small.cores} core" + "s" * (small.cores > 1))
    sizes = [f"{run.records:,} records" for run in runs]
    _table(
        (
            "stage",
            *(f"{size}, processor ns a record" for size in sizes),
            "ratio",
            *(f"{size}, peak MiB" for size in sizes),
            "ratio",
            "a task says, MiB",
        ),
        (
            (
                stage,
                *(f"{run.stage_cpu_s[stage] / run.records * 1e9:.1f}" for run in runs),
                _ratio(large.stage_cpu_s[stage] / large.records, small.stage_cpu_s[stage] / small.records),
                *(_mib(run.stage_peaks[stage]) for run in runs),
                _ratio(large.stage_peaks[stage], small.stage_peaks[stage]),
                _mib(large.stage_needs[stage]),
            )
            for stage in small.stages
        ),
    )


def print_memory_alone(figures: Sequence[MemoryFigure]) -> None:
    """Print each stage's peak memory in a process that runs nothing else, at each size."""
    sizes = sorted({figure.records for figure in figures})
    peaks = {(figure.stage, figure.records): figure.bytes_above_idle for figure in figures}
    print("\nA stage alone in a new process, peak above idle, MiB")
    _table(
        ("stage", *(f"{size:,} records" for size in sizes), "ratio"),
        (
            (
                stage,
                *(_mib(peaks.get((stage, size), 0)) for size in sizes),
                _ratio(peaks[stage, sizes[-1]], peaks.get((stage, sizes[0]), 0)),
            )
            for stage in dict.fromkeys(figure.stage for figure in figures)
        ),
    )


def print_driver(figures: Sequence[ScaleFigure]) -> None:
    """Print how the driver's memory goes with its tasks, in MiB above what it has before the run."""
    print("\nDriver, MiB above idle")
    _table(
        ("records", "parts", "tasks", "before the first task", "after half the tasks", "after the last", "peak", "KiB a task, second half"),
        (
            (
                f"{run.records:,}",
                f"{run.parts:,}",
                f"{run.tasks:,}",
                *(f"{size / MIB:.1f}" for size in (run.driver_growth[0][1], _second_half(run)[0][1], run.driver_growth[-1][1])),
                f"{run.driver_bytes_above_idle / MIB:.1f}",
                f"{slope([(tasks, size / 1024) for tasks, size in _second_half(run)]):.1f}",
            )
            for run in _one_a_size(figures)
        ),
    )


def _second_half(run: ScaleFigure) -> list[tuple[int, int]]:
    return [point for point in run.driver_growth if 2 * point[0] >= run.tasks] or [run.driver_growth[-1]]


def print_sizes(figures: Sequence[ScaleFigure]) -> None:
    """Print what each size leaves, a record."""
    print("\nSizes")
    _table(
        (
            "records",
            "memory usage, GiB",
            "parts",
            "objects",
            "a million records",
            "bytes stored a record",
            "dataset and work, bytes a record",
        ),
        (
            (
                f"{run.records:,}",
                f"{run.memory_usage / GIB:.2f}",
                f"{run.parts:,}",
                f"{run.objects:,}",
                f"{run.objects / run.records * 1e6:.2f}",
                f"{run.stored_bytes / run.records:.1f}",
                f"{run.work_bytes / run.records:.1f}",
            )
            for run in _one_a_size(figures)
        ),
    )


def print_comparisons(comparisons: Iterable[Comparison]) -> None:
    """Print forecast and measured figures side by side."""
    print("\nForecast and measured")
    _table(
        ("records", "", "forecast", "measured", "ratio"),
        ((f"{one.records:,}", one.what, _number(one.forecast), _number(one.measured), f"{one.ratio:.3f}") for one in comparisons),
    )


def print_forecast(costs: StageCosts, like: ScaleFigure, cores: Sequence[int]) -> None:
    """Print the forecast for the state that does not fit."""
    shape = shape_of(FORECAST_RECORDS, like)
    amounts = epoch_amounts(shape, StageCosts(), early=like.early, headers=False, direct=like.direct)
    seconds = ", ".join(f"{forecast_s(shape, costs, count, like):.0f} s on {count}" for count in cores)
    print(
        f"\nforecast of {FORECAST_RECORDS:,} records in {len(shape.memory_usages)} shards: {shape.memory_usage / GIB:.1f} GiB, "
        f"{sum(shape.num_parts):,} parts, {amounts.objects:,} objects of {amounts.stored_bytes / GIB:.1f} GiB, {amounts.work_bytes / GIB:.0f} GiB "
        f"of dataset and work, {amounts.write_requests:,} writes, {amounts.read_requests:,} reads of {amounts.read_bytes / GIB:,.0f} GiB; "
        f"{seconds} cores"
    )


def _one_a_size(figures: Sequence[ScaleFigure]) -> list[ScaleFigure]:
    """Return the runs on the fewest cores that every size has."""
    sizes = sorted({figure.records for figure in figures})
    counts = [{figure.cores for figure in figures if figure.records == size} for size in sizes]
    cores = min(set.intersection(*counts))
    return sorted((figure for figure in figures if figure.cores == cores), key=lambda figure: figure.records)


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    print("| " + " | ".join(headings) + " |")
    print("|" + "---:|" * len(headings))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")


def _ratio(large: float, small: float) -> str:
    return f"{large / small:.2f}" if small > 0 else ""


def _mib(size: int) -> str:
    return f"{size / MIB:.0f}"


def _number(value: float) -> str:
    return f"{value:,.1f}" if value < 10_000 and value != round(value) else f"{value:,.0f}"
