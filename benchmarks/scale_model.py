"""The forecast for a measured production, and for those that do not fit this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.scale_run import ScaleFigure
from pipelines.producing.forecast.bill import epoch_amounts
from pipelines.producing.forecast.epoch_shape import EpochShape
from pipelines.producing.forecast.forecast_epoch import Cluster, forecast_epoch
from pipelines.producing.forecast.stage_costs import StageCosts, stage_costs_from_benchmark

FIRST_EPOCH_WRITES = 1
"""A store's first epoch lists its manifests once, to make the catalogue."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure, forecast and measured."""

    records: int
    what: str
    forecast: float
    measured: float

    @property
    def ratio(self) -> float:
        """Forecast to measured."""
        return self.forecast / self.measured


def costs_of(figure: ScaleFigure, *, processor: bool = False) -> StageCosts:
    """Return the stage costs that a run on one core gives; sizes are those that the forecast has by itself.

    Args:
        processor: take the tasks' processor seconds, which other work on the machine hardly changes, instead of the wall's.
    """
    assert figure.cores == 1, "costs are those of one core"
    # A stage without tasks takes no processor; a cost is above nothing.
    stages = {stage: max(seconds, 1e-9) for stage, seconds in (figure.stage_cpu_s if processor else figure.stages).items()}
    document = {"memory_usage": figure.memory_usage, "scaling": [{"cores": 1, "stages": stages}]}
    return stage_costs_from_benchmark(document, "this run")


def this_machine(cores: int) -> Cluster:
    """Return a cluster of one machine whose folders take no requests: what the costs were measured on."""
    return Cluster(cores, cores, 1e12, cores, 1e12, 1e12, request_s=0.0, request_bytes_per_s=1e12, folders_mapped=True, start_s=0.0)


def forecast_s(shape: EpochShape, costs: StageCosts, cores: int, like: ScaleFigure) -> float:
    """Return the seconds of a run on this machine, made as another was."""
    return forecast_epoch(shape, costs, this_machine(cores), early=like.early, direct=like.direct).last_part_s


def compare_sizes(figure: ScaleFigure) -> tuple[Comparison, ...]:
    """Hold the forecast's counts and sizes of what is left against a run."""
    return _comparisons(figure)[:4]


def compare_amounts(figure: ScaleFigure) -> tuple[Comparison, ...]:
    """Hold the forecast's counts and sizes against a run that read by ranges."""
    assert figure.by_ranges, "requests are counted where files are read by ranges"
    return _comparisons(figure)


def _comparisons(figure: ScaleFigure) -> tuple[Comparison, ...]:
    amounts = epoch_amounts(EpochShape(figure.memory_usages), StageCosts(), early=figure.early, headers=False, direct=figure.direct)
    pairs = (
        ("parts", sum(EpochShape(figure.memory_usages).num_parts), figure.parts),
        ("objects", amounts.objects, figure.objects),
        ("bytes stored", amounts.stored_bytes, figure.stored_bytes),
        ("bytes of dataset and work folder", amounts.work_bytes, figure.work_bytes),
        ("write requests", amounts.write_requests + FIRST_EPOCH_WRITES, figure.write_requests),
        ("read requests", amounts.read_requests, figure.read_requests),
        ("bytes read", amounts.read_bytes, figure.read_bytes),
    )
    return tuple(Comparison(figure.records, what, forecast, measured) for what, forecast, measured in pairs)


def compare_seconds(figure: ScaleFigure, costs: StageCosts) -> Comparison:
    """Hold the forecast of the time against a run."""
    forecast = forecast_s(EpochShape(figure.memory_usages), costs, figure.cores, figure)
    return Comparison(figure.records, f"seconds on {figure.cores} core" + "s" * (figure.cores > 1), forecast, figure.seconds)


def compare_processor(figure: ScaleFigure, costs: StageCosts) -> Comparison:
    """Hold the forecast of the tasks' processor seconds against a run.

    Args:
        costs: in processor seconds.
    """
    forecast = forecast_epoch(
        EpochShape(figure.memory_usages), costs, this_machine(figure.cores), early=figure.early, direct=figure.direct
    ).core_s
    what = f"processor seconds on {figure.cores} core" + "s" * (figure.cores > 1)
    return Comparison(figure.records, what, forecast, sum(figure.stage_cpu_s.values()))


def shape_of(records: int, like: ScaleFigure) -> EpochShape:
    """Return the shape of a state of so many records, in the shards' proportions of one that was measured."""
    return EpochShape(tuple(round(one * records / like.records) for one in like.memory_usages))


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the line that fits the points best; 0 for fewer than two."""
    count = len(points)
    mean_x, mean_y = (sum(point[axis] for point in points) / max(count, 1) for axis in (0, 1))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
